"""The operations that the host runs itself, in Python and numpy, each equal to TensorFlow's on all that it takes.

A row says for which attributes that holds, and makes the function: arrays in, arrays out. Values for which TensorFlow
would raise an error are declined: plain TensorFlow then answers, in its own words. tests/optimizer/test_hostops.py
compares every row with TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer.errors import Declined
from tfopt_optimizer.split.farmhash import fingerprints64
from tfopt_optimizer.split.stored import Reader

Array = np.ndarray
Function = Callable[..., Array]
Attributes = Mapping[str, str]  # names -> text; lists as JSON, types by TensorFlow's name


@dataclasses.dataclass(frozen=True)
class Row:
    """`takes`: whether the attributes are ones that are computed as TensorFlow does. `constant`: the inputs that must
    not come from the request, by position; they are given to `make` instead."""

    make: Callable[[Attributes, Sequence[Array], Reader], Function]
    takes: Callable[[Attributes], bool] = lambda attributes: True
    constant: tuple[int, ...] = ()


def _each(function: Callable[[Any], Any], dtype: Any) -> Function:
    def run(array: Array) -> Array:
        return filled(map(function, array.ravel().tolist()), array.size, dtype).reshape(array.shape)

    return run


def filled(values: Any, count: int, dtype: Any) -> Array:
    """An array of these values. numpy cannot make object arrays from an iterator: it would look into the values."""
    if dtype != np.object_:
        return np.fromiter(values, dtype, count)
    found = np.empty(count, object)
    found[:] = list(values)
    return found


def _lookup(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    table = reader.table(int(attributes["keys"]), int(attributes["values"]), constants[0].item())
    return _each(table.__getitem__, dtypes.to_numpy(attributes["Tout"]))


def _hash(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    return lambda array: hashed([array], [int(attributes["num_buckets"])])[0]


def hashed(arrays: Sequence[Array], buckets: Sequence[int]) -> list[Array]:
    """StringToHashBucketFast of several tensors in one go."""
    found = fingerprints64([text for array in arrays for text in array.ravel().tolist()])
    ends = np.cumsum([array.size for array in arrays])[:-1]
    parts = zip(np.split(found, ends), arrays, buckets, strict=True)
    return [(part % np.uint64(count)).astype(np.int64).reshape(array.shape) for part, array, count in parts]


def _text(function: Callable[[bytes], bytes]) -> Row:
    return Row(lambda a, c, r: _each(function, np.object_), lambda a: a.get("encoding", "") == "")


def _number_text(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    if attributes["T"] == "bool":
        return _each(lambda v: b"true" if v else b"false", np.object_)
    return _each(lambda v: b"%d" % v, np.object_)


_PLAIN_TEXT = {"precision": "-1", "scientific": "false", "shortest": "false", "width": "-1", "fill": ""}
_INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64")


def _plain_text(attributes: Attributes) -> bool:
    return attributes["T"] in _INTEGERS and all(attributes.get(n, v) == v for n, v in _PLAIN_TEXT.items())


def _cast(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    dtype = dtypes.to_numpy(attributes["DstT"])
    return lambda array: array.astype(dtype)


def _casts(attributes: Attributes) -> bool:
    """From whole numbers, and to a wider float: elsewhere overflow and NaN are the processor's choice."""
    from_, to = attributes["SrcT"], attributes["DstT"]
    return (from_ in _INTEGERS and to in (*_INTEGERS, "float", "double")) or (from_, to) == ("float", "double")


def _checked(function: Function) -> Function:
    """Shapes that do not fit are TensorFlow's to complain about."""

    def run(*arrays: Array) -> Array:
        try:
            return function(*arrays)
        except (ValueError, IndexError) as error:
            raise Declined("INVALID_ARGUMENT", f"the host part: {error}") from error

    return run


def _squeeze(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    axes = tuple(json.loads(attributes.get("squeeze_dims", "[]")))
    return _checked(lambda array: np.squeeze(array, axes or None))


def _join(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    separator = attributes.get("separator", "").encode("latin-1")

    def run(*arrays: Array) -> Array:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        if any(a.ndim and a.shape != shape for a in arrays):
            raise Declined("INVALID_ARGUMENT", "the host part: strings to join are of different shapes")
        rows = zip(*(np.broadcast_to(a, shape).ravel().tolist() for a in arrays), strict=True)
        return filled(map(separator.join, rows), int(np.prod(shape)), np.object_).reshape(shape)

    return run


def _shape(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    dtype = dtypes.to_numpy(attributes.get("out_type", "int32"))
    return lambda array: np.array(array.shape, dtype)


def _assert(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    def run(condition: Array, *data: Array) -> Array:
        if not condition.all():
            raise Declined("INVALID_ARGUMENT", "an assertion of the model fails")
        return condition

    return run


def _gather(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    values, axis = constants
    if int(axis) != 0:
        raise ValueError(f"axis {int(axis)}")

    def run(index: Array) -> Array:
        if index.size and (index.min() < 0 or index.max() >= len(values)):
            raise Declined("INVALID_ARGUMENT", f"the host part: an index is not in [0, {len(values)})")
        found: Array = values[index]
        return found

    return run


def _reshape(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    shape = constants[0].tolist()
    return _checked(lambda array: array.reshape(shape))


def _expand(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    axis = int(constants[0].item())
    return _checked(lambda array: np.expand_dims(array, axis))


def _pack(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
    axis = int(attributes.get("axis", "0"))
    return _checked(lambda *arrays: np.stack(arrays, axis))


def _same(attributes: Attributes) -> bool:
    """Broadcasting as numpy's, and no floats: NaN stays with TensorFlow."""
    return attributes["T"] in ("string", *_INTEGERS)


def _compare(equal: bool) -> Row:
    def make(attributes: Attributes, constants: Sequence[Array], reader: Reader) -> Function:
        return _checked(lambda a, b: np.asarray((a == b) if equal else (a != b), bool))

    return Row(make, _same)


def _plain(function: Function) -> Row:
    return Row(lambda attributes, constants, reader: _checked(function))


ROWS: Mapping[str, Row] = {
    "LookupTableFindV2": Row(_lookup, lambda a: "keys" in a and a["Tin"] in ("string", "int32", "int64"), (1,)),
    "StringToHashBucketFast": Row(_hash),
    "StringLower": _text(bytes.lower),
    "StringUpper": _text(bytes.upper),
    "StringStrip": _text(bytes.strip),
    "StringLength": Row(lambda a, c, r: _each(len, np.int32), lambda a: a.get("unit", "BYTE") == "BYTE"),
    "StringJoin": Row(_join),
    "AsString": Row(_number_text, _plain_text),
    "Cast": Row(_cast, _casts),
    "Identity": _plain(lambda array: array),
    "Shape": Row(_shape),
    "Squeeze": Row(_squeeze),
    "Reshape": Row(_reshape, constant=(1,)),
    "ExpandDims": Row(_expand, constant=(1,)),
    "Pack": Row(_pack),
    "Equal": _compare(True),
    "NotEqual": _compare(False),
    "LogicalNot": _plain(np.logical_not),
    "LogicalAnd": _plain(np.logical_and),
    "LogicalOr": _plain(np.logical_or),
    "SelectV2": _plain(np.where),
    "GatherV2": Row(_gather, lambda a: a.get("batch_dims", "0") == "0", (0, 2)),
    "Assert": Row(_assert),
}


HASHES = frozenset({"StringToHashBucketFast", "StringToHashBucketStrong", "StringToHashBucket"})


def refusal(op: str, attributes: Attributes) -> str:
    """Why the host cannot run an operation without TensorFlow, "" when it can."""
    row = ROWS.get(op)
    if row is None:
        return f"{op} runs in TensorFlow alone"
    return "" if row.takes(attributes) else f"{op} with these attributes runs in TensorFlow alone"
