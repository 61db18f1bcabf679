"""How a gRPC answer says how it went: header blocks ready to be sent (gRPC over HTTP/2, "Responses")."""

from __future__ import annotations

import base64
import functools
import math

from tfopt_server.errors import Code
from tfopt_server.rpc.http2.headers import Block, Header, block

TEXT_LIMIT = 1024  # bytes; ToGRPCStatus in TensorFlow Serving's grpc_status_util.cc
TRUNCATED = "...TRUNCATED"
ENCODINGS = b"identity, deflate, gzip"

_START = ((b":status", b"200"), (b"content-type", b"application/grpc"))
LEAD = block(_START)
OK = block([(b"grpc-status", b"0")])
UNKNOWN_ENCODING_HINT = (b"grpc-accept-encoding", ENCODINGS)


def lead(echo: tuple[Header, ...]) -> Block:
    """How an answer begins that repeats these headers of its request."""
    return block([*_START, *echo]) if echo else LEAD


def alone(code: Code, message: str, echo: tuple[Header, ...] = (), retry_after_s: float | None = None) -> Block:
    """An answer that is nothing but a status ("Trailers-Only")."""
    text = details(message)
    if echo:
        return block([*_alone(code, text, retry_after_s), *echo])
    return _alone_block(code, text, retry_after_s)


@functools.lru_cache(maxsize=256)  # of texts that were cut: what a client wrote may stand in them
def _alone_block(code: Code, text: str, retry_after_s: float | None) -> Block:
    return block(_alone(code, text, retry_after_s))


def _alone(code: Code, text: str, retry_after_s: float | None) -> list[Header]:
    hint = [UNKNOWN_ENCODING_HINT] if code is Code.UNIMPLEMENTED else []
    return [*_START, *_status(code, text, retry_after_s), *hint]


def trailers(code: Code, message: str, retry_after_s: float | None = None) -> Block:
    """The end of an answer that had begun."""
    return block(headers_of(code, message, retry_after_s))


@functools.lru_cache(maxsize=16)
def plain(status: int, *headers: tuple[bytes, bytes]) -> Block:
    """An HTTP answer without a body, for what is no gRPC request."""
    return block([(b":status", b"%d" % status), *headers])


def headers_of(code: Code, message: str, retry_after_s: float | None = None) -> list[Header]:
    """A status as trailers carry it."""
    return _status(code, details(message), retry_after_s)


def _status(code: Code, text: str, retry_after_s: float | None) -> list[Header]:
    found = [(b"grpc-status", b"%d" % code), (b"grpc-message", percent_encoded(text))]
    if retry_after_s is not None:
        milliseconds = math.ceil(retry_after_s * 1000)
        # The first is what gRPC's own retries read (gRFC A6), the second what programs do (google.rpc.Status).
        found.append((b"grpc-retry-pushback-ms", b"%d" % milliseconds))
        found.append((b"grpc-status-details-bin", base64.b64encode(_rich(code, text, milliseconds))))
    return found


def _rich(code: Code, text: str, milliseconds: int) -> bytes:
    """google.rpc.Status with a RetryInfo (google/rpc/status.proto, error_details.proto), written by hand: five fields
    are no reason to carry two more packages' descriptors."""
    delay = _number(1, milliseconds // 1000) + _number(2, milliseconds % 1000 * 1_000_000)
    info = _bytes(1, b"type.googleapis.com/google.rpc.RetryInfo") + _bytes(2, _bytes(1, delay))
    return _number(1, code) + _bytes(2, text.encode()) + _bytes(3, info)


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def details(message: str) -> str:
    """The text of a status: long ones are cut, because they travel in a header."""
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= TEXT_LIMIT:
        return encoded.decode()
    return encoded[:TEXT_LIMIT].decode("utf-8", "ignore") + TRUNCATED


_AS_THEY_ARE = frozenset(range(0x20, 0x7F)) - {ord("%")}


def percent_encoded(text: str) -> bytes:
    """`text` as grpc-message carries it: printable ASCII but "%", the rest as %XX of UTF-8.

    Spaces at either end are encoded too: a header's value has none there (RFC 9113, 8.2.1).
    """
    data = text.encode("utf-8", "replace")
    inner = data.strip(b" ")
    before = len(data) - len(data.lstrip(b" "))
    after = len(data) - before - len(inner)
    encoded = b"".join(bytes([byte]) if byte in _AS_THEY_ARE else b"%%%02X" % byte for byte in inner)
    return b"%20" * before + encoded + b"%20" * after
