"""The element types: TensorFlow's enum number <-> name <-> numpy dtype.

A name is the enum's without `DT_`, in lower case ("float", "int64", "string", "bfloat16"). Strings are numpy object
arrays of `bytes`. The types that numpy lacks come from ml_dtypes, imported when one of them is first asked for.
Resources, variants and quantized types have no numpy dtype here.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

NUMBERS: dict[str, int] = {
    "float": 1,
    "double": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "string": 7,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "qint8": 11,
    "quint8": 12,
    "qint32": 13,
    "bfloat16": 14,
    "qint16": 15,
    "quint16": 16,
    "uint16": 17,
    "complex128": 18,
    "half": 19,
    "resource": 20,
    "variant": 21,
    "uint32": 22,
    "uint64": 23,
    "float8_e5m2": 24,
    "float8_e4m3fn": 25,
    "float8_e4m3fnuz": 26,
    "float8_e4m3b11fnuz": 27,
    "float8_e5m2fnuz": 28,
    "int4": 29,
    "uint4": 30,
    "int2": 31,
    "uint2": 32,
    "float4_e2m1fn": 33,
}
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()}

_REF = 100  # DT_FLOAT_REF is DT_FLOAT + 100: the output of a TF1 variable
_SAME = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128")
_NUMPY = {"float": "float32", "double": "float64", "half": "float16", "string": "object"} | {n: n for n in _SAME}
_FROM_NUMPY = {numpy_name: dtype_name for dtype_name, numpy_name in _NUMPY.items()}
_NO_ARRAY = frozenset({"qint8", "quint8", "qint32", "qint16", "quint16", "resource", "variant"})


class DtypeError(ValueError):
    """A type that TensorFlow, or numpy, does not have; the text names it."""


def name(number: int) -> str:
    """Enum number to name; reference types (101 and up) give the name of what they refer to."""
    found = NAMES.get(number - _REF if number > _REF else number)
    if found is None:
        raise DtypeError(f"unknown TensorFlow data type number {number}")
    return found


def number(dtype_name: str) -> int:
    found = NUMBERS.get(dtype_name)
    if found is None:
        raise DtypeError(f"unknown TensorFlow data type {dtype_name!r}")
    return found


@functools.cache
def to_numpy(dtype_name: str) -> np.dtype[Any]:
    """Name to numpy dtype; "string" is object."""
    number(dtype_name)
    if dtype_name in _NO_ARRAY:
        raise DtypeError(f"data type {dtype_name} has no numpy array")
    scalar: Any = _NUMPY.get(dtype_name) or getattr(importlib.import_module("ml_dtypes"), dtype_name, None)
    if scalar is None:
        raise DtypeError(f"the installed ml_dtypes does not know {dtype_name}")
    found: np.dtype[Any] = np.dtype(scalar)
    return found


@functools.cache
def from_numpy(dtype: np.dtype[Any]) -> str:
    """numpy dtype to name, any byte order; object, bytes and str dtypes are "string"."""
    if dtype.kind in "OSU":
        return "string"
    plain = dtype.newbyteorder("=").name
    found = _FROM_NUMPY.get(plain, plain)
    if found not in NUMBERS or to_numpy(found).name != plain:
        raise DtypeError(f"numpy dtype {dtype} has no TensorFlow data type")
    return found
