"""A greeted gRPC connection without a socket: a transport that remembers what was written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import hpack
from h2wire import REQUEST, read, settings, spelled
from hyperframe import frame as hf
from tfopt_server.errors import Code, ServingError
from tfopt_server.rpc.http2.frames import PREFACE
from tfopt_server.rpc.http2.limits import Limits
from tfopt_server.rpc.methods import Conversation, Method
from tfopt_server.rpc.options import Options
from tfopt_server.rpc.transport import Shared, Transport


class Socket(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = self.aborted = False

    def write(self, part: bytes) -> None:
        self.sent += part

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


def reverse(request: bytes, _deadline: float | None) -> bytes:
    if request == b"refuse":
        raise ServingError(Code.NOT_FOUND, "no 100 % match: ä\n")
    if request == b"fail":
        raise RuntimeError("secret")
    return request[::-1]


async def double(conversation: Conversation) -> AsyncIterator[bytes]:
    async for message in conversation.requests():
        yield message * 2


METHODS = {b"/s/M": Method("/s/M", reverse), b"/s/Double": Method("/s/Double", streaming=double)}


class Wire:
    """A greeted connection to METHODS, and what its client sees."""

    def __init__(self, greet: bool = True, **options: Any) -> None:
        self.shared = Shared(METHODS, Options(Limits(), **options), asyncio.get_running_loop())
        self.transport, self.socket = Transport(self.shared), Socket()
        self.transport.connection_made(self.socket)
        self.decoder = hpack.Decoder()
        if greet:
            self.say(PREFACE + settings())
            self.heard()

    def say(self, *parts: bytes) -> None:
        for part in parts:
            self.transport.data_received(part)

    def frames(self) -> list[str]:
        found, self.socket.sent = read(self.socket.sent), b""
        return [spelled(frame) for frame in found]

    def heard(self) -> dict[int, tuple[dict[str, str], bytes]]:
        """Per stream: all its headers, and its bytes."""
        found: dict[int, tuple[dict[str, str], bytes]] = {}
        frames, self.socket.sent = read(self.socket.sent), b""
        for frame in frames:
            if frame.stream_id:
                fields, body = found.get(frame.stream_id, ({}, b""))
                if isinstance(frame, hf.HeadersFrame):
                    fields = fields | dict(self.decoder.decode(frame.data))
                elif isinstance(frame, hf.DataFrame):
                    body += frame.data
                found[frame.stream_id] = fields, body
        return found

    async def until(self, heard: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not heard():
                await asyncio.sleep(0.001)


def message(body: bytes, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(body).to_bytes(4, "big") + body


def fields(**changed: str | None) -> list[tuple[str, str]]:
    """REQUEST with other values; names with _ for -, None leaves out."""
    wanted = dict(REQUEST) | {name.replace("_", "-"): value for name, value in changed.items()}
    return [(name, value) for name, value in wanted.items() if value is not None]


def run(story: Callable[[], Any]) -> None:
    asyncio.run(story())
