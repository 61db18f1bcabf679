"""A predict answer as server-sent events: rows as they are ready, for Vertex AI's streamRawPredict and any client that
sends `Accept: text/event-stream`.

    data: {"predictions":[[0.1],[0.2]]}
    data: {"predictions":[[0.3]]}

Put together, the predictions are those of the whole answer, in the rows' order. A request of more rows than a batch
runs batch by batch where the model's rows are independent, each when the client has taken the one before; otherwise it
runs as a whole, and a large answer is cut. Columns (`inputs`) come as one event. What fails before the first event is
an HTTP error as ever; afterwards it is the last event, `event: error`, with the same body.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import orjson

from tfopt_server import rows
from tfopt_server.dataplane import Dataplane
from tfopt_server.faces import failure
from tfopt_server.http import Header, Streamed
from tfopt_server.registry import Handle
from tfopt_server.rest import codec
from tfopt_server.rest.codec import Layout
from tfopt_server.rest.forms import Form
from tfopt_server.rest.pending import wait
from tfopt_server.rows import Arrays, Feeds
from tfopt_server.tasks import Result, is_long

EVENT_BYTES = 256 * 1024  # of arrays in one event
# Nothing on the way may hold events back, or hand them to somebody else.
_HEADERS: tuple[Header, ...] = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


class Events:
    """The parts of a streamed answer. Holds `handle` until it is closed or has come to its end."""

    def __init__(  # noqa: PLR0917 - one caller
        self, plane: Dataplane, handle: Handle, key: str, feeds: Feeds, outputs: Sequence[str] | None, layout: Layout,
        timeout_s: float,
    ) -> None:  # fmt: skip
        self._plane, self._handle, self._key = plane, handle, key
        self._outputs, self._layout, self._timeout_s = outputs, layout, timeout_s
        self._left = _slices(feeds, plane.batch_rows(handle, key) if layout is Layout.ROWS else 0)
        self._ready: deque[Arrays] = deque()
        self._first: bytes | None = None
        self._held = True

    async def begin(self) -> Streamed:
        """With the first event made: until then an error has a status of its own."""
        try:
            self._first = await self._next()
        except BaseException:
            await self.aclose()
            raise
        return Streamed(self, content_type=Form.EVENTS.value.encode(), headers=_HEADERS)

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        if not self._held:
            raise StopAsyncIteration
        try:
            event = await self._next()
        except Exception as error:
            await self.aclose()
            refused = failure(error, f"a streamed predict of {self._handle.name}")
            return b"event: error\ndata: " + orjson.dumps({"error": refused.message}) + b"\n\n"
        if event is None:
            await self.aclose()
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        if self._held:
            self._held = False
            self._handle.release()

    async def _next(self) -> bytes | None:
        """The next event; None at the end. Each batch has the whole of --rest_api_timeout_in_ms."""
        if not self._ready:
            feeds = next(self._left, None)
            if feeds is None:
                return None
            result = await self._run(feeds)
            self._ready.extend(_cut(result.outputs) if self._layout is Layout.ROWS else (result.outputs,))
        outputs = self._ready.popleft()
        if sum(array.nbytes for array in outputs.values()) > EVENT_BYTES:
            return await asyncio.to_thread(self._event, outputs)
        return self._event(outputs)

    async def _run(self, feeds: Feeds) -> Result:
        deadline = time.monotonic() + self._timeout_s
        # The run itself may take a while on whatever thread starts it.
        begun = await asyncio.to_thread(
            self._plane.start, self._handle, self._key, feeds, self._outputs, deadline, "REST"
        )
        result = await wait(begun, deadline) if isinstance(begun, Future) else begun
        if is_long(result):
            await asyncio.sleep(0)  # others first
        return result

    def _event(self, outputs: Arrays) -> bytes:
        began = time.perf_counter()
        body = codec.answer(outputs, self._layout)
        self._plane.steps(self._handle, self._key).encode.observe(time.perf_counter() - began)
        return b"data: " + body + b"\n\n"


def _slices(feeds: Feeds, size: int) -> Iterator[Feeds]:
    """The request in pieces of `size` rows; whole where size is 0 or its inputs have no common rows."""
    count = rows.common(feeds)
    if not size or count <= size:
        yield feeds
        return
    for start in range(0, count, size):
        yield rows.cut(feeds, start, min(start + size, count))


def _cut(outputs: Arrays) -> Iterator[Arrays]:
    """Outputs of the same number of rows in pieces of about EVENT_BYTES; others whole, for the codec to judge."""
    count = rows.common(outputs)
    size = sum(array.nbytes for array in outputs.values())
    if count < 2 or size <= EVENT_BYTES:
        yield outputs
        return
    step = max(1, count * EVENT_BYTES // size)
    for start in range(0, count, step):
        yield rows.cut(outputs, start, min(start + step, count))
