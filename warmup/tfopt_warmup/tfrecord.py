"""TFRecord files, byte for byte as tensorflow/core/lib/io/record_{reader,writer}.cc, without TensorFlow.

A record is: length (uint64, little endian), masked crc32c of those 8 bytes, the data, masked crc32c of the data.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

_HEADER = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8  # crc32c.h: a crc over data that holds its own crc is weak, so stored ones are masked


class CorruptError(ValueError):
    """The file is no TFRecord file, damaged or cut; the text is TensorFlow's, with the offset in bytes."""


def read(path: Path) -> Iterator[bytes]:
    """The records in order. As in TensorFlow a rest shorter than a header counts as the end, not as damage."""
    with path.open("rb") as file:
        size, offset = os.fstat(file.fileno()).st_size, 0
        while (data := _read_one(file, offset, size)) is not None:
            yield data
            offset = file.tell()


def write(path: Path, records: Iterable[bytes]) -> None:
    """Writes the file whole or not at all: a server may be about to read it."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            for data in records:
                length = _LENGTH.pack(len(data))
                file.write(length + _CRC.pack(_masked_crc(length)) + data + _CRC.pack(_masked_crc(data)))
        part.replace(path)
    except BaseException:  # a full disk, or records that cannot be made: nothing half done is left to fill it
        part.unlink(missing_ok=True)
        raise


def _read_one(file: BinaryIO, offset: int, size: int) -> bytes | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    length, crc = _HEADER.unpack(header)
    if crc != _masked_crc(header[: _LENGTH.size]):
        hint = " (Is this even a TFRecord file?)" if offset == 0 else ""
        raise CorruptError(f"corrupted record at {offset}{hint}")
    if length > size - offset - _HEADER.size - _CRC.size:  # before reading: the length may be anything
        raise CorruptError(f"truncated record at {offset}")
    data = file.read(length)
    if _CRC.unpack(file.read(_CRC.size))[0] != _masked_crc(data):
        raise CorruptError(f"corrupted record at {offset + _HEADER.size}")
    return data


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
