"""One HTTP request and its answer: the joint between a connection, the health gate and the REST face.

    app(request) -> Response | Streamed | Awaitable[Response | Streamed]

An app never raises. It answers at once where it can: a coroutine costs as much as reading a short request.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

JSON = b"application/json"

Header = tuple[bytes, bytes]

# The headers that a face looks at (all but Expect and those of the connection, which are the connection's own matter).
CONTENT_TYPE, CONTENT_ENCODING, ACCEPT, REQUEST_ID = b"content-type", b"content-encoding", b"accept", b"x-request-id"
_NOTED = frozenset({CONTENT_TYPE, CONTENT_ENCODING, ACCEPT, REQUEST_ID})


class Request:
    """`target` is the path with its query, still percent-encoded; header names are in lower case; `body` is whole and
    no longer chunked, but packed where Content-Encoding says so. `began` is time.perf_counter() when it was complete.

    Handlers name what is counted: `model` as the client wrote it, `entrypoint` as TensorFlow Serving labels it
    ("predict", "" for GET), None for a page that is not counted.
    """

    __slots__ = ("began", "body", "entrypoint", "headers", "method", "model", "noted", "target")

    def __init__(self, method: str, target: str, headers: list[Header], body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.began = time.perf_counter()
        self.model = ""
        self.entrypoint: str | None = None
        # One pass for the few that are asked for on every request; the first of a name counts.
        self.noted: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _NOTED and name not in self.noted:
                self.noted[name] = value

    def header(self, name: bytes) -> bytes:
        """The first header of this (lower-case) name, b"" without one."""
        for each, value in self.headers:
            if each == name:
                return value
        return b""


class Response(NamedTuple):
    """An answer as a whole. The connection adds Content-Length; `content_type` None sends no Content-Type."""

    body: bytes
    status: int = 200
    content_type: bytes | None = JSON
    headers: tuple[Header, ...] = ()


class Streamed(NamedTuple):
    """An answer in parts, each sent as it comes (chunked). A failure while it runs cuts the connection: the status is
    out already. The iterator is closed when the client leaves."""

    parts: AsyncIterator[bytes]
    status: int = 200
    content_type: bytes | None = JSON
    headers: tuple[Header, ...] = ()


Answer = Response | Streamed
App = Callable[[Request], Answer | Awaitable[Answer]]
