"""Reading a request body from ASGI: its size limit, and gzip as TensorFlow Serving's net_http treats it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = Iterable[tuple[bytes, bytes]]

GUNZIPPED_LIMIT = 100 * 1024 * 1024  # net_http's own
LONG_PACKED = 4096  # gzip unfolds a thousandfold at worst: 4 MB, 10 ms on the event loop


class TooLarge(Exception):
    """The body is longer than the operator allows; the text is for the client."""


class ClientGone(Exception):
    """The connection ended before the body did: nobody waits for an answer."""


async def read(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body, gunzipped where Content-Encoding says so. `limit` in bytes as they come; 0: any."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        size += len(part)
        if limit and size > limit:
            raise TooLarge(f"The request body is larger than {limit} bytes (--max_body_bytes).")
        if not message.get("more_body"):
            break
        parts.append(part)
    body = b"".join((*parts, part)) if parts else part
    for name, value in headers:
        if name == b"content-encoding" and b"gzip" in value.lower():
            return gunzip(body) if len(body) < LONG_PACKED else await asyncio.to_thread(gunzip, body)
    return body


def gunzip(body: bytes) -> bytes:
    """The unpacked body; empty when it is not gzip, is cut short or is longer than GUNZIPPED_LIMIT.

    TensorFlow Serving reads such a body as empty too, and then says that the document is empty.
    """
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(body, GUNZIPPED_LIMIT + 1)
    except zlib.error:
        return b""
    return unpacked if unpacker.eof and len(unpacked) <= GUNZIPPED_LIMIT else b""
