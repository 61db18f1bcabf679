""".npy files as request bodies and answers: one tensor without any text between. Pure.

    array(b"\\x93NUMPY...", TensorInfo("x", "float", (None, 3)))      float32 [2, 3], a view of the body
    written(float32[2])                                              b"\\x93NUMPY..."

Format: numpy's NEP 1. Dtypes are never converted, as on gRPC; byte order and Fortran order are. Nothing is unpickled.
"""

from __future__ import annotations

import functools
import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from tfopt_optimizer.plan import TensorInfo
from tfopt_protos import dtypes

from tfopt_server.errors import ServingError, invalid

Array = npt.NDArray[Any]

MAGIC = b"\x93NUMPY"
# numpy's own limit; a header is Python text that has to be parsed.
_HEADER_LIMIT = 10_000


def array(body: bytes, wanted: TensorInfo) -> Array:
    """The array for the input `wanted`. INVALID_ARGUMENT says what is no .npy file, or another dtype."""
    shape, fortran, dtype, start = _header(body)
    if dtype.hasobject or dtype.names is not None or not dtype.itemsize:  # values of no bytes could be any number
        raise _refused(f"expected numbers, booleans or fixed-length strings, received dtype {dtype}")
    count = math.prod(shape)
    if len(body) - start != count * dtype.itemsize:
        raise _refused(f"expected {count * dtype.itemsize} bytes of data, received {len(body) - start}")
    found = np.frombuffer(body, dtype, count, start).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(_typed(found, wanted)).reshape(shape)


def at_once(body: bytes) -> bool:
    """Whether the file is read in no time, however long it is: numbers that lie in it as they do in memory."""
    try:
        _, fortran, dtype, _ = _header(body)
    except ServingError:
        return True
    return dtype.kind not in "SU" and dtype.isnative and not fortran


def _header(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and where the data begins."""
    wide = body[6:7] > b"\x01"  # from version 2 on, the header's length has four bytes
    start = 12 + int.from_bytes(body[8:12], "little") if wide else 10 + int.from_bytes(body[8:10], "little")
    return _read_header(body[: min(start, _HEADER_LIMIT + 16)])


@functools.lru_cache(maxsize=256)
def _read_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """A header is Python text: reading it costs ten times what the rest of a small file does, and clients send the same
    ones again and again."""
    file = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(file)
        # Version 3 differs from 2 in the encoding of field names alone, and there are none here.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=_HEADER_LIMIT)
    except Exception as error:  # numpy evaluates the header: any kind of error may come out of it
        raise _refused(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if any(size < 0 for size in shape):
        raise _refused(f"shape {shape} has a negative size")
    return shape, fortran, dtype, file.tell()


def _typed(found: Array, wanted: TensorInfo) -> Array:
    """As the input's own dtype. Strings are decoded from numpy's fixed-length ones; numpy has no name for bfloat16 and
    its like, and writes them as bytes of that length."""
    if wanted.dtype == "string" and found.dtype.kind in "SU":
        texts = np.empty(found.size, object)
        texts[:] = [t if isinstance(t, bytes) else t.encode() for t in found.ravel().tolist()]
        return texts.reshape(found.shape)
    try:
        declared = dtypes.to_numpy(wanted.dtype)
    except dtypes.DtypeError:
        raise _refused(f"input {wanted.name!r} is of type {wanted.dtype}, which no .npy file can hold") from None
    if found.dtype.kind == "V" and found.dtype.itemsize == declared.itemsize and declared.kind == "V":
        return found.view(declared)
    native = found.dtype.newbyteorder("=")
    if native != declared:
        raise _refused(f"input {wanted.name!r} expects {wanted.dtype}, received {_name(native)}")
    return found.astype(native, copy=False)


def _name(dtype: np.dtype[Any]) -> str:
    try:
        return str(dtypes.from_numpy(dtype))
    except dtypes.DtypeError:
        return str(dtype)


def written(found: Array) -> bytes:
    """The array as an .npy file; strings as numpy's fixed-length bytes."""
    if found.dtype == object:
        # numpy's bytes end before trailing zeros: such values would come back shorter.
        if any(value.endswith(b"\0") for value in found.ravel()):
            raise invalid("An .npy file cannot hold strings that end with a zero byte; ask for application/x-protobuf")
        found = found.astype("S") if found.size else found.astype("S1")
    return _written_header(found.dtype, found.shape) + found.tobytes()


@functools.lru_cache(maxsize=256)
def _written_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _refused(reason: str) -> ServingError:
    return invalid(f"The request body is no .npy file for this signature: {reason}")
