"""gRPC lanes: unary calls as prebuilt HTTP/2 frames on one connection (RFC 9113), without a gRPC library.

grpcio's client costs about as much CPU per call as its server, so on two cores it would measure itself. This one sends
constant bytes and reads frame headers only. Header blocks are never decoded: a unary call went well exactly when one
whole message arrived before the stream ended, because a failed call answers with trailers alone (gRPC over HTTP2,
"Trailers-Only").
"""

from __future__ import annotations

import asyncio
import itertools
import re
import struct
from collections.abc import Sequence
from typing import Protocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
PADDED = 0x8
INITIAL_WINDOW = 4
LARGEST = 2**31 - 1
DEFAULT_WINDOW = 65535
FRAME_SIZE = 16384


class Owner(Protocol):
    def answered(self, lane: StreamLane, error: str = "", reusable: bool = True) -> None: ...
    def lost(self, lane: StreamLane, why: str, refused: bool = False) -> None: ...


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(body: bytes) -> bytes:
    """gRPC's length-prefixed message, not compressed."""
    return struct.pack(">BI", 0, len(body)) + body


def header_block(authority: str, method: str) -> bytes:
    """HPACK (RFC 7541) from the static table and literals that are never indexed: the same bytes for every call."""

    def literal(prefix: bytes, value: str) -> bytes:
        data = value.encode()
        if len(data) > 126:
            raise ValueError(f"too long for one length byte: {value!r}")
        return prefix + bytes([len(data)]) + data

    te = b"\x00\x02te"
    content_type = b"\x0f\x10"  # static name 31 = 15 + 16
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + literal(b"\x04", method)
        + literal(b"\x01", authority)
        + literal(te, "trailers")
        + literal(content_type, "application/grpc")
    )


class StreamLane:
    """One call at a time on a shared connection."""

    def __init__(self, connection: GrpcConnection) -> None:
        self._connection = connection

    def send(self) -> None:
        self._connection.call(self)


class GrpcConnection(asyncio.Protocol):
    def __init__(self, owner: Owner, authority: str, method: str, bodies: Sequence[bytes]) -> None:
        self._owner = owner
        self._headers = header_block(authority, method)
        self._messages = itertools.cycle([message(body) for body in bodies])
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._next_stream = 1
        self._lanes: dict[int, StreamLane] = {}
        self._received: dict[int, bytes] = {}
        self._window, self._stream_window = DEFAULT_WINDOW, DEFAULT_WINDOW
        self._unsent: dict[int, tuple[bytes, int]] = {}  # stream -> what flow control holds back, its own window
        self._consumed = 0
        self.open = False
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.open = True
        settings = struct.pack(">HI", INITIAL_WINDOW, LARGEST)
        self._write(PREFACE + frame(SETTINGS, 0, 0, settings) + _window_update(LARGEST - DEFAULT_WINDOW))

    def call(self, lane: StreamLane) -> None:
        if not self.open:
            self._owner.lost(lane, "the connection was closed before the call was written", refused=True)
            return
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._lanes[stream] = lane
        body, head = next(self._messages), frame(HEADERS, END_HEADERS, stream, self._headers)
        if len(body) <= min(self._window, self._stream_window, FRAME_SIZE) and not self._unsent:
            self._window -= len(body)
            self._write(head + frame(DATA, END_STREAM, stream, body))
            return
        self._unsent[stream] = (body, self._stream_window)
        self._write(head)
        self._flush()

    def data_received(self, data: bytes) -> None:
        data, at = self._buffer + data, 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            if len(data) - at < 9 + length:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & LARGEST
            self._frame(data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server closed the connection before its settings"))
        lanes, self._lanes = list(self._lanes.values()), {}
        for lane in lanes:
            self._owner.lost(lane, f"the connection ended before the answer: {exc or 'closed by the server'}")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._data(flags, stream, payload)
        elif kind == HEADERS:
            if flags & END_STREAM:
                self._finish(stream, payload)
        elif kind == SETTINGS:
            self._settings(flags, payload)
        elif kind == PING and not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big") & LARGEST)
        elif kind == RST_STREAM:
            self._finish(stream, b"RST_STREAM " + payload.hex().encode())
        elif kind == GOAWAY:
            self._goaway(int.from_bytes(payload[:4], "big") & LARGEST)

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & PADDED:
            raise ValueError("padded DATA frames are not read by this client")
        self._received[stream] = self._received.get(stream, b"") + payload
        self._consumed += len(payload)
        if self._consumed > LARGEST // 2:
            self._write(_window_update(self._consumed))
            self._consumed = 0
        if flags & END_STREAM:
            self._finish(stream, b"")

    def _finish(self, stream: int, trailers: bytes) -> None:
        self._unsent.pop(stream, None)
        lane = self._lanes.pop(stream, None)
        if lane is None:
            return
        received = self._received.pop(stream, b"")
        whole = len(received) >= 5 and len(received) == 5 + int.from_bytes(received[1:5], "big")
        error = "" if whole else f"no message, trailers {_printable(trailers)!r}"
        self._owner.answered(lane, error, reusable=self.open)

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        for at in range(0, len(payload), 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == INITIAL_WINDOW:
                change, self._stream_window = value - self._stream_window, value
                self._unsent = {s: (rest, window + change) for s, (rest, window) in self._unsent.items()}
        self._write(frame(SETTINGS, ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._flush()

    def _widen(self, stream: int, by: int) -> None:
        if stream == 0:
            self._window += by
        elif stream in self._unsent:
            rest, window = self._unsent[stream]
            self._unsent[stream] = (rest, window + by)
        self._flush()

    def _flush(self) -> None:
        """Sends what flow control lets through, oldest call first."""
        for stream, (body, window) in list(self._unsent.items()):
            sent = 0
            while size := min(len(body) - sent, self._window, window - sent, FRAME_SIZE):
                if size < 0:  # a peer may shrink a stream's window below zero
                    break
                part, sent = body[sent : sent + size], sent + size
                self._window -= size
                self._write(frame(DATA, END_STREAM if sent == len(body) else 0, stream, part))
            if sent == len(body):
                del self._unsent[stream]
            else:
                self._unsent[stream] = (body[sent:], window - sent)

    def _goaway(self, last_stream: int) -> None:
        """The server finishes calls up to `last_stream`; later ones were not looked at and may be sent elsewhere."""
        self.open = False
        for stream in [s for s in self._lanes if s > last_stream]:
            self._owner.lost(self._lanes.pop(stream), "sent after the server's last stream (GOAWAY)", refused=True)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[union-attr]


def _window_update(by: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", by))


def _printable(block: bytes) -> str:
    """The readable stretches of a header block: enough to see a status text in an error line."""
    return " ".join(found.decode() for found in re.findall(rb"[ -~]{3,}", block))
