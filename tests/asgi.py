"""Calls an ASGI app in memory, as gunicorn would, without a port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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


async def acall(  # noqa: PLR0917 - a request has that many parts
    app: Any, method: str, target: str, body: bytes | Sequence[bytes] = b"", headers: dict[str, str] | None = None,
    gone: bool = False,
) -> Answer | None:  # fmt: skip
    """One request. `body`: whole, or in chunks. `gone`: the client leaves before the last chunk. None: no answer."""
    chunks = [body] if isinstance(body, bytes) else list(body)
    events: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": i + 1 < len(chunks) or gone}
        for i, chunk in enumerate(chunks)
    ]
    if gone:
        events.append({"type": "http.disconnect"})
    path, _, query = target.partition("?")
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await app(scope, receive, send)
    if not sent:
        return None
    start, body_event = sent
    assert (start["type"], body_event["type"]) == ("http.response.start", "http.response.body")
    found = {k.decode(): v.decode() for k, v in start["headers"]}
    assert int(found["content-length"]) == len(body_event["body"])
    return Answer(start["status"], found, body_event["body"])


def call(app: Any, method: str, target: str, body: Any = b"", headers: dict[str, str] | None = None) -> Answer:
    """As acall, for tests without an event loop; a `body` that is no bytes is sent as JSON."""
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes | list):
        body = json.dumps(body).encode()
    answer = asyncio.run(acall(app, method, target, body, headers))
    assert answer is not None
    return answer
