"""Calls an HTTP app in memory, as a connection would, without a port."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from tfopt_server.http import App, Request, Response, Streamed


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Python reads NaN, Infinity and -Infinity as TensorFlow Serving writes them."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        found = self.json()
        assert list(found) == ["error"]
        return str(found["error"])


async def acall(app: App, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """One request; a streamed answer is gathered."""
    named = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
    found = app(Request(method, target, named, body))
    if not isinstance(found, Response | Streamed):
        found = await found
    whole = found.body if isinstance(found, Response) else b"".join([part async for part in found.parts])
    sent = {k.decode(): v.decode() for k, v in found.headers}
    if found.content_type is not None:
        sent["content-type"] = found.content_type.decode()
    return Answer(found.status, sent, whole)


def call(app: App, method: str, target: str, body: Any = b"", headers: dict[str, str] | None = None) -> Answer:
    """As acall, for tests without an event loop; a `body` that is no bytes is sent as JSON."""
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return asyncio.run(acall(app, method, target, body, headers))
