"""An ASGI app that parses the request's JSON and writes an answer of the same shape and size, and nothing else.

Per instance it answers three probabilities as the small MLP does. Run under the same gunicorn worker class as tfopt.
"""

from __future__ import annotations

import orjson

ROW = [0.3333333432674408, 0.12345679104328156, 0.5432098507881165]


async def app(scope, receive, send) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"this app speaks HTTP only, received {scope['type']}")
    body = await _body(receive)
    instances = orjson.loads(body)["instances"] if body else []
    answer = orjson.dumps({"predictions": [ROW for _ in instances]})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _body(receive) -> bytes:
    event = await receive()
    if not event.get("more_body"):
        return event.get("body", b"")
    parts = [event.get("body", b"")]
    while event.get("more_body"):
        event = await receive()
        parts.append(event.get("body", b""))
    return b"".join(parts)
