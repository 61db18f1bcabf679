"""A REST lane: one HTTP/1.1 connection that sends prebuilt bytes and reads just enough of the answer.

A general HTTP client costs more than the server does for a small model, and would measure itself.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

HEAD_END = b"\r\n\r\n"


class Owner(Protocol):
    def answered(self, lane: HttpLane, error: str = "", reusable: bool = True) -> None: ...
    def lost(self, lane: HttpLane, why: str, refused: bool = False) -> None: ...


def request(host: str, port: int, path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class HttpLane(asyncio.Protocol):
    def __init__(self, owner: Owner, requests: Sequence[bytes], first: int = 0) -> None:
        self._owner = owner
        self._requests: Iterator[bytes] = itertools.islice(itertools.cycle(requests), first, None)
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting = False
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.open = True

    def send(self) -> None:
        if not self.open:
            self._owner.lost(self, "the connection was closed before the request was written", refused=True)
            return
        self._waiting = True
        self._transport.write(next(self._requests))  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        head_end = data.find(HEAD_END)
        if head_end < 0:
            self._buffer = data
            return
        head = data[:head_end].lower()
        if len(data) < head_end + 4 + content_length(head):
            self._buffer = data
            return
        self._buffer = b""
        self._waiting = False
        error = "" if head.startswith(b"http/1.1 200") else data[:300].decode("latin-1")
        closing = b"\r\nconnection: close" in head
        self.open = self.open and not closing
        self._owner.answered(self, error, reusable=not closing)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._waiting:
            self._waiting = False
            self._owner.lost(self, f"the connection ended before the answer: {exc or 'closed by the server'}")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def content_length(head: bytes) -> int:
    """`head` is in lower case, without the empty line. ValueError when the length is not announced."""
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"an answer without Content-Length: {head!r}")
    end = head.find(b"\r\n", at + 2)
    return int(head[at + 17 : end if end >= 0 else len(head)])
