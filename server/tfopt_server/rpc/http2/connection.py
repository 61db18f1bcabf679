"""A server's end of one HTTP/2 connection (RFC 9113) without any I/O: bytes in, events out; answers in, bytes out.

    events = connection.receive(data)           # what the peer did
    connection.respond(stream, lead, b"", body, trailers)
    transport.write(connection.take())          # until it is empty

Rules for changing it: no clock, socket, thread or event loop in here. Whatever the peer sends, `receive` raises
nothing: a broken rule of a stream becomes RST_STREAM, one of the connection becomes GOAWAY and `failed`. How much a
peer can make this end remember is bounded by Limits. What is read is in this file, what is written in `sending.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tfopt_server.rpc.http2 import frames
from tfopt_server.rpc.http2.flood import Bucket
from tfopt_server.rpc.http2.frames import ConnectionFailure, ErrorCode, StreamFailure
from tfopt_server.rpc.http2.headers import Decoder, Header, Malformed
from tfopt_server.rpc.http2.limits import Limits
from tfopt_server.rpc.http2.sending import Sender
from tfopt_server.rpc.http2.stream import Stream

REQUEST, BODY, RESET = range(3)
# Streams that this end reset: what the peer sent before it knew is no mistake.
REMEMBERED_RESETS = 1024
# A header block may be cut into frames, each of which costs work (CVE-2024-27316 and its kin).
MAX_CONTINUATIONS = 64
MAX_BLOCK = 64 * 1024
_LONG_BLOCK = f"a header block over {MAX_BLOCK} bytes or many frames"


class Event(NamedTuple):
    """REQUEST: `stream` is new. BODY: `data` came. `ended`: nothing more will. RESET: the peer gave the stream up, or
    the connection failed; nothing can be sent on it any more."""

    kind: int
    stream: Stream
    data: bytes = b""
    ended: bool = False


class Connection(Sender):
    """`understand` makes of a request's headers what `Stream.head` shall be; it needs an attribute `content_length`."""

    def __init__(
        self,
        understand: Callable[[Sequence[Header]], Any],
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits = limits or Limits()
        super().__init__(limits)
        self._decoder = Decoder(understand)
        self._known = self._decoder.known
        self._bucket = Bucket(clock)
        self._pieces: list[bytes] = []  # of a frame that is not whole yet
        self._needed = len(frames.PREFACE)
        self._have = 0
        self.greeted = False
        self._configured = False
        self._guarded = True
        self._block: tuple[int, int, list[bytes]] | None = None  # stream, flags and parts of an unfinished header block
        self._resets: dict[int, None] = {}
        self._window = limits.connection_window
        self._consumed = 0
        self.greet()

    # Bytes in.

    def receive(self, data: bytes) -> list[Event]:
        """What these bytes, with those before them, amount to."""
        events: list[Event] = []
        if self.failed is not None:
            return events
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._needed:
                return events
            data = b"".join(self._pieces)
            self._pieces.clear()
        try:
            at = self._frames(data, events)
        except ConnectionFailure as error:
            self._fail(error, events)
            return events
        if at < len(data):
            self._pieces.append(data[at:])
            self._have = len(data) - at
        return events

    def _frames(self, data: bytes, events: list[Event]) -> int:
        """Handles every whole frame; where the first one that is not whole begins. `_needed`: how long that one is."""
        at, end = 0, len(data)
        if not self.greeted:
            if not frames.PREFACE.startswith(data[:24]):
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2 (gRPC) only")
            if end < 24:
                self._needed = 24
                return 0
            self.greeted, at = True, 24
        unpack, largest, handlers = frames.FRAME.unpack_from, self._limits.frame, _HANDLERS
        while end - at >= 9:
            high, low, kind, flags, number = unpack(data, at)
            size = high << 16 | low
            if size > largest:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes; at most {largest}")
            if end - at < 9 + size:
                self._needed = 9 + size
                return at
            at += 9
            if self._guarded:
                self._guard(kind, flags, number & frames.LARGEST)
            try:
                if kind < _KINDS:
                    handlers[kind](self, flags, number & frames.LARGEST, data[at : at + size], events)
                elif not size:
                    self._bucket.spend("frames of unknown types")
            except StreamFailure as error:
                self._stream_failed(error, events)
            at += size
        self._needed = 9
        return at

    def _guard(self, kind: int, flags: int, number: int) -> None:
        """What may come where not every frame may: first SETTINGS, and inside a header block only its own rest."""
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "another frame inside a header block")
        if not self._configured:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the first frame is no SETTINGS")
            self._configured = True
            self._guarded = False

    # Requests.

    def _on_headers(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        if flags & (frames.PADDED | frames.PRIORITIZED):
            payload = _unpadded(flags, payload)
            if flags & frames.PRIORITIZED:
                if len(payload) < 5:
                    raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
                payload = payload[5:]
        if not number & 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {number}")
        if len(payload) > MAX_BLOCK:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, _LONG_BLOCK)
        if flags & frames.END_HEADERS:
            self._on_block(number, payload, flags & frames.END_STREAM, events)
        else:
            self._block = (number, flags, [payload])
            self._guarded = True

    def _on_continuation(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        if self._block is None:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, first, parts = self._block
        parts.append(payload)
        if len(parts) > MAX_CONTINUATIONS or sum(map(len, parts)) > MAX_BLOCK:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, _LONG_BLOCK)
        if flags & frames.END_HEADERS:
            self._block = None
            self._guarded = False
            self._on_block(number, b"".join(parts), first & frames.END_STREAM, events)

    def _on_block(self, number: int, block: bytes, ended: int, events: list[Event]) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            self._on_trailers(stream, block, ended, events)
            return
        # Decoded in any case: the dynamic table must not miss a block.
        head = self._known.get(block) or self._decoder.decode(block)
        if number <= self.last:
            if number in self._resets:
                return
            raise ConnectionFailure(ErrorCode.STREAM_CLOSED, f"HEADERS on the closed stream {number}")
        self.last = number
        if self.final is not None:
            return  # sent before the peer saw our last GOAWAY, which says that nobody looked at it
        if type(head) is Malformed:
            raise StreamFailure(number, ErrorCode.PROTOCOL_ERROR, head.text)
        if len(self.streams) >= self._limits.streams:
            raise StreamFailure(number, ErrorCode.REFUSED_STREAM, "more streams than the settings allow")
        stream = Stream(number, head, self._limits.stream_window, self._initial)
        self.streams[number] = stream
        if ended:
            self._end(stream)
        events.append(Event(REQUEST, stream, b"", stream.ended))

    def _on_trailers(self, stream: Stream, block: bytes, ended: int, events: list[Event]) -> None:
        wrong = self._decoder.trailers(block)
        if stream.ended:
            raise ConnectionFailure(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream.id} after its end")
        if wrong or not ended:
            raise StreamFailure(stream.id, ErrorCode.PROTOCOL_ERROR, wrong or "trailers that do not end the stream")
        self._end(stream)
        events.append(Event(BODY, stream, b"", True))

    def _on_data(self, flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")
        self._consumed += size
        if self._consumed > self._limits.connection_window // 2:
            self._window += self._consumed
            self._control(frames.window_update(0, self._consumed))
            self._consumed = 0
        stream = self.streams.get(number)
        if stream is None or stream.ended:
            self._strayed(number)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFailure(number, ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
        if flags & frames.PADDED:
            payload = _unpadded(flags, payload)
            stream.taken += size - len(payload)  # nobody else will give padding back
        if stream.expected is not None:
            stream.expected -= len(payload)
        if flags & frames.END_STREAM:
            self._end(stream)
        elif not payload:
            self._bucket.spend("empty DATA frames")
        events.append(Event(BODY, stream, payload, stream.ended))

    def _strayed(self, number: int) -> None:
        """DATA that belongs to no stream that waits for any."""
        if not number & 1 or number > self.last:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"DATA on stream {number}, which is not open")
        if number not in self._resets and self.final is None:
            raise StreamFailure(number, ErrorCode.STREAM_CLOSED, "DATA after the end of the stream")

    def _end(self, stream: Stream) -> None:
        if stream.expected:
            raise StreamFailure(stream.id, ErrorCode.PROTOCOL_ERROR, "content-length is not the body's length")
        stream.ended = True

    # Everything else that a peer may say.

    def _on_rst_stream(self, _flags: int, number: int, payload: bytes, events: list[Event]) -> None:
        _exactly(payload, 4, "RST_STREAM")
        self._not_idle(number, "RST_STREAM")
        stream = self.streams.pop(number, None)
        if stream is None:
            return
        self._bucket.spend("streams that were reset")
        self.forget(stream)
        events.append(Event(RESET, stream))

    def _on_settings(self, flags: int, number: int, payload: bytes, _events: list[Event]) -> None:
        _of_connection(number, "SETTINGS")
        if flags & frames.ACK:
            _exactly(payload, 0, "SETTINGS with ACK")
            return
        if len(payload) % 6:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        self._bucket.spend("SETTINGS frames", 1 + len(payload) / 60)
        for name, value in frames.SETTING.iter_unpack(payload):
            self.configure(name, value)
        self._control(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _on_ping(self, flags: int, number: int, payload: bytes, _events: list[Event]) -> None:
        _of_connection(number, "PING")
        _exactly(payload, 8, "PING")
        if flags & frames.ACK:
            self.pinged(payload)
            return
        self._bucket.spend("PING frames")
        self._control(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, _flags: int, number: int, payload: bytes, _events: list[Event]) -> None:
        _of_connection(number, "GOAWAY")
        if len(payload) < 8:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self._bucket.spend("GOAWAY frames")
        self.peer_leaves = True

    def _on_window_update(self, _flags: int, number: int, payload: bytes, _events: list[Event]) -> None:
        _exactly(payload, 4, "WINDOW_UPDATE")
        by = int.from_bytes(payload, "big") & frames.LARGEST
        if number == 0:
            if by == 0:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self.widen(by)
            return
        self._not_idle(number, "WINDOW_UPDATE")
        stream = self.streams.get(number)
        if stream is None:
            return
        if by == 0:
            raise StreamFailure(number, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        if not self.widen_stream(stream, by):
            raise StreamFailure(number, ErrorCode.FLOW_CONTROL_ERROR, "a window over 2^31-1")

    def _on_priority(self, _flags: int, number: int, payload: bytes, _events: list[Event]) -> None:
        """Deprecated and ignored (RFC 9113, 5.3.2), but it has a form."""
        if number == 0:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFailure(number, ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes")
        self._bucket.spend("PRIORITY frames")

    def _on_push_promise(self, _flags: int, _number: int, _payload: bytes, _events: list[Event]) -> None:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _not_idle(self, number: int, what: str) -> None:
        if not number & 1 or number > self.last:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {number}, which was never opened")

    # Ends.

    def consume(self, stream: Stream, size: int) -> None:
        """`size` bytes of a stream's DATA were used: the peer may send as many again."""
        stream.taken += size
        if stream.ended or stream.taken * 2 < self._limits.stream_window:
            return
        stream.receive_window += stream.taken
        self._control(frames.window_update(stream.id, stream.taken))
        stream.taken = 0

    def answered(self, stream: Stream) -> None:
        """The last byte of an answer is on its way."""
        stream.done = True
        del self.streams[stream.id]
        self._bucket.earn()
        if not stream.ended:
            # The whole answer is there, the rest of the request is not needed (RFC 9113, 8.1).
            self._remember_reset(stream.id)
            self.out.append(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Gives a stream up; nothing that waits on it is sent."""
        if self.streams.pop(stream.id, None) is not None:
            self.forget(stream)
            self._remember_reset(stream.id)
            self._control(frames.rst_stream(stream.id, code))

    def _remember_reset(self, number: int) -> None:
        self._resets[number] = None
        if len(self._resets) > REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]

    def _stream_failed(self, error: StreamFailure, events: list[Event]) -> None:
        self._bucket.spend("broken streams")
        stream = self.streams.pop(error.stream, None)
        if stream is not None:
            self.forget(stream)
            events.append(Event(RESET, stream))
        self._remember_reset(error.stream)
        self._control(frames.rst_stream(error.stream, error.code))

    def _fail(self, error: ConnectionFailure, events: list[Event]) -> None:
        self.failed = error
        self._pieces.clear()
        for stream in self.streams.values():
            self.forget(stream)
            events.append(Event(RESET, stream))
        self.streams.clear()
        self.out.append(frames.goaway(self.last, error.code, error.text))


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & frames.PADDED:
        return payload
    if not payload:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a padding length")
    if payload[0] >= len(payload):
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "more padding than the frame holds")
    return payload[1 : len(payload) - payload[0]]


def _exactly(payload: bytes, size: int, what: str) -> None:
    if len(payload) != size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"{what} of {len(payload)} bytes")


def _of_connection(number: int, what: str) -> None:
    if number:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {number}")


# By frame type.
_HANDLERS: tuple[Callable[[Connection, int, int, bytes, list[Event]], None], ...] = (
    Connection._on_data,
    Connection._on_headers,
    Connection._on_priority,
    Connection._on_rst_stream,
    Connection._on_settings,
    Connection._on_push_promise,
    Connection._on_ping,
    Connection._on_goaway,
    Connection._on_window_update,
    Connection._on_continuation,
)
_KINDS = len(_HANDLERS)
