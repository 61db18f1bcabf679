"""The protocol's datatypes and the bytes of its binary tensors. Pure.

    name("float")                                   "FP32"
    array(b"\\x00\\x00\\x80?", "FP32", (1,))          float32 [1], a view of the bytes
    raw(np.array([b"ab"], object))                  b"\\x02\\x00\\x00\\x00ab"

Numbers are little-endian in C order. BYTES elements each follow their length, four bytes little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tfopt_protos import dtypes

from tfopt_server.errors import invalid

Array = npt.NDArray[Any]

BYTES = "BYTES"
_BY_DTYPE = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "half": "FP16",
    "bfloat16": "BF16",
    "float": "FP32",
    "double": "FP64",
    "string": BYTES,
}
DATATYPES = {datatype: dtype for dtype, datatype in _BY_DTYPE.items()}
_LENGTH = struct.Struct("<I")


def name(dtype: str) -> str:
    """The protocol's name of a TensorFlow dtype; one that it lacks (complex64, say) keeps TensorFlow's in capitals."""
    return _BY_DTYPE.get(dtype, dtype.upper())


def name_of(array: Array) -> str:
    return name(dtypes.from_numpy(array.dtype))


def numpy_of(datatype: str) -> np.dtype[Any]:
    return dtypes.to_numpy(DATATYPES[datatype])


def check(tensor: str, datatype: Any, declared: str) -> None:
    """INVALID_ARGUMENT unless `datatype` is that of the TensorFlow dtype `declared`: nothing is converted."""
    expected = name(declared)
    if datatype != expected:
        raise invalid(f"input {tensor!r}: expected datatype {expected}, received {_shown(datatype)}")
    if expected not in DATATYPES:
        raise invalid(f"input {tensor!r} is of type {declared}, which the Open Inference Protocol cannot carry")


def shape_of(tensor: str, sent: Any) -> tuple[int, ...]:
    """The shape that a request gives."""
    if isinstance(sent, str | bytes) or not isinstance(sent, Sequence):
        raise invalid(f"input {tensor!r}: expected shape as an array of integers, received {_shown(sent)}")
    shape = tuple(sent)
    if not all(type(size) is int and size >= 0 for size in shape):
        raise invalid(f"input {tensor!r}: expected a shape of integers >= 0, received {_shown(list(shape))}")
    return shape


def array(data: bytes | memoryview, datatype: str, shape: tuple[int, ...], tensor: str = "") -> Array:
    """The tensor of binary `data`; numbers share its memory."""
    count = math.prod(shape)
    if datatype == BYTES:
        return _strings(bytes(data), count, tensor).reshape(shape)
    dtype = numpy_of(datatype)
    if len(data) != count * dtype.itemsize:
        raise invalid(
            f"input {tensor!r}: expected {count * dtype.itemsize} bytes for shape {list(shape)} of {datatype}, "
            f"received {len(data)}"
        )
    return np.frombuffer(data, dtype).reshape(shape) if count else np.zeros(shape, dtype)


def _strings(data: bytes, count: int, tensor: str) -> Array:
    found: list[bytes] = []
    at, end = 0, len(data)
    while at + _LENGTH.size <= end and len(found) < count:
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + size > end:
            raise invalid(f"input {tensor!r}: element {len(found)} has {size} bytes, and {end - at} are left")
        found.append(data[at : at + size])
        at += size
    if len(found) != count or at != end:
        raise invalid(
            f"input {tensor!r}: expected {count} BYTES elements, each behind its length, received {len(found)} and "
            f"{end - at} more bytes"
        )
    return objects(found)


def objects(values: Sequence[bytes]) -> Array:
    made = np.empty(len(values), object)
    made[:] = values
    return made


def raw(array: Array) -> bytes:
    """The tensor as the protocol's bytes."""
    if array.dtype == object:
        return b"".join(_LENGTH.pack(len(value)) + value for value in array.ravel().tolist())
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array.tobytes()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
