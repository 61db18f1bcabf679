"""HTTP/1.1 on one connection: bytes in, requests to the app in their order, answers out.

llhttp (through httptools) reads; it is strict about what could be read in two ways (RFC 9112, 11: request smuggling).
A short request is read, answered and written within one call of the event loop. Requests that arrive while another
is answered wait their turn, and the socket is not read meanwhile.

How a drain ends without a loss: a client that was told nothing may be sending its next request while its connection is
closed, and would lose it. So every answer written after the signal announces `connection: close` (RFC 9112, 9.6), only
announced connections are closed after their answer, and idle ones are left open a little longer for the request that
may already be on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from typing import Any, Protocol

import httptools

from tfopt_server.errors import ServingError
from tfopt_server.http import Answer, App, Header, Request, Response, Streamed
from tfopt_server.process.heads import date, head
from tfopt_server.rest.status import error_body, refusal
from tfopt_server.room import Room

log = logging.getLogger(__name__)

# How long an idle connection may still bring a request after the drain began. Longer than a client on the same
# continent needs to see an answer and send the next request; short enough to fit every platform's grace period.
IDLE_LINGER_S = 1.0
# Longer than the 600 s for which Google's load balancers keep an idle backend connection: the side that opened it
# should be the one to close it, or a request can meet a closing connection.
KEEP_ALIVE_S = 620.0
# How long a request that has begun may bring no byte (nginx's client_body_timeout, and twice its default for heads).
STALLED_S = 120.0
HEAD_LIMIT = 64 * 1024  # request line and headers
QUEUE_LIMIT = 32  # pipelined requests that wait; beyond it the socket is not read
SHORT = 64 * 1024  # a body up to here is copied behind its head: one write costs less than two
_UPGRADE = (b"upgrade", b"connection", b"http2-settings")
LINGER_S = 2.0  # after an answer to a body that was not read: until the client has seen it


class Host(Protocol):
    """The worker, as its connections see it."""

    loop: asyncio.AbstractEventLoop
    connections: set[Connection]
    draining: bool
    gate: App
    max_body_bytes: int
    room: Room  # for bodies that have not come whole, or wait behind other requests of their connection


class Connection(asyncio.Protocol):
    def __init__(self, host: Host) -> None:
        self._host, self._app, self._loop = host, host.gate, host.loop
        self._limit = host.max_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        # Request, or the refusal of what could not be read; keep alive; HTTP/1.1.
        self._waiting: deque[tuple[Request | Response, bool, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Event | None = None
        self._reading = True
        self._ended = False  # no further request is read
        self._held = self._kept = 0  # of the room: by the body that arrives, by those that wait
        self.opened = self.touched = 0.0
        self._reset()

    def _reset(self) -> None:
        """Ready for the next request's first byte."""
        self._url, self._headers, self._body = b"", list[Header](), list[bytes]()
        self._size = self._head = 0
        self._in_head, self._begun = True, False

    # The transport's side.

    def connection_made(self, transport: Any) -> None:
        self.opened = self.touched = self._loop.time()
        self._transport = transport
        self._host.connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._host.connections.discard(self)
        self._ended = True
        self._waiting.clear()
        self._host.room.give(self._held + self._kept)
        self._held = self._kept = 0
        if self._task is not None:
            # Nobody waits for the answer: what is queued need not run. Not before the task has begun: a coroutine that
            # never began gives nothing back, and the model's version would stay held.
            self._loop.call_soon(self._task.cancel)
        if self._writable is not None:
            self._writable.set()

    def eof_received(self) -> bool:
        """Half-closed: what was asked is still answered, then the connection ends."""
        if self._busy:
            self._ended = True
            return True
        return False

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self.touched = self._loop.time()
        while data:
            data = self._feed(data)
        if self._size != self._held:
            self._hold()

    def _hold(self) -> None:
        """Room for what came of a body that is not whole; where there is none, its request is refused."""
        more = self._size - self._held
        if more > 0:
            try:
                self._host.room.take(more, self._held + self._kept)
            except ServingError as error:
                self._refuse(refusal(error))
                return
        else:
            self._host.room.give(-more)
        self._held = self._size

    def _feed(self, data: bytes) -> bytes:
        """Reads, and returns what is to be read next: something only where an upgrade was declined."""
        if self._in_head:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._declined(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if not self._ended:
                self._refuse(_error(400, f"Bad Request: {_reason(error)}"))
        else:
            if self._in_head and self._head > HEAD_LIMIT and not self._ended:
                self._long_head()
        return b""

    def _declined(self, rest: bytes) -> bytes:
        """Nothing is upgraded to: the request without that wish, to be read again with its body in `rest`.

        llhttp stops behind the head of such a request and would take its body for the next one.
        """
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(_error(501, "Not Implemented: CONNECT"))
            return b""
        kept = [name + b": " + value for name, value in self._headers if name not in _UPGRADE]
        wishes = [
            word.strip().lower() for name, value in self._headers if name == b"connection" for word in value.split(b",")
        ]
        if b"close" in wishes:
            kept.append(b"connection: close")
        version = self._parser.get_http_version().encode()
        again = b"\r\n".join((b"%b %b HTTP/%b" % (method, self._url, version), *kept, b"\r\n"))
        self._parser = httptools.HttpRequestParser(self)
        self._reset()
        return again + rest

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self._regulate()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        self._regulate()
        self._next()

    # llhttp's side, in this order. An exception in here would end in feed_data.

    def on_message_begin(self) -> None:
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what follows a chunked body is no header to act on (RFC 9110, 6.5.1)
            self._headers.append((name.lower(), value))
        else:
            self._head += len(name) + len(value)
            if self._head > HEAD_LIMIT and not self._ended:
                self._long_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._parser.should_upgrade():
            return
        asks, size, hosts = False, 0, 0
        for name, value in self._headers:
            size += len(name) + len(value)
            if name == b"content-length":
                if self._limit and int(value) > self._limit:
                    self._too_large()
                    return
            elif name == b"host":
                hosts += 1
            elif name == b"expect":
                asks = value.lower() == b"100-continue" and not self._busy
        if size + len(self._url) > HEAD_LIMIT:  # in one piece, before data_received could tell
            self._long_head()
        elif hosts != 1 and (hosts or self._parser.get_http_version() != "1.0"):  # RFC 9112, 3.2; probes speak HTTP/1.0
            self._refuse(_error(400, f"Bad Request: expected one Host header, received {hosts}"))
        elif asks and self._parser.get_http_version() != "1.0":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._limit and self._size > self._limit:
            self._too_large()
        elif not self._ended:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._ended or self._parser.should_upgrade():
            return
        parts = self._body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parser = self._parser
        target = self._url.decode("latin-1")
        request = Request(parser.get_method().decode("latin-1"), target, self._headers, body)
        modern = parser.get_http_version() != "1.0"
        alive = parser.should_keep_alive()
        self._reset()
        if self._busy:
            self._waiting.append((request, alive, modern))
            self._kept, self._held = self._kept + self._held, 0
            self._regulate()
        else:
            self._answer(request, alive, modern)

    # Answering.

    @property
    def _busy(self) -> bool:
        return self._task is not None or self._writable is not None or bool(self._waiting)

    def _answer(self, request: Request, alive: bool, modern: bool) -> None:
        answer = self._app(request)
        if isinstance(answer, Response):
            self._write(answer, request.method, alive, modern)
        else:
            self._task = self._loop.create_task(self._later(answer, request.method, alive, modern))

    async def _later(self, pending: Streamed | Awaitable[Answer], method: str, alive: bool, modern: bool) -> None:
        try:
            answer = pending if isinstance(pending, Streamed) else await pending
            if isinstance(answer, Response):
                self._write(answer, method, alive, modern)
            else:
                await self._stream(answer, method, alive, modern)
        except Exception:
            log.exception("an answer broke off")
            self._transport.abort()
        finally:
            self._task = None
        self._next()

    def _next(self) -> None:
        """Answers what waited meanwhile, in its order."""
        while self._waiting and self._task is None and self._writable is None and not self._transport.is_closing():
            asked, alive, modern = self._waiting.popleft()
            if isinstance(asked, Response):
                self._write(asked, "GET", alive, modern)
            else:
                self._answer(asked, alive, modern)
        if self._kept and not self._waiting:
            self._host.room.give(self._kept)
            self._kept = 0
        self._regulate()
        if self._ended and not self._busy:
            self._transport.close()

    def _regulate(self) -> None:
        """Reads from the socket only while there is room for what comes."""
        if self._transport is None or self._transport.is_closing():
            return
        wanted = self._writable is None and len(self._waiting) < QUEUE_LIMIT
        if wanted != self._reading:
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _write(self, answer: Response, method: str, alive: bool, modern: bool) -> None:
        closes = not alive or self._host.draining
        top = head(answer.status, answer.content_type, answer.headers, closes, modern)
        body = answer.body
        size = b"content-length: %d\r\n\r\n" % len(body)
        if answer.status == 304:
            size = b"\r\n"  # a length would be that of the page that is not sent (RFC 9110, 8.6)
        if method == "HEAD":
            body = b""
        if len(body) <= SHORT:
            self._transport.write(top + date() + size + body)
        else:
            self._transport.write(top + date() + size)
            self._transport.write(body)
        self.touched = self._loop.time()
        if closes:
            self._ended = True
            self._waiting.clear()
            self._transport.close()

    async def _stream(self, answer: Streamed, method: str, alive: bool, modern: bool) -> None:
        """Chunked, or for HTTP/1.0 until the connection ends."""
        closes = not alive or self._host.draining or not modern
        framing = b"transfer-encoding: chunked\r\n\r\n" if modern else b"\r\n"
        top = head(answer.status, answer.content_type, answer.headers, closes, modern)
        self._transport.write(top + date() + framing)
        try:
            if method != "HEAD":
                async for part in answer.parts:
                    if part:
                        self._transport.write(b"%x\r\n%b\r\n" % (len(part), part) if modern else part)
                    if self._writable is not None:
                        await self._writable.wait()
                    self.touched = self._loop.time()
        finally:
            if close := getattr(answer.parts, "aclose", None):
                await close()
        if modern and method != "HEAD":
            self._transport.write(b"0\r\n\r\n")
        if closes:
            self._ended = True
            self._transport.close()

    # Refusing what cannot be read.

    def _long_head(self) -> None:
        self._refuse(_error(431, f"Request Header Fields Too Large: more than {HEAD_LIMIT} bytes"))

    def _too_large(self) -> None:
        self._refuse(_error(413, f"The request body is larger than {self._limit} bytes (--max_body_bytes)."))

    def _refuse(self, refused: Response) -> None:
        """Answers, reads no further, and closes once the client had time to see why.

        A connection that is closed over unread bytes is reset, and the reset can overtake the answer.
        """
        self._ended = True
        self._host.room.give(self._held)
        self._body, self._size, self._held = [], 0, 0
        if self._busy:  # an earlier request is still being answered: this one's refusal would overtake it
            self._waiting.append((refused, False, True))
            return
        top = head(refused.status, b"application/json", refused.headers, True, True)
        size = b"content-length: %d\r\n\r\n" % len(refused.body)
        self._transport.write(top + date() + size + refused.body)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._transport.close)

    # The worker's side.

    @property
    def idle(self) -> bool:
        """No request is being read or answered."""
        return not self._busy and not self._begun

    def close_if_idle_since(self, drain_began: float, now: float) -> None:
        """Closes the connection when it had its time to bring one more request; times are the event loop's."""
        if self.idle and now - max(drain_began, self.opened) >= IDLE_LINGER_S:
            self._transport.close()

    def close_if_stale(self, now: float) -> None:
        """Closes it when it was idle for KEEP_ALIVE_S, or for STALLED_S brought nothing of its request or took nothing
        of its answer."""
        silent = now - self.touched
        if self.idle and silent > KEEP_ALIVE_S:
            self._transport.close()
        elif self._writable is not None and silent > STALLED_S:
            self._transport.abort()  # it reads nothing of its answer
        elif self._begun and not self._busy and silent > STALLED_S and not self._ended:
            self._refuse(_error(408, f"Request Timeout: nothing came for {STALLED_S:g} s"))


def _error(status: int, text: str) -> Response:
    return Response(error_body(text), status)


def _reason(error: BaseException) -> str:
    """llhttp's own words, without the class that carried them."""
    return str(error) or type(error).__name__
