"""What a gRPC request's headers mean (gRPC over HTTP/2, "Requests"). Pure; remembered by the connection per block."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tfopt_server.errors import Code
from tfopt_server.logs import LONGEST_ID
from tfopt_server.rpc import status
from tfopt_server.rpc.http2.headers import Block, Header
from tfopt_server.rpc.methods import Method
from tfopt_server.rpc.named import named

REQUEST_ID = b"x-request-id"  # what clients and proxies find a call again by; REST repeats the same header
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_ENCODINGS = frozenset({b"identity", b"gzip", b"deflate"})


class Head(NamedTuple):
    """`refusal`: the whole answer, where the headers alone decide. `timeout`: seconds, None without a deadline.
    `echo`: what the answer repeats of the headers, `lead` how it begins."""

    method: Method
    refusal: Block | None
    timeout: float | None
    encoding: bytes
    content_length: int | None
    headers: Sequence[Header]
    echo: tuple[Header, ...] = ()
    lead: Block = status.LEAD


_NOTHING = Method("")


def reader(methods: Mapping[bytes, Method], limit: int) -> Callable[[Sequence[Header]], Head]:
    """`methods` by path; `limit`: bytes of a header list as RFC 9113 (6.5.2) counts them."""

    def read(headers: Sequence[Header]) -> Head:
        fields = dict(headers)
        method = methods.get(fields[b":path"])
        timeout = fields.get(b"grpc-timeout")
        name = fields.get(REQUEST_ID)
        echo = ((REQUEST_ID, name),) if name and len(name) <= LONGEST_ID else ()
        if name and echo and method is not None:
            method = named(method, name.decode("latin-1"))
        return Head(
            method or _NOTHING,
            _refusal(headers, fields, method, limit),
            None if timeout is None else _seconds(timeout),
            fields.get(b"grpc-encoding", b"identity"),
            _length(fields.get(b"content-length")),
            headers,
            echo,
            status.lead(echo),
        )

    return read


def _refusal(
    headers: Sequence[Header], fields: Mapping[bytes, bytes], method: Method | None, limit: int
) -> Block | None:
    if fields[b":method"] != b"POST":
        return status.plain(405, (b"allow", b"POST"))
    if not is_grpc(fields.get(b"content-type", b"")):
        return status.plain(415)
    size = sum(len(name) + len(value) + 32 for name, value in headers)
    if size > limit:
        return status.alone(Code.RESOURCE_EXHAUSTED, f"received metadata size exceeds the limit ({size} vs. {limit})")
    if method is None:
        path = fields[b":path"].decode("ascii", "replace")
        return status.alone(Code.UNIMPLEMENTED, f"{path} is not served.")
    encoding = fields.get(b"grpc-encoding", b"identity")
    if encoding not in _ENCODINGS:
        text = f"grpc-encoding {encoding.decode('ascii', 'replace')} is not supported; {status.ENCODINGS.decode()} are"
        return status.alone(Code.UNIMPLEMENTED, text)
    timeout = fields.get(b"grpc-timeout")
    if timeout is not None and _seconds(timeout) is None:
        return status.alone(Code.INTERNAL, f"malformed grpc-timeout: {timeout.decode('ascii', 'replace')}")
    return None


def is_grpc(content_type: bytes) -> bool:
    """application/grpc, alone or with +proto. Other serializations (+json) are not spoken here."""
    kind = content_type.partition(b";")[0].strip().lower()
    return kind in (b"application/grpc", b"application/grpc+proto")


def _seconds(timeout: bytes) -> float | None:
    found = _TIMEOUT.fullmatch(timeout)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def _length(value: bytes | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(rb"\d{1,18}", value) else None
