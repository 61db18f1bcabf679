"""HTTP/1.1 on one connection, in memory: bytes in, bytes out. The app echoes what it understood."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tfopt_server.http import Request, Response
from tfopt_server.process.connections import Connection
from tfopt_server.room import Room

GET = b"GET /a?b=%20c HTTP/1.1\r\nHost: h\r\n\r\n"


POST = b"POST /p HTTP/1.1\r\nHost: h\r\nX-Name: Value\r\nContent-Length: 5\r\n\r\nhello"


CHUNKED = (
    b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrail: er\r\n\r\n"
)


def echo(request: Request) -> Response:
    headers = {k.decode(): v.decode() for k, v in request.headers}
    return Response(json.dumps([request.method, request.target, headers, request.body.decode()]).encode())


class Wire:
    """The transport and the worker: what a connection is between."""

    def __init__(self, app: Any = echo, limit: int = 0, room: Room | None = None) -> None:
        self.loop = self
        self.now = 1000.0
        self.connections: set[Connection] = set()
        self.draining = False
        self.gate, self.max_body_bytes, self.room = app, limit, room or Room(1 << 30)
        self.sent, self.closed, self.cut, self.reading, self.tasks = b"", False, False, True, []
        self.connection = Connection(self)  # type: ignore[arg-type]
        self.connection.connection_made(self)

    def __call__(self, *parts: bytes) -> bytes:
        """What comes back for these bytes."""
        before = len(self.sent)
        for part in parts:
            self.connection.data_received(part)
        return self.sent[before:]

    # asyncio's loop
    def time(self) -> float:
        return self.now

    def create_task(self, coroutine: Any) -> Any:
        return asyncio.get_running_loop().create_task(coroutine)

    def call_soon(self, function: Any) -> None:
        asyncio.get_running_loop().call_soon(function)

    def call_later(self, _seconds: float, function: Any) -> None:
        function()

    # asyncio's transport
    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.cut = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.sent += b"<EOF>"

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers in a stretch of the wire, each with its headers and its body."""
    found = []
    while data and data != b"<EOF>":
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        headers = dict(each.decode().split(": ", 1) for each in lines)
        assert "date" in headers
        size = int(headers["content-length"])
        found.append((int(line.split()[1]), headers, rest[:size]))
        data = rest[size:]
    return found
