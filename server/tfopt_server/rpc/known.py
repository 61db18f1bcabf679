"""PredictRequests that differ from an earlier one in nothing but numbers: read without parsing.

A client sends the same bytes again and again but for the values of its tensors. So of a request that was read its
length and the bytes around the values are kept. Another one of the same length with the same bytes at the same places
must parse to the same fields, because only payloads of known length differ; its tensors are views of those payloads.
That spares most of decoding (docs/decisions/0045).

Everything else takes protobuf's way: strings, values as varints, repeated or unknown fields, too few values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tfopt_optimizer.plan import SignatureInfo

from tfopt_server.dataplane import ModelSpec
from tfopt_server.rows import Feeds

Array = npt.NDArray[Any]

REMEMBERED = 64  # requests that look different
LITERAL_LIMIT = 4096  # bytes around the values; what is longer is rather data
# Requests that nothing can be learned from must not pay for the attempt for ever: each costs a credit, each request
# that was known gives one, and without any only every SELDOM-th is tried.
CREDIT = 64
SELDOM = 64

# Fields of PredictRequest, of its map entries and of TensorProto (tensorflow/core/framework/tensor.proto).
_SPEC, _INPUTS, _FILTER = 1, 2, 3
_KEY, _VALUE = 1, 2
_DTYPE, _SHAPE, _VERSION, _CONTENT, _FLOATS, _DOUBLES = 1, 2, 3, 4, 5, 6
_VARINT, _BYTES = 0, 2
_TYPED: dict[int, np.dtype[Any]] = {_FLOATS: np.dtype("<f4"), _DOUBLES: np.dtype("<f8")}


class Hole(NamedTuple):
    """Where an input's values lie in the request, and what they are."""

    name: str
    start: int
    size: int  # in elements
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Known(NamedTuple):
    """A request as it looks: `literals` are (place, bytes). The rest is what it meant for `signature`."""

    literals: tuple[tuple[int, bytes], ...]
    holes: tuple[Hole, ...]
    spec: ModelSpec
    key: str
    signature: SignatureInfo
    outputs: Sequence[str] | None

    def feeds(self, data: bytes) -> Feeds:
        """Read-only arrays, in the signature's order."""
        found = {}
        for name, start, size, dtype, shape in self.holes:
            array: Array = np.frombuffer(data, dtype, size, start).reshape(shape)
            # Values may begin at any byte; engines hand arrays to code that reads whole vectors.
            found[name] = array if array.flags.aligned else array.copy()
        return found


class Memory:
    """Known requests by their length. Not locked: the worst that two threads can do is to learn a request twice."""

    def __init__(self) -> None:
        self._known: dict[int, Known] = {}
        self._credit = CREDIT
        self._tried = 0

    def find(self, data: bytes) -> Known | None:
        known = self._known.get(len(data))
        if known is None:
            return None
        for place, literal in known.literals:
            if not data.startswith(literal, place):
                return None
        if self._credit < CREDIT:
            self._credit += 1
        return known

    def learn(  # noqa: PLR0917 - one caller
        self, data: bytes, spec: ModelSpec, key: str, signature: SignatureInfo, feeds: Feeds,
        outputs: Sequence[str] | None,
    ) -> None:  # fmt: skip
        """`data` was parsed to the others: `feeds` in the signature's order."""
        self._tried += 1
        if self._credit <= 0 and self._tried % SELDOM:
            return
        self._credit -= 1
        found = _holes(data)
        if found is None or set(found) != set(feeds):
            return
        holes = []
        for name, array in feeds.items():
            start, size, typed = found[name]
            if not _fits(array, size, typed):
                return
            holes.append(Hole(name, start, array.size, array.dtype, array.shape))
        literals = tuple(_around(data, sorted(found.values(), key=lambda place: place[0])))
        if sum(len(literal) for _, literal in literals) > LITERAL_LIMIT:
            return
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[len(data)] = Known(literals, tuple(holes), spec, key, signature, outputs)


def _fits(array: Array, size: int, typed: np.dtype[Any] | None) -> bool:
    """Whether the payload is the array's memory, byte for byte."""
    if array.dtype.hasobject or not array.size or array.size * array.dtype.itemsize != size:
        return False
    return typed is None or array.dtype == typed


def _around(data: bytes, holes: Sequence[tuple[int, int, Any]]) -> Iterator[tuple[int, bytes]]:
    """The bytes before, between and after the holes."""
    at = 0
    for start, size, _ in holes:
        yield at, data[at:start]
        at = start + size
    if at < len(data):
        yield at, data[at:]


class _Unusual(Exception):
    """Something that this module does not read."""


# Where an input's values begin, how many bytes they are, and the dtype that their field implies, if it does.
Place = tuple[int, int, np.dtype[Any] | None]


def _holes(data: bytes) -> dict[str, Place] | None:
    """By input's name; None when the request is unusual."""
    try:
        return _request(data)
    except (_Unusual, IndexError, KeyError, UnicodeDecodeError):
        return None


def _request(data: bytes) -> dict[str, Place]:
    found: dict[str, Place] = {}
    seen_spec = False
    for number, wire, start, stop in _fields(data, 0, len(data)):
        if wire != _BYTES or number not in (_SPEC, _INPUTS, _FILTER) or (number == _SPEC and seen_spec):
            raise _Unusual
        seen_spec = seen_spec or number == _SPEC
        if number == _INPUTS:
            entry = _once(data, start, stop, {_KEY: _BYTES, _VALUE: _BYTES})
            name = data[slice(*entry[_KEY])].decode()
            if name in found:
                raise _Unusual
            found[name] = _tensor(data, *entry[_VALUE])
    return found


def _tensor(data: bytes, start: int, stop: int) -> Place:
    kinds = {_DTYPE: _VARINT, _SHAPE: _BYTES, _VERSION: _VARINT, _CONTENT: _BYTES, _FLOATS: _BYTES, _DOUBLES: _BYTES}
    fields = _once(data, start, stop, kinds)
    values = [number for number in (_CONTENT, _FLOATS, _DOUBLES) if number in fields]
    if len(values) != 1:
        raise _Unusual
    begin, end = fields[values[0]]
    return begin, end - begin, _TYPED.get(values[0])


def _once(data: bytes, start: int, stop: int, kinds: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """The places of a message's fields, none of which may come twice or be of another kind."""
    found: dict[int, tuple[int, int]] = {}
    for number, wire, begin, end in _fields(data, start, stop):
        if kinds.get(number) != wire or number in found:
            raise _Unusual
        found[number] = begin, end
    return found


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, wire type, where its value begins, where it ends) of a message's fields."""
    while at < stop:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _BYTES:
            size, at = _varint(data, at)
            end = at + size
        elif wire == _VARINT:
            _, end = _varint(data, at)
        else:
            raise _Unusual
        if end > stop:
            raise _Unusual
        yield tag >> 3, wire, at, end
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise _Unusual
