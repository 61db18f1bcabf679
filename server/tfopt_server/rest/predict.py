"""One predict request over REST: decode, run, encode, each step timed. Shared by every route that predicts.

The checks stand in TensorFlow Serving's order: JSON, signature_name, model, signature, keys, values, run. Short
requests never leave the event loop, because a change of thread costs more than decoding a row; long bodies are decoded,
and long answers written, in a thread so that health and small requests go on being answered in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import Code, ServingError, invalid
from tfopt_server.registry import Handle
from tfopt_server.rest import codec
from tfopt_server.rest.call import Call
from tfopt_server.rest.codec import Layout
from tfopt_server.rest.status import Response
from tfopt_server.rows import Feeds
from tfopt_server.tasks import Result

# orjson reads 256 kB of numbers in about 1 ms, and making arrays of them takes 3 ms more.
LONG_BODY = 256 * 1024
LONG_ANSWER = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Decoded:
    handle: Handle
    signature: str
    feeds: Feeds
    layout: Layout


class Predict:
    def __init__(self, plane: Dataplane, timeout_s: float) -> None:
        self._plane = plane
        self._timeout_s = timeout_s

    async def answer(self, spec: ModelSpec, in_parameters: bool, call: Call) -> Response:
        call.model, call.entrypoint = spec.name, "predict"
        deadline = time.monotonic() + self._timeout_s
        with ExitStack() as held:
            if len(call.body) < LONG_BODY:
                decoded = self._decode(spec, in_parameters, call.body, held)
            else:
                decoded = await asyncio.to_thread(self._decode, spec, in_parameters, call.body, held)
            steps = self._plane.steps(decoded.handle, decoded.signature)
            steps.decode.observe(time.perf_counter() - call.began)
            started = self._plane.start(
                decoded.handle, decoded.signature, decoded.feeds, deadline=deadline, face="REST"
            )
            result = await _wait(started, deadline) if isinstance(started, Future) else started
            began = time.perf_counter()
            body = await _encode(result.outputs, decoded.layout)
            steps.encode.observe(time.perf_counter() - began)
        return Response(body)

    def _decode(self, spec: ModelSpec, in_parameters: bool, body: bytes, held: ExitStack) -> Decoded:
        """Raises ServingError for the first thing that is wrong. The version stays loaded as long as `held` is open."""
        request = codec.Request.read(body, in_parameters)
        handle = held.enter_context(self._plane.resolve(spec))
        signature = self._plane.signature(handle, request.signature)
        if signature is None:
            raise invalid(f'Serving signature name: "{request.signature}" not found in signature def')
        feeds, layout = codec.feeds(request, signature)
        return Decoded(handle, request.signature, feeds, layout)


async def _wait(future: Future[Result], deadline: float) -> Result:
    """The result, or DEADLINE_EXCEEDED. What already runs cannot be stopped: it finishes unheard."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await asyncio.wrap_future(future)
    except TimeoutError as error:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Run() timed out") from error


async def _encode(outputs: Mapping[str, Any], layout: Layout) -> bytes:
    if sum(array.nbytes for array in outputs.values()) < LONG_ANSWER:
        return codec.answer(outputs, layout)
    return await asyncio.to_thread(codec.answer, outputs, layout)
