"""How a gRPC answer says how it went: header blocks ready to be sent (gRPC over HTTP/2, "Responses")."""

from __future__ import annotations

import functools

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


def alone(code: Code, message: str, echo: tuple[Header, ...] = ()) -> Block:
    """An answer that is nothing but a status ("Trailers-Only")."""
    return block([*_alone(code, message), *echo]) if echo else _alone_block(code, message)


@functools.lru_cache(maxsize=256)
def _alone_block(code: Code, message: str) -> Block:
    return block(_alone(code, message))


def _alone(code: Code, message: str) -> list[Header]:
    hint = [UNKNOWN_ENCODING_HINT] if code is Code.UNIMPLEMENTED else []
    return [*_START, *_status(code, message), *hint]


@functools.lru_cache(maxsize=256)
def trailers(code: Code, message: str) -> Block:
    """The end of an answer that had begun."""
    return block(_status(code, message))


@functools.lru_cache(maxsize=16)
def plain(status: int, *headers: tuple[bytes, bytes]) -> Block:
    """An HTTP answer without a body, for what is no gRPC request."""
    return block([(b":status", b"%d" % status), *headers])


def _status(code: Code, message: str) -> list[tuple[bytes, bytes]]:
    return [(b"grpc-status", b"%d" % code), (b"grpc-message", percent_encoded(details(message)))]


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
