"""One classify or regress request over REST: decode, run, encode. The counterpart of predict.py.

The whole document is read before the model is looked up, as in TensorFlow Serving.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from concurrent.futures import Future
from functools import partial

from tfopt_server import inference
from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.http import Request, Response
from tfopt_server.inference import Ask, Method
from tfopt_server.metrics import Steps
from tfopt_server.rest import examples
from tfopt_server.rest.pending import LONG_BODY, Pending, end, through
from tfopt_server.tasks import Result, is_long


class Infer:
    """`by_name`: a signature's method_name must be the method's (--enable_signature_method_name_check)."""

    def __init__(self, plane: Dataplane, timeout_s: float, by_name: bool) -> None:
        self._plane, self._timeout_s, self._by_name = plane, timeout_s, by_name

    def answer(self, method: Method, spec: ModelSpec, request: Request) -> Response | Awaitable[Response]:
        request.model, request.entrypoint = spec.name, method
        if len(request.body) >= LONG_BODY:
            return through(partial(self._begin, method, spec, request))
        begun = self._begin(method, spec, request)
        return begun if isinstance(begun, Response) else end(begun)

    def _begin(self, method: Method, spec: ModelSpec, request: Request) -> Response | Pending:
        plane, deadline = self._plane, time.monotonic() + self._timeout_s
        asked = examples.Request.read(request.body)
        handle = plane.resolve(spec)
        keep = False
        try:
            ask = Ask.of(asked.signature_name, method)
            inference.check(ask, plane, handle, by_name=self._by_name)
            steps = plane.steps(handle, ask.key)
            steps.decode.observe(time.perf_counter() - request.began)
            result = inference.start(plane, handle, ask, asked.examples, deadline, "REST")
            count = len(asked.examples)
            if keep := isinstance(result, Future) or is_long(result):
                return Pending(handle, result, deadline, partial(_written, steps, ask, count))
            return _written(steps, ask, count, result)
        finally:
            if not keep:
                handle.release()


def _written(steps: Steps, ask: Ask, count: int, result: Result) -> Response:
    began = time.perf_counter()
    body = examples.answer(inference.read(ask, result.outputs, count))
    steps.encode.observe(time.perf_counter() - began)
    return Response(body)
