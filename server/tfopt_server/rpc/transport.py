"""gRPC on an event loop: the thin part between a socket, the HTTP/2 core and the methods.

A short unary call never leaves the loop: read, look up, run, write. What is long (a message over LONG, a compressed
one) is parsed on a thread, what waits for a model is answered when its future is done, a streaming method is a task.
Rules for changing it: nothing here blocks; everything happens on the loop's thread; a call whose stream is gone is
cancelled and never answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tfopt_server.errors import Code, ServingError
from tfopt_server.faces import failure
from tfopt_server.room import Room
from tfopt_server.rpc import status
from tfopt_server.rpc.head import Head, reader
from tfopt_server.rpc.http2.connection import BODY, REQUEST, Connection
from tfopt_server.rpc.http2.stream import Stream
from tfopt_server.rpc.messages import PREFIX, Inbox, Message, inflate, prefix, too_large_to_send
from tfopt_server.rpc.methods import Method, Pending
from tfopt_server.rpc.options import Options
from tfopt_server.rpc.talk import Talk

log = logging.getLogger(__name__)

LONG = 64 * 1024  # bytes of a message that would hold the event loop for about a millisecond; REST's measure too
LONG_THREADS = 4
# How long a connection is kept for a peer to read the last frames: closing at once could reset them away.
LINGER_S = 0.5
# How long a client may take to echo the PING behind the first GOAWAY; what it sends later is refused, and it retries.
LAST_CALL_S = 1.0
# A deadline beyond this is none: no event loop waits for centuries.
FOREVER_S = 365 * 86400.0


class Shared:
    """What all connections of a server have in common."""

    def __init__(self, methods: Mapping[bytes, Method], options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.read = reader(methods, options.limits.headers)
        self.options = options
        self.loop = loop
        self.room = Room(options.arriving_limit)
        self.threads = ThreadPoolExecutor(LONG_THREADS, thread_name_prefix="grpc-long")
        self.connections: set[Transport] = set()
        self.accepted = 0  # connections so far
        self.leaving = False


class _Call:
    """What a stream's owner is: a unary call that is being gathered or waits for its answer."""

    __slots__ = ("future", "held", "inbox", "message", "timer")

    def __init__(self, inbox: Inbox | None) -> None:
        self.inbox = inbox
        self.held = 0  # bytes of the room that its message takes
        self.message: Message | None = None
        self.future: Future[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Transport(asyncio.Protocol):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = shared.loop
        self._options = shared.options
        self.core = Connection(shared.read, shared.options.limits)
        self._closing = False
        # On the event loop's clock.
        self._opened = self._heard = self._quiet = shared.loop.time()
        self._age_limit = shared.options.age_s * random.uniform(0.9, 1.1)  # so that clients do not all leave at once
        self._left = self._pinged = math.inf
        self._fresh: list[Stream] = []

    # The socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._shared.connections.add(self)
        self._shared.accepted += 1
        self._flush()
        if self._shared.leaving:
            self.leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._shared.connections.discard(self)
        for stream in list(self.core.streams.values()):
            self.core.forget(stream)
            self._gone(stream)
        self.core.streams.clear()

    def eof_received(self) -> None:
        """The peer will send nothing more, and reads no answer that it would understand: gRPC ends calls otherwise."""

    def pause_writing(self) -> None:
        self.core.held = True

    def resume_writing(self) -> None:
        self.core.held = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        core = self.core
        self._heard = self._loop.time()
        for kind, stream, body, ended in core.receive(data):
            if kind == BODY:
                self._body(stream, body, ended)
            elif kind == REQUEST:
                self._request(stream, ended)
            else:
                self._gone(stream)
        if self._fresh:
            self._arm()
        self._flush()

    def _flush(self) -> None:
        core = self.core
        while not self._closing and (data := core.take()):
            self._transport.write(data)
            if core.drained:
                self._drained()
        if core.failed is not None or core.over:
            self._end()

    def _drained(self) -> None:
        for stream in self.core.drained:
            if type(stream.owner) is Talk:
                stream.owner.drained()
        self.core.drained.clear()

    def _end(self) -> None:
        """Nothing more will be said: lets the peer read what was, then closes."""
        if not self._closing:
            self._closing = True
            if self.core.failed is not None:
                log.debug("a gRPC connection was ended: %s", self.core.failed.text)
            self._loop.call_later(LINGER_S, self._transport.close)
            if self.core.failed is not None:  # closing waits for a peer that reads; one that was cut off need not
                self._loop.call_later(2 * LINGER_S, self.cut)

    def leave(self) -> None:
        """Tells the client to go elsewhere; every call that it sends before it knows is still served."""
        if not self.core.leaving:
            self._left = self._loop.time()
            self.core.leave()
            self._flush()

    def tick(self) -> None:
        """What only time brings about; called about once a second, oftener at the end."""
        now, options, core = self._loop.time(), self._options, self.core
        if self._closing:
            return
        if not core.greeted and now - self._opened > options.handshake_s:
            self.cut()
        elif now - self._left > LAST_CALL_S:
            core.last_call()
            self._flush()
            if now - self._left > options.age_grace_s and not self._shared.leaving:
                self.cut()
        elif core.streams:
            self._quiet = now
        elif now - self._quiet > options.idle_s:
            self.leave()
        if now - self._opened > self._age_limit:
            self.leave()
        self._keep_alive(now)

    def _keep_alive(self, now: float) -> None:
        options, core = self._options, self.core
        if core.unanswered_pings:
            if now - self._heard > options.keepalive_timeout_s and now - self._pinged > options.keepalive_timeout_s:
                log.info("a gRPC connection was cut: the client did not answer a keepalive ping")
                self.cut()
        elif now - self._heard > options.keepalive_s and (core.streams or options.keepalive_without_calls):
            self._pinged = now
            core.ping()
            self._flush()

    def end_talks(self) -> None:
        """Streaming calls may go on for ever: at the end they are told to stop."""
        for stream in self.core.streams.values():
            if isinstance(stream.owner, Talk):
                stream.owner.leave()

    def cut(self) -> None:
        self._transport.abort()

    # Calls.

    def _request(self, stream: Stream, ended: bool) -> None:
        head: Head = stream.head
        if head.refusal is not None:
            self.core.finish(stream, head.refusal)
        elif head.method.unary is None:
            stream.owner = Talk(self.core, stream, self._options, self._shared.room, self._flush)
            if ended:
                stream.owner.body(b"", True)
        else:
            if head.timeout is not None:
                self._fresh.append(stream)
            if ended:
                self._refuse(stream, _cardinality(0))

    def _arm(self) -> None:
        """Timers for the calls of this read that are not answered yet: the short ones never need any."""
        for stream in self._fresh:
            if not stream.done and stream.trailers is None:
                call = stream.owner = stream.owner or _Call(None)
                if call.timer is None:
                    call.timer = self._loop.call_later(min(stream.head.timeout, FOREVER_S), self._too_late, stream)
        self._fresh.clear()

    def _body(self, stream: Stream, data: bytes, ended: bool) -> None:
        call: _Call | Talk | None = stream.owner
        if stream.done or stream.trailers is not None:
            return
        if type(call) is Talk:
            call.body(data, ended)
            return
        if call is None and ended and len(data) >= PREFIX and not data[0]:
            size = int.from_bytes(data[1:PREFIX], "big")
            if size == len(data) - PREFIX <= min(LONG, self._options.receive_limit):
                self._run(stream, data[PREFIX:])
                return
        self._gather(stream, data, ended)

    def _gather(self, stream: Stream, data: bytes, ended: bool) -> None:
        """A unary call's message that does not come as one short, plain frame."""
        call: _Call = stream.owner
        if call is None:
            call = stream.owner = _Call(None)
        if call.inbox is None:
            call.inbox = Inbox(self._options.receive_limit)
        try:
            self._shared.room.take(len(data), call.held)
            call.held += len(data)
            for message in call.inbox.feed(data):
                if call.message is not None:
                    raise _cardinality(2)
                call.message = message
            self.core.consume(stream, len(data))
            if not ended:
                return
            if call.message is None or not call.inbox.empty:
                raise _cardinality(0) if call.inbox.empty else ServingError(Code.INTERNAL, "a message was cut off")
        except ServingError as error:
            self._refuse(stream, error)
            return
        message, call.inbox = call.message, None
        call.message = None
        held, call.held = call.held, 0
        if message.compressed or message.size > LONG:
            self._run_on_thread(stream, message, held)
        else:
            self._shared.room.give(held)
            self._run(stream, message.joined())

    def _run(self, stream: Stream, request: bytes) -> None:
        head: Head = stream.head
        deadline = None if head.timeout is None else _deadline(head.timeout)
        try:
            answer = head.method.unary(request, deadline)  # type: ignore[misc]
        except Exception as error:
            self._refuse(stream, failure(error, head.method.path))
            return
        if isinstance(answer, bytes):
            self._answer(stream, answer)
        else:
            self._wait(stream, answer)

    def _run_on_thread(self, stream: Stream, message: Message, held: int) -> None:
        head: Head = stream.head
        deadline = None if head.timeout is None else _deadline(head.timeout)

        def run() -> bytes | Pending:
            data = message.joined()
            if message.compressed:
                data = inflate(data, head.encoding, self._options.receive_limit)
            return head.method.unary(data, deadline)  # type: ignore[misc]

        # Also for a client that has left meanwhile: the thread still holds its message.
        self._on_thread(stream, run).add_done_callback(lambda _: self._back(self._shared.room.give, held))

    def _on_thread(self, stream: Stream, work: Callable[[], bytes | Pending]) -> Future[bytes | Pending]:
        future = self._shared.threads.submit(work)
        future.add_done_callback(lambda done: self._back(self._worked, stream, done))
        return future

    def _back(self, what: Callable[..., None], *args: Any) -> None:
        """From any thread: goes on on the event loop, unless that has ended and nobody waits any more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *args)

    def _worked(self, stream: Stream, future: Future[Any]) -> None:
        """A thread is done with a call's parsing, or with writing its answer."""
        try:
            answer = future.result()
        except Exception as error:
            self._refuse(stream, failure(error, stream.head.method.path))
        else:
            if isinstance(answer, bytes):
                self._answer(stream, answer)
            else:
                self._wait(stream, answer)
                self._arm()
        self._flush()

    def _wait(self, stream: Stream, pending: Pending) -> None:
        if stream.done:  # its client gave it up while a thread parsed it
            pending.future.cancel()
        else:
            call = stream.owner = stream.owner or _Call(None)
            call.future = pending.future
            if call.timer is None and stream.head.timeout is not None:
                self._fresh.append(stream)
        pending.future.add_done_callback(lambda _: self._back(self._completed, stream, pending))

    def _completed(self, stream: Stream, pending: Pending) -> None:
        if not pending.future.cancelled() and pending.long():
            self._on_thread(stream, pending.answer)
            return
        try:
            answer = pending.answer()
        except Exception as error:
            self._refuse(stream, failure(error, stream.head.method.path))
        else:
            self._answer(stream, answer)
        self._flush()

    def _answer(self, stream: Stream, answer: bytes) -> None:
        if stream.owner is not None:
            self._settle(stream)
        size, limit = len(answer), self._options.send_limit
        if size > limit:
            self._refuse(stream, too_large_to_send(size, limit))
            return
        self.core.respond(stream, stream.head.lead, prefix(size), answer, status.OK)

    def _refuse(self, stream: Stream, refused: ServingError) -> None:
        self._settle(stream)
        answer = status.alone(refused.code, refused.message, stream.head.echo, refused.retry_after_s)
        self.core.finish(stream, answer)

    def _settle(self, stream: Stream) -> None:
        call: _Call | None = stream.owner
        if call is not None:
            stream.owner = None
            self._shared.room.give(call.held)
            call.held = 0
            if call.timer is not None:
                call.timer.cancel()

    def _too_late(self, stream: Stream) -> None:
        call: _Call = stream.owner
        self._refuse(stream, ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded"))
        if call.future is not None:
            call.future.cancel()
        self._flush()

    def _gone(self, stream: Stream) -> None:
        """The client gave the call up, or the connection ended: nobody waits for the answer."""
        call: _Call | Talk | None = stream.owner
        if isinstance(call, Talk):
            call.gone()
            return
        self._settle(stream)
        if call is not None and call.future is not None:
            call.future.cancel()


def _deadline(timeout: float) -> float | None:
    return None if timeout > FOREVER_S else time.monotonic() + timeout


def _cardinality(messages: int) -> ServingError:
    """gRPC's statuscodes.md: a unary method takes exactly one message."""
    return ServingError(
        Code.UNIMPLEMENTED, f"A unary call takes one message; received {'none' if not messages else 'more'}"
    )
