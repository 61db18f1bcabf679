"""One predict request over REST: decode, run, encode, each step timed. Shared by every route that predicts.

The checks stand in TensorFlow Serving's order: JSON, signature_name, model, signature, keys, values, run. Short
requests never leave the event loop, because a change of thread costs more than decoding a row; long bodies are decoded,
and long answers written, in a thread so that health and small requests go on being answered in between. What is not
JSON both ways goes to exchange.py.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from concurrent.futures import Future
from functools import partial

from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import invalid
from tfopt_server.http import ACCEPT, CONTENT_TYPE, Answer, Request, Response
from tfopt_server.metrics import Steps
from tfopt_server.rest import codec
from tfopt_server.rest.codec import Layout
from tfopt_server.rest.exchange import Exchange
from tfopt_server.rest.forms import forms_of
from tfopt_server.rest.pending import LONG_BODY, Pending, end, through
from tfopt_server.tasks import Result, is_long


class Predict:
    def __init__(self, plane: Dataplane, timeout_s: float, exchange: Exchange) -> None:
        self._plane = plane
        self._timeout_s = timeout_s
        self._exchange = exchange

    def answer(self, spec: ModelSpec, in_parameters: bool, request: Request) -> Answer | Awaitable[Answer]:
        """The answer, or where it takes long, what to await for it: a coroutine costs as much as decoding a row."""
        request.model, request.entrypoint = spec.name, "predict"
        noted = request.noted
        forms = forms_of(noted.get(CONTENT_TYPE, b""), noted.get(ACCEPT, b""))
        if forms is not None:
            return self._exchange.answer(spec, in_parameters, request, forms)
        if len(request.body) >= LONG_BODY:
            return through(partial(self._begin, spec, in_parameters, request))
        begun = self._begin(spec, in_parameters, request)
        return begun if isinstance(begun, Response) else end(begun)

    def _begin(self, spec: ModelSpec, in_parameters: bool, request: Request) -> Response | Pending:
        """Decodes and runs; writes the answer too where there is one at once and it is short.

        Raises ServingError for the first thing that is wrong.
        """
        plane, deadline = self._plane, time.monotonic() + self._timeout_s
        asked = codec.Request.read(request.body, in_parameters)
        handle = plane.resolve(spec)
        keep = False
        try:
            key = asked.signature
            signature = plane.signature(handle, key)
            if signature is None:
                raise invalid(f'Serving signature name: "{key}" not found in signature def')
            feeds, layout = codec.feeds(asked, signature)
            steps = plane.steps(handle, key)
            steps.decode.observe(time.perf_counter() - request.began)
            result = plane.start(handle, key, feeds, deadline=deadline, face="REST")
            if keep := isinstance(result, Future) or is_long(result):
                return Pending(handle, result, deadline, partial(_written, steps, layout))
            return _written(steps, layout, result)
        finally:
            if not keep:
                handle.release()


def _written(steps: Steps, layout: Layout, result: Result) -> Response:
    began = time.perf_counter()
    body = codec.answer(result.outputs, layout)
    steps.encode.observe(time.perf_counter() - began)
    return Response(body)
