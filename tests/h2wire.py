"""HTTP/2 frames for tests, written and read by an independent library (hyperframe), and a connection to talk to.

talk = Talk()
assert talk.say(headers(1), data(1, b"x", end=True)) == ["REQUEST 1", "BODY 1 'x' end"]
assert talk.heard() == [...]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import hpack
from hyperframe import frame as hf
from tfopt_server.rpc.http2 import connection
from tfopt_server.rpc.http2.connection import Connection, Event
from tfopt_server.rpc.http2.frames import PREFACE, ErrorCode
from tfopt_server.rpc.http2.headers import block
from tfopt_server.rpc.http2.limits import Limits

REQUEST = (
    (":method", "POST"), (":scheme", "http"), (":path", "/s/M"), (":authority", "here"), ("te", "trailers"),
    ("content-type", "application/grpc"),
)  # fmt: skip
LEAD = block([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = block([(b"grpc-status", b"0")])


# What a client hears of Talk.answer.
_ANSWER = ("HEADERS {0} :status=200", "DATA {0} b'ok'", "HEADERS {0} grpc-status=0 end")


def answer(stream: int) -> list[str]:
    return [line.format(stream) for line in _ANSWER]


class Head(NamedTuple):
    headers: Sequence[tuple[bytes, bytes]]
    content_length: int | None


def understand(headers: Sequence[tuple[bytes, bytes]]) -> Head:
    length = dict(headers).get(b"content-length")
    return Head(headers, None if length is None else int(length))


def encoded(fields: Sequence[tuple[str, str]] = REQUEST, encoder: hpack.Encoder | None = None) -> bytes:
    """A header block; without an encoder of its own, one that uses no dynamic table."""
    if encoder is not None:
        return encoder.encode(fields)
    return block([(name.encode(), value.encode()) for name, value in fields]).data


def headers(stream: int, fields: Sequence[tuple[str, str]] = REQUEST, end: bool = False, **more: Any) -> bytes:
    flags = ["END_HEADERS"] if more.pop("whole", True) else []
    return hf.HeadersFrame(
        stream, more.pop("data", None) or encoded(fields, more.pop("encoder", None)),
        flags=flags + ["END_STREAM"] * end + more.pop("flags", []), **more,
    ).serialize()  # fmt: skip


def continuation(stream: int, part: bytes, whole: bool = True) -> bytes:
    return hf.ContinuationFrame(stream, part, flags=["END_HEADERS"] * whole).serialize()


def data(stream: int, body: bytes = b"", end: bool = False, padding: int | None = None) -> bytes:
    flags = ["END_STREAM"] * end + ["PADDED"] * (padding is not None)
    return hf.DataFrame(stream, body, flags=flags, pad_length=padding or 0).serialize()


def settings(values: dict[int, int] | None = None, ack: bool = False) -> bytes:
    return hf.SettingsFrame(0, values or {}, flags=["ACK"] * ack).serialize()


def ping(payload: bytes = b"12345678", ack: bool = False) -> bytes:
    return hf.PingFrame(0, payload, flags=["ACK"] * ack).serialize()


def rst(stream: int, code: int = ErrorCode.CANCEL) -> bytes:
    return hf.RstStreamFrame(stream, code).serialize()


def window(stream: int, by: int) -> bytes:
    return hf.WindowUpdateFrame(stream, by).serialize()


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of any kind, however wrong."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def read(sent: bytes) -> list[hf.Frame]:
    found = []
    while sent:
        frame, length = hf.Frame.parse_frame_header(memoryview(sent[:9]))
        frame.parse_body(memoryview(sent[9 : 9 + length]))
        assert len(sent) >= 9 + length
        found.append(frame)
        sent = sent[9 + length :]
    return found


def spelled(frame: hf.Frame) -> str:
    """A frame in a few words; header blocks are spelled by Talk, which has the decoder."""
    if isinstance(frame, hf.GoAwayFrame):
        return f"GOAWAY {frame.last_stream_id} {ErrorCode(frame.error_code).name}"
    if isinstance(frame, hf.RstStreamFrame):
        return f"RST_STREAM {frame.stream_id} {ErrorCode(frame.error_code).name}"
    if isinstance(frame, hf.WindowUpdateFrame):
        return f"WINDOW_UPDATE {frame.stream_id} {frame.window_increment}"
    if isinstance(frame, hf.SettingsFrame):
        return "SETTINGS ack" if "ACK" in frame.flags else "SETTINGS"
    if isinstance(frame, hf.PingFrame):
        return f"PING{' ack' * ('ACK' in frame.flags)} {frame.opaque_data!r}"
    if isinstance(frame, hf.DataFrame):
        body = repr(frame.data) if len(frame.data) < 20 else f"{len(frame.data)} bytes"
        return f"DATA {frame.stream_id} {body}{' end' * ('END_STREAM' in frame.flags)}"
    raise AssertionError(frame)


class Talk:
    """A connection that was greeted. `clock` stands still unless a test moves it."""

    def __init__(self, limits: Limits | None = None, greet: bool = True, **values: int) -> None:
        self.now = 0.0
        self.core = Connection(understand, limits, lambda: self.now)
        self.decoder = hpack.Decoder()
        if greet:
            self.core.receive(PREFACE + settings({int(k[1:]): v for k, v in values.items()}))
            self.heard()

    def say(self, *parts: bytes) -> list[str]:
        """What the connection makes of it."""
        return [self._event(event) for event in self.core.receive(b"".join(parts))]

    def _event(self, event: Event) -> str:
        end = " end" * event.ended
        if event.kind == connection.REQUEST:
            return f"REQUEST {event.stream.id}{end}"
        if event.kind == connection.RESET:
            return f"RESET {event.stream.id}"
        body = repr(event.data)[1:] if len(event.data) < 20 else f"{len(event.data)} bytes"
        return f"BODY {event.stream.id} {body}{end}"

    def take(self) -> bytes:
        parts = []
        while part := self.core.take():
            parts.append(part)
        return b"".join(parts)

    def heard(self) -> list[str]:
        """Every frame that came back since the last time."""
        return [self._spelled(frame) for frame in read(self.take())]

    def _spelled(self, frame: hf.Frame) -> str:
        if not isinstance(frame, hf.HeadersFrame):
            return spelled(frame)
        assert "END_HEADERS" in frame.flags
        fields = " ".join(f"{n}={v}" for n, v in self.decoder.decode(frame.data) if n in (":status", "grpc-status"))
        return f"HEADERS {frame.stream_id} {fields}{' end' * ('END_STREAM' in frame.flags)}"

    def answer(self, stream: int, body: bytes = b"ok") -> None:
        self.core.respond(self.core.streams[stream], LEAD, b"", body, TRAILERS)
