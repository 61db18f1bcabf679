"""What variables does a checkpoint hold: the index of a TensorFlow tensor bundle, read without TensorFlow.

    >>> read_index(model_dir / "variables" / "variables")["dense/kernel/.ATTRIBUTES/VARIABLE_VALUE"].shape
    (32, 64)

`variables.index` is an SSTable as LevelDB writes it (tensorflow/core/lib/io/table_format.txt, never compressed by
tensor_bundle.cc): blocks of prefix-compressed, sorted keys, an index block of their places, and a footer of 48 bytes.
Key "" holds a BundleHeaderProto, every other key a BundleEntryProto that says where the tensor lies in the data files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tfopt_protos import dtypes, messages
from tfopt_protos.tensors import from_varint

# Tensors that say how objects hang together, not what they hold.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5  # after each block: its compression type and a checksum


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the text names the file (for the operator)."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor: its key, dtype by name, shape, the bytes that it takes, the data file that holds it, a checksum."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    offset: int
    shard: int
    crc32c: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_index(prefix: Path) -> dict[str, Entry]:
    """The tensors of the checkpoint by key, in the order of their keys; bookkeeping left out."""
    path = prefix.with_name(prefix.name + ".index")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    try:
        rows = list(_rows(data))
        entries = [_entry(key.decode(), value) for key, value in rows if key]
    except (IndexError, UnicodeDecodeError, DecodeError, dtypes.DtypeError) as error:
        raise CheckpointError(f"{path}: damaged, or not the index of a TensorFlow checkpoint") from error
    return {e.key: e for e in entries if e.key != OBJECT_GRAPH}


def data_files(prefix: Path) -> dict[int, Path]:
    """The data files that are there, by shard number."""
    found = {}
    for path in prefix.parent.glob(f"{prefix.name}.data-*-of-*"):
        number = path.name.rpartition(".data-")[2].partition("-of-")[0]
        if number.isdecimal():
            found[int(number)] = path
    return found


def _entry(key: str, value: bytes) -> Entry:
    proto: Any = messages.message("tensorflow.BundleEntryProto").FromString(value)
    shape = tuple(int(dim.size) for dim in proto.shape.dim)
    return Entry(
        key, dtypes.name(proto.dtype), shape, int(proto.size), int(proto.offset), int(proto.shard_id), int(proto.crc32c)
    )


def _rows(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = data[-_FOOTER:]
    if len(footer) < _FOOTER or footer[-8:] != _MAGIC:
        raise IndexError("no footer")
    at = _handle(footer, 0)[1]  # the first handle is the metaindex block's, which is empty
    index, _ = _handle(footer, at)
    for _, value in _block(data, *index):
        place, _ = _handle(value, 0)
        yield from _block(data, *place)


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """A block's offset and size, and where the bytes after it begin."""
    offset, at = from_varint(data, at)
    size, at = from_varint(data, at)
    return (offset, size), at


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + _TRAILER > len(data) or data[offset + size] != 0:
        raise IndexError("a block outside the file, or a compressed one")
    block = data[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")
    end, at, key = size - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = from_varint(block, at)
        rest, at = from_varint(block, at)
        length, at = from_varint(block, at)
        if at + rest + length > end or shared > len(key):
            raise IndexError("an entry outside its block")
        key = key[:shared] + block[at : at + rest]
        yield key, block[at + rest : at + rest + length]
        at += rest + length
