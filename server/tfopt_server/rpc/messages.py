"""gRPC's length-prefixed messages out of the bytes of a stream ("Length-Prefixed-Message"), cut anywhere."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from tfopt_server.errors import Code, ServingError

PREFIX = 5
# What a compressed message may grow to; TensorFlow Serving's limit for gunzipped REST bodies.
INFLATED_LIMIT = 100 * 1024 * 1024
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}  # zlib.decompressobj's: a gzip header, a zlib header


class Message(NamedTuple):
    """In the parts that it came in: joining a long one takes a thread's time, not the event loop's."""

    parts: list[bytes]
    compressed: bool

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))

    def joined(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


def prefix(size: int) -> bytes:
    return b"\0" + size.to_bytes(4, "big")


class Inbox:
    """Gathers a stream's messages. `limit`: bytes of one of them, compressed or not."""

    __slots__ = ("_compressed", "_head", "_limit", "_parts", "_wanted")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = b""  # of a prefix that is not whole yet
        self._parts: list[bytes] = []
        self._wanted: int | None = None  # bytes that the message being gathered lacks, once its prefix is there
        self._compressed = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that these bytes complete, cut out as they are asked for; to be asked to the end before more
        is fed. RESOURCE_EXHAUSTED as soon as one says that it is too long."""
        at = 0
        while True:
            if self._wanted is None:
                rest = data[at : at + PREFIX - len(self._head)]
                self._head += rest
                at += len(rest)
                if len(self._head) < PREFIX:
                    return
                self._wanted = self._begin()
            part = data[at : at + self._wanted]
            if part:
                self._parts.append(part)
                self._wanted -= len(part)
                at += len(part)
            if self._wanted:
                return
            message = Message(self._parts, self._compressed)
            self._parts, self._wanted = [], None
            yield message

    def _begin(self) -> int:
        """The size that a whole prefix says."""
        flag, size = self._head[0], int.from_bytes(self._head[1:], "big")
        if flag > 1:
            raise ServingError(Code.INTERNAL, f"a message begins with the flag {flag}; expected 0 or 1")
        if size > self._limit:
            raise too_large(size, self._limit)
        self._head, self._compressed = b"", flag == 1
        return size

    @property
    def empty(self) -> bool:
        """No message has begun and not ended."""
        return self._wanted is None and not self._head


def too_large(size: int, limit: int) -> ServingError:
    return ServingError(Code.RESOURCE_EXHAUSTED, f"Received message larger than max ({size} vs. {limit})")


def too_large_to_send(size: int, limit: int) -> ServingError:
    return ServingError(Code.RESOURCE_EXHAUSTED, f"Sent message larger than max ({size} vs. {limit})")


def inflate(data: bytes, encoding: bytes, limit: int) -> bytes:
    """A compressed message's bytes, never more than `limit` of them."""
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise ServingError(Code.INTERNAL, "a message is compressed, but the call has no grpc-encoding")
    machine = zlib.decompressobj(bits)
    limit = min(limit, INFLATED_LIMIT)
    try:
        found = machine.decompress(data, limit + 1)
    except zlib.error as error:
        raise ServingError(Code.INTERNAL, f"a message is no {encoding.decode()}: {error}") from error
    if len(found) > limit:
        raise ServingError(Code.RESOURCE_EXHAUSTED, f"Received message larger than max (over {limit} once inflated)")
    if not machine.eof or machine.unused_data:
        raise ServingError(Code.INTERNAL, f"a message is no whole {encoding.decode()}")
    return found
