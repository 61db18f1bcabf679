"""One call of a streaming method: a task that takes the client's messages and sends its own, at the pace of both."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from tfopt_server.errors import Code, ServingError, unavailable
from tfopt_server.faces import failure
from tfopt_server.room import Room
from tfopt_server.rpc import status
from tfopt_server.rpc.head import Head
from tfopt_server.rpc.http2.connection import Connection
from tfopt_server.rpc.http2.stream import Stream
from tfopt_server.rpc.messages import PREFIX, Inbox, Message, inflate, prefix, too_large_to_send
from tfopt_server.rpc.options import Options

LEAVING = unavailable("The server is shutting down")
AHEAD = 16  # messages that a client may be ahead of the method, before its window is left to run out


class Talk:
    """A methods.Conversation, and the stream's owner. Everything happens on the event loop."""

    def __init__(
        self, core: Connection, stream: Stream, options: Options, room: Room, flush: Callable[[], None]
    ) -> None:
        head: Head = stream.head
        self._core, self._stream, self._room, self._flush = core, stream, room, flush
        self._held = 0  # bytes of the room
        self._limit, self._send_limit = options.receive_limit, options.send_limit
        self._inbox = Inbox(self._limit)
        self._messages: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._leaving = asyncio.Event()
        self._owed = 0  # bytes that came and were not given back to the client's window
        self._broken: ServingError | None = None
        self._started = False
        self._ended = False  # the client has said its last
        self.metadata: Sequence[tuple[bytes, bytes]] = head.headers
        self.deadline = None if head.timeout is None else time.monotonic() + head.timeout
        self._task = asyncio.get_running_loop().create_task(self._run(head))

    # What the transport tells.

    def body(self, data: bytes, ended: bool) -> None:
        self._ended = ended
        try:
            self._room.take(len(data), self._held)
            self._held += len(data)
            self._messages.extend(self._inbox.feed(data))
        except ServingError as error:
            self._broken = error
        self._owed += len(data)
        self._give_back()
        self._changed.set()

    def drained(self) -> None:
        self._changed.set()

    def gone(self) -> None:
        self._task.cancel()
        self._let_go(self._held)  # a task that never began ends without a word

    def leave(self) -> None:
        """The server ends: the method hears it where it waits."""
        self._leaving.set()
        self._changed.set()

    def _give_back(self) -> None:
        """Lets the client send more, unless it is far ahead of the method."""
        if self._owed and len(self._messages) < AHEAD:
            self._core.consume(self._stream, self._owed)
            self._owed = 0

    def _let_go(self, size: int) -> None:
        self._held -= size
        self._room.give(size)

    # What the method sees.

    async def requests(self) -> AsyncIterator[bytes]:
        while True:
            while self._messages:
                message = self._messages.popleft()
                self._let_go(PREFIX + message.size)
                self._give_back()
                self._flush()
                yield await self._plain(message)
            if self._broken is not None:
                raise self._broken
            if self._ended:
                if not self._inbox.empty:
                    raise ServingError(Code.INTERNAL, "a message was cut off")
                return
            if self._leaving.is_set():
                raise LEAVING
            await self._change()

    async def until(self, event: asyncio.Event) -> bool:
        waits = [asyncio.ensure_future(either.wait()) for either in (self._leaving, event)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._leaving.is_set()

    async def _plain(self, message: Message) -> bytes:
        if not message.compressed:
            return message.joined()
        encoding = self._stream.head.encoding
        return await asyncio.to_thread(inflate, message.joined(), encoding, self._limit)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _run(self, head: Head) -> None:
        try:
            async with asyncio.timeout(head.timeout):
                async for message in head.method.streaming(self):  # type: ignore[misc]
                    await self._send(message)
        except TimeoutError:
            self._finish(ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded"))
        except Exception as error:
            self._finish(failure(error, head.method.path))
        else:
            self._finish(None)
        finally:
            self._let_go(self._held)

    async def _send(self, message: bytes) -> None:
        if len(message) > self._send_limit:
            raise too_large_to_send(len(message), self._send_limit)
        if not self._started:
            self._started = True
            self._core.start(self._stream, self._stream.head.lead)
        self._core.send(self._stream, prefix(len(message)), message)
        self._flush()
        while self._stream.queued:
            await self._change()

    def _finish(self, error: ServingError | None) -> None:
        if error is None and not self._started:
            self._started = True
            self._core.start(self._stream, self._stream.head.lead)
        if error is None:
            self._core.finish(self._stream, status.OK)
        elif self._started:
            self._core.finish(self._stream, status.trailers(error.code, error.message, error.retry_after_s))
        else:
            echo = self._stream.head.echo
            self._core.finish(self._stream, status.alone(error.code, error.message, echo, error.retry_after_s))
        self._flush()
