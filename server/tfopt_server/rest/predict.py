"""One predict request over REST: decode, run, encode, each step timed. Shared by every route that predicts.

The checks stand in TensorFlow Serving's order: JSON, signature_name, model, signature, keys, values, run. Short
requests never leave the event loop, because a change of thread costs more than decoding a row; long bodies are decoded,
and long answers written, in a thread so that health and small requests go on being answered in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import NamedTuple

from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import Code, ServingError, invalid
from tfopt_server.http import Request, Response
from tfopt_server.metrics import Steps
from tfopt_server.registry import Handle
from tfopt_server.rest import codec
from tfopt_server.rest.codec import Layout
from tfopt_server.tasks import Result

# A body of this length holds the event loop for 1 ms, and for 0.1 s at worst (deep nesting, read token by token).
LONG_BODY = 64 * 1024
LONG_ANSWER = 1024 * 1024


class Pending(NamedTuple):
    """A request whose answer takes a thread or a wait. `handle` is held and must be released."""

    handle: Handle
    steps: Steps
    layout: Layout
    result: Result | Future[Result]
    deadline: float


class Predict:
    def __init__(self, plane: Dataplane, timeout_s: float) -> None:
        self._plane = plane
        self._timeout_s = timeout_s

    def answer(self, spec: ModelSpec, in_parameters: bool, request: Request) -> Response | Awaitable[Response]:
        """The answer, or where it takes long, what to await for it: a coroutine costs as much as decoding a row."""
        request.model, request.entrypoint = spec.name, "predict"
        if len(request.body) >= LONG_BODY:
            return self._long(spec, in_parameters, request)
        begun = self._begin(spec, in_parameters, request)
        return begun if isinstance(begun, Response) else _end(begun)

    async def _long(self, spec: ModelSpec, in_parameters: bool, request: Request) -> Response:
        begun = await asyncio.to_thread(self._begin, spec, in_parameters, request)
        return begun if isinstance(begun, Response) else await _end(begun)

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
                return Pending(handle, steps, layout, result, deadline)
            return _written(result, steps, layout)
        finally:
            if not keep:
                handle.release()


def is_long(result: Result) -> bool:
    for array in result.outputs.values():  # noqa: SIM110 - without a generator, which costs more than the whole check
        if array.nbytes >= LONG_ANSWER:
            return True
    return False


def _written(result: Result, steps: Steps, layout: Layout) -> Response:
    began = time.perf_counter()
    body = codec.answer(result.outputs, layout)
    steps.encode.observe(time.perf_counter() - began)
    return Response(body)


async def _end(pending: Pending) -> Response:
    try:
        result = pending.result
        if isinstance(result, Future):
            result = await wait(result, pending.deadline)
        if is_long(result):
            return await asyncio.to_thread(_written, result, pending.steps, pending.layout)
        return _written(result, pending.steps, pending.layout)
    finally:
        pending.handle.release()


async def wait(future: Future[Result], deadline: float) -> Result:
    """The result, or DEADLINE_EXCEEDED. What already runs cannot be stopped: it finishes unheard."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await asyncio.wrap_future(future)
    except TimeoutError as error:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Run() timed out") from error
