"""Header blocks: decoded by the hpack package once, remembered while they mean the same.

A client repeats the same bytes for call after call, and hpack needs 20 us for them. What a block means depends on the
block and on the connection's dynamic table; so meanings are remembered until the table changes. A block that changes
the table itself is never remembered.

Answers are written without the dynamic table: constant bytes that hold on every connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import hpack
from hpack.table import HeaderTable

from tfopt_server.rpc.http2.frames import END_HEADERS, END_STREAM, HEADERS, ConnectionFailure, ErrorCode

logging.getLogger("hpack").setLevel(logging.WARNING)  # it formats a debug line per header otherwise

Header = tuple[bytes, bytes]
# What a connection remembers is bounded: a client that never repeats itself must not fill memory.
REMEMBERED = 128  # blocks
LONGEST = 4096  # bytes of one
MOST = 64  # fields of one
# hpack stops in the middle of a longer list, and then the table is lost; below it, `limit` costs only its own stream.
HARD_LIMIT = 256 * 1024
# A block begins with at most two changes of the table's size (RFC 7541, 4.2); hpack takes a million, a byte each.
MOST_RESIZES = 2


class Malformed:
    """A header list that is no request (RFC 9113, 8.1.1): the stream ends with PROTOCOL_ERROR."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class _Table(HeaderTable):
    """A dynamic table that says when it changes. `resizes`: how often its size did in the block at hand."""

    def __init__(self) -> None:
        self.changes = self.resizes = 0
        super().__init__()

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return super().maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        self.resizes += 1
        if self.resizes > MOST_RESIZES:
            raise ValueError("a header block that resizes the table again and again")
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


Meaning = TypeVar("Meaning")


class Decoder(Generic[Meaning]):
    """`understand` makes of a well-formed list what the layer above wants to remember."""

    def __init__(self, understand: Callable[[Sequence[Header]], Meaning]) -> None:
        self._understand = understand
        self._hpack = hpack.Decoder(max_header_list_size=HARD_LIMIT)
        self._table = self._hpack.header_table = _Table()
        self.known: dict[bytes, Meaning | Malformed] = {}

    def decode(self, block: bytes) -> Meaning | Malformed:
        """The meaning of a block that is not in `known`. ConnectionFailure when it cannot be decoded."""
        before = self._table.changes
        headers = self._headers(block)
        wrong = check(headers)
        meaning = Malformed(wrong) if wrong else self._understand(headers)
        if self._table.changes == before and len(block) <= LONGEST and len(headers) <= MOST:
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            self.known[block] = meaning
        return meaning

    def trailers(self, block: bytes) -> str:
        """What is malformed about a block of trailers, whose content means nothing to gRPC servers; "" for nothing."""
        return check_trailers(self._headers(block))

    def _headers(self, block: bytes) -> list[Header]:
        before, self._table.resizes = self._table.changes, 0
        try:
            found = self._hpack.decode(block, raw=True)
        except hpack.OversizedHeaderListError as error:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, f"a header list over {HARD_LIMIT} bytes") from error
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise ConnectionFailure(ErrorCode.COMPRESSION_ERROR, "a header block that cannot be decoded") from error
        if self._table.changes != before:
            self.known.clear()
        return [(bytes(name), bytes(value)) for name, value in found]


_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED = frozenset({b":method", b":scheme", b":path"})
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_FORBIDDEN_IN_NAMES = frozenset([*range(0x21), *range(ord("A"), ord("Z") + 1), *range(0x7F, 0x100)])


def check(headers: Sequence[Header]) -> str:
    """What is malformed about a request's header list (RFC 9113, 8.2 and 8.3), "" when nothing is."""
    pseudo: set[bytes] = set()
    regular = False
    for name, value in headers:
        if name[:1] == b":":
            if regular or name not in _PSEUDO or name in pseudo:
                return f"pseudo-header {name!r} is unknown, repeated or late"
            pseudo.add(name)
        else:
            regular = True
        if wrong := _wrong_field(name, value):
            return wrong
    if not pseudo >= _REQUIRED:
        return f"the pseudo-headers {sorted(_REQUIRED - pseudo)} are missing"
    return ""


def check_trailers(headers: Sequence[Header]) -> str:
    """The same for trailers, which have no pseudo-headers."""
    for name, value in headers:
        if name[:1] == b":":
            return f"pseudo-header {name!r} in trailers"
        if wrong := _wrong_field(name, value):
            return wrong
    return ""


def _wrong_field(name: bytes, value: bytes) -> str:
    if not name or not _FORBIDDEN_IN_NAMES.isdisjoint(name) or b":" in name[1:]:
        return f"field name {name!r} has characters that are not allowed"
    if name in _OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
        return f"field {name!r} belongs to HTTP/1.1 connections"
    if b"\0" in value or b"\r" in value or b"\n" in value or value.strip(b" \t") != value:
        return f"the value of field {name!r} has characters that are not allowed"
    return ""


# Literals that are never indexed (RFC 7541, 6.2.2), without Huffman.
_STATIC_NAMES = {b":status": 8, b"content-type": 31, b"content-length": 28, b"allow": 22}
_STATUS_200 = b"\x88"
SHRINK_TABLE = b"\x20"  # "my table has size 0 now" (6.3): owed to a peer that allows less than the default


class Block(NamedTuple):
    """A header block that means the same on every connection, with the frame headers for it up to the stream's number:
    `first` where more follows on the stream, `last` where nothing does."""

    data: bytes
    first: bytes
    last: bytes


def block(headers: Sequence[Header]) -> Block:
    data = encode(headers)
    start = len(data).to_bytes(3, "big") + bytes([HEADERS])
    return Block(data, start + bytes([END_HEADERS]), start + bytes([END_HEADERS | END_STREAM]))


def encode(headers: Sequence[Header]) -> bytes:
    parts: list[bytes] = []
    for name, value in headers:
        if (name, value) == (b":status", b"200"):
            parts.append(_STATUS_200)
            continue
        index = _STATIC_NAMES.get(name)
        parts += [_integer(index, 4)] if index is not None else [b"\x00", _integer(len(name), 7), name]
        parts += [_integer(len(value), 7), value]
    return b"".join(parts)


def _integer(value: int, bits: int) -> bytes:
    return bytes(hpack.hpack.encode_integer(value, bits))
