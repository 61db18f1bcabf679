"""A client's end of an HTTP/2 connection (RFC 9113) for unary gRPC calls, one at a time, on a blocking socket.

Why not grpcio: it is large, starts threads of its own and must not be imported before a fork; the client of a predict
call needs none of what it adds. Calls side by side use connections side by side (pool.py).
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence

import hpack

from tfopt_client.deadline import Deadline
from tfopt_client.errors import Failure, untrusted

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, _PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
_ENABLE_PUSH, _INITIAL_WINDOW, _MAX_FRAME = 2, 4, 5
_LARGEST, _WINDOW = 2**31 - 1, 65_535
_REFUSED_STREAM, _CANCEL = 7, 8
_HEAD = struct.Struct(">BHBBI")
_READ = 1 << 18
# RST_STREAM without a status, as gRPC over HTTP/2 maps it; the rest is INTERNAL.
_RESETS = {_REFUSED_STREAM: "UNAVAILABLE", _CANCEL: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}

Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


class Connection:
    """Not for several threads at once. Every method that waits raises Failure when the connection or the time ends."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._buffer = bytearray()
        self._next = 1
        self._initial, self._window, self._frame_size = _WINDOW, _WINDOW, 16_384
        self._leaving = self._greeted = False
        self._given = 0  # bytes of the connection's window that the server has used
        self._stream = 0
        self._settle(0)
        # Answers are read at once: no window of ours shall ever make the server wait.
        values = struct.pack(">HIHI", _ENABLE_PUSH, 0, _INITIAL_WINDOW, _LARGEST)
        try:
            self._send(PREFACE + frame(SETTINGS, 0, 0, values) + _update(_LARGEST - _WINDOW))
            # A server that is closing its port resets what it has not accepted. Once its settings are here it reads, so
            # that a call is never sent to nobody; one round trip per connection buys that certainty.
            while not self._greeted:
                self._handle(*self._frame())
        except Failure as failure:
            self.close()
            lost = failure.code == "UNAVAILABLE" and failure.temporary
            raise Failure(failure.code, failure.message, unseen=lost) from failure

    def usable(self) -> bool:
        """Whether a new call may begin; reads what came while nobody called."""
        try:
            self._deadline = Deadline(1.0)
            while not self._leaving and (self._buffer[9:] or select.select([self._sock], [], [], 0)[0]):
                self._handle(*self._frame())
        except (Failure, OSError):
            return False
        return not self._leaving and self._next < _LARGEST - 2

    def close(self) -> None:
        self._sock.close()

    def call(self, headers: Sequence[Header], body: bytes, deadline: Deadline) -> tuple[dict[bytes, bytes], bytes]:
        """Headers and trailers in one, and the body. Failure `unseen` where the server did not look at the call."""
        self._deadline = deadline
        self._settle(self._next)
        self._next += 2
        self._send(frame(HEADERS, END_HEADERS, self._stream, self._encoder.encode(headers)))
        at = 0
        while at < len(body) and not self._ended:
            room = min(self._window, self._stream_window, self._frame_size, len(body) - at)
            if room <= 0:
                self._handle(*self._frame())
                continue
            self._window -= room
            self._stream_window -= room
            end = END_STREAM if at + room == len(body) else 0
            self._send(frame(DATA, end, self._stream, body[at : at + room]))
            at += room
        while not self._ended:
            self._handle(*self._frame())
        return self._fields, bytes(self._body)

    def _settle(self, stream: int) -> None:
        """A clean slate for a call."""
        self._stream, self._stream_window = stream, self._initial
        self._fields: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._block: bytearray | None = None
        self._block_ends = False
        self._ended = False

    # Bytes.

    def _send(self, data: bytes) -> None:
        try:
            self._sock.settimeout(self._deadline.timeout())
            self._sock.sendall(data)
        except TimeoutError as error:
            raise Failure("DEADLINE_EXCEEDED", "the deadline passed while the request was sent") from error
        except OSError as error:
            raise self._lost(error) from error

    def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            try:
                self._sock.settimeout(self._deadline.timeout())
                part = self._sock.recv(_READ)
            except TimeoutError as error:
                raise Failure("DEADLINE_EXCEEDED", "the deadline passed without an answer") from error
            except OSError as error:
                raise self._lost(error) from error
            if not part:
                raise self._lost("closed by the server")
            self._buffer += part

    @staticmethod
    def _lost(why: object) -> Failure:
        temporary = not (isinstance(why, OSError) and untrusted(why))  # a server may say so only now (TLS 1.3)
        return Failure("UNAVAILABLE", f"the connection was lost: {why}", temporary=temporary)

    def _frame(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and payload of the next frame."""
        self._need(9)
        high, low, kind, flags, stream = _HEAD.unpack_from(self._buffer)
        size = high << 16 | low
        self._need(9 + size)
        payload = bytes(self._buffer[9 : 9 + size])
        del self._buffer[: 9 + size]
        return kind, flags, stream & _LARGEST, payload

    # Frames.

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._on_data(flags, stream, payload)
        elif kind in (HEADERS, CONTINUATION):
            self._on_headers(kind, flags, stream, payload)
        elif kind == SETTINGS and not flags & ACK:
            self._on_settings(payload)
        elif kind == PING and not flags & ACK:
            self._send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            by = int.from_bytes(payload, "big") & _LARGEST
            if stream == 0:
                self._window += by
            elif stream == self._stream:
                self._stream_window += by
        elif kind == RST_STREAM and stream == self._stream:
            self._on_reset(int.from_bytes(payload, "big"))
        elif kind == GOAWAY:
            self._leaving = True
            last = int.from_bytes(payload[:4], "big") & _LARGEST
            if self._stream > last and not self._ended:
                raise Failure("UNAVAILABLE", "the server is closing the connection", unseen=True)

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._given += len(payload)
        if self._given > _LARGEST // 2:
            self._send(_update(self._given))
            self._given = 0
        if stream == self._stream:
            self._body += _unpadded(flags, payload)
            self._ended = self._ended or bool(flags & END_STREAM)

    def _on_headers(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """A block is decoded in any case: the dynamic table must not miss one."""
        if kind == HEADERS:
            payload = _unpadded(flags, payload)
            self._block = bytearray(payload[5:] if flags & PRIORITIZED else payload)
            self._block_ends = bool(flags & END_STREAM)
        elif self._block is not None:
            self._block += payload
        if not flags & END_HEADERS or self._block is None:
            return
        try:
            fields = self._decoder.decode(bytes(self._block), raw=True)
        except hpack.HPACKError as error:
            raise Failure("INTERNAL", "the server sent headers that cannot be decoded") from error
        self._block = None
        if stream == self._stream:
            self._fields |= {bytes(name): bytes(value) for name, value in fields}
            self._ended = self._ended or self._block_ends

    def _on_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload) - 5, 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == _INITIAL_WINDOW:
                self._stream_window += value - self._initial
                self._initial = value
            elif name == _MAX_FRAME:
                self._frame_size = value
        self._greeted = True
        self._send(frame(SETTINGS, ACK, 0))

    def _on_reset(self, code: int) -> None:
        if self._ended:  # after an early answer the rest of the request is not wanted
            return
        raise Failure(
            _RESETS.get(code, "INTERNAL"), f"the server ended the call (RST_STREAM {code})",
            unseen=code == _REFUSED_STREAM,
        )  # fmt: skip


def _update(by: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, 0, by.to_bytes(4, "big"))


def _unpadded(flags: int, payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & PADDED and payload else payload
