"""The JSON documents of the protocol's infer requests and answers, with the binary tensors behind them. Pure.

A request is read in two steps, because what is right depends on the model: `Asked.read` needs no signature, its `feeds`
does. Values may be nested or flat; JSON numbers must fit their datatype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from tfopt_server.errors import invalid
from tfopt_server.oip import datatypes, model
from tfopt_server.oip.datatypes import BYTES

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo

Array = npt.NDArray[Any]

BINARY_SIZE = "binary_data_size"
# What numbers JSON may hold for a datatype, as numpy's kinds.
_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "V": "iuf"}
_NUMBERS: frozenset[type] = frozenset({int, float})
_FITS: dict[str, frozenset[type]] = {"b": frozenset({bool}), "i": frozenset({int}), "u": frozenset({int})}
_DEEPEST = 64  # numpy's own limit


class Asked(NamedTuple):
    """A request before its model is known. `binary`: what stands behind the JSON. `inputs` and `outputs` as sent."""

    id: str | None
    parameters: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    binary: memoryview

    @classmethod
    def read(cls, document: Any, binary: memoryview) -> Asked:
        if type(document) is not dict:
            raise invalid(f"expected the request to be an object, received {_kind(document)}")
        name = document.get("id")
        if name is not None and type(name) is not str:
            raise invalid(f"id: expected a string, received {_kind(name)}")
        if "inputs" not in document:
            raise invalid("inputs: expected an array of tensors, received nothing")
        return cls(
            name, _object(document, "parameters", "parameters"), _objects(document, "inputs"),
            _objects(document, "outputs"), binary,
        )  # fmt: skip

    def feeds(self, signature: SignatureInfo) -> dict[str, Array]:
        """The arrays by name, in the order that they were sent in."""
        found: dict[str, Array] = {}
        at = 0
        for sent in self.inputs:
            name = sent.get("name")
            wanted = model.input_of(signature, name)
            if wanted.name in found:
                raise invalid(f"inputs: expected each name once; received {name!r} again")
            datatype = sent.get("datatype")
            datatypes.check(wanted.name, datatype, wanted.dtype)
            shape = datatypes.shape_of(wanted.name, sent.get("shape"))
            parameters = _object(sent, "parameters", f"input {name!r}: parameters")
            model.refuse_extensions(parameters, f"input {name!r}")
            if BINARY_SIZE in parameters:
                end = at + _size(parameters[BINARY_SIZE], name)
                if end > len(self.binary):
                    raise invalid(
                        f"input {name!r}: {BINARY_SIZE} says {end - at} bytes, and {len(self.binary) - at} are left "
                        "behind the JSON"
                    )
                found[wanted.name] = datatypes.array(self.binary[at:end], str(datatype), shape, wanted.name)
                at = end
            elif "data" in sent:
                found[wanted.name] = from_json(sent["data"], str(datatype), shape, wanted.name)
            else:
                raise invalid(f"input {name!r}: expected data, or {BINARY_SIZE} in its parameters; received neither")
        if at != len(self.binary):
            raise invalid(f"{len(self.binary) - at} bytes behind the JSON belong to no input")
        return found

    def wanted(self, signature: SignatureInfo) -> tuple[str, ...] | None:
        for each in self.outputs:
            model.refuse_extensions(_object(each, "parameters", "outputs: parameters"), f"output {each.get('name')!r}")
        return model.outputs([_name(each) for each in self.outputs], signature)

    def binary_outputs(self, names: Sequence[str]) -> frozenset[str]:
        """Which of the outputs `names` are to be answered as bytes."""
        every = _flag(self.parameters, "binary_data_output", "parameters")
        told = {
            _name(each): _flag(parameters, "binary_data", f"output {each['name']!r}: parameters")
            for each in self.outputs
            if "binary_data" in (parameters := _object(each, "parameters", "outputs: parameters"))
        }
        return frozenset(name for name in names if told.get(name, every))


def from_json(data: Any, datatype: str, shape: tuple[int, ...], tensor: str) -> Array:
    """The tensor of JSON values, nested as `shape` says, or flat, or anything between."""
    values = data if type(data) is list else [data]
    count = math.prod(shape)
    if datatype == BYTES:
        flat = datatypes.objects([_text(value, tensor) for value in _flattened(values, tensor)])
    else:
        flat = _numbers(values, datatype, tensor)
    if flat.size != count:
        raise invalid(f"input {tensor!r}: expected {count} values for shape {list(shape)}, received {flat.size}")
    return flat.reshape(shape)


def _numbers(values: list[Any], datatype: str, tensor: str) -> Array:
    dtype = datatypes.numpy_of(datatype)
    try:
        found = np.array(values)
    except (ValueError, OverflowError):
        raise invalid(f"input {tensor!r}: expected data in arrays of equal lengths, received ragged ones") from None
    if not found.size:
        return found.astype(dtype)
    if found.dtype.kind not in _KINDS[dtype.kind] or (dtype.kind != "b" and _has_booleans(values)):
        # Among them integers beyond 64 bits, or beyond 63 beside negative or smaller ones: numpy makes floats of those.
        found = np.array(values, object)
        fits = _FITS.get(dtype.kind, _NUMBERS)
        other = next((value for value in found.ravel().tolist() if type(value) not in fits), None)
        if other is not None or None in found.ravel().tolist():
            wanted = {"b": "booleans", "i": "integers", "u": "integers"}.get(dtype.kind, "numbers")
            raise invalid(
                f"input {tensor!r}: expected {wanted} for {datatype}, received {_kind(other)} {str(other)[:40]!r}"
            )
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise invalid(
                f"input {tensor!r}: expected integers from {limits.min} to {limits.max} for {datatype}, received "
                f"{found.min() if int(found.min()) < limits.min else found.max()}"
            )
    try:
        with np.errstate(over="ignore"):  # a double beyond float32 is an infinity, as everywhere else
            # Through float64, because bfloat16 and its like are not made of Python's numbers.
            return (found.astype(np.float64) if dtype.kind in "fV" else found).astype(dtype)
    except OverflowError:
        raise invalid(f"input {tensor!r}: expected numbers for {datatype}, received an integer beyond them") from None


def _has_booleans(values: Any) -> bool:
    """numpy takes true among numbers for 1."""
    if type(values) is list:
        return bool in set(map(type, values)) or (type(values[0]) is list and any(map(_has_booleans, values)))
    return False


def _flattened(values: list[Any], tensor: str, depth: int = 0) -> list[Any]:
    if depth > _DEEPEST:
        raise invalid(f"input {tensor!r}: expected data of at most {_DEEPEST} dimensions")
    if not any(type(value) is list for value in values):
        return values
    found: list[Any] = []
    for value in values:
        found += _flattened(value, tensor, depth + 1) if type(value) is list else [value]
    return found


def _text(value: Any, tensor: str) -> bytes:
    if type(value) is not str:
        raise invalid(f"input {tensor!r}: expected strings for BYTES, received {_kind(value)} {str(value)[:40]!r}")
    return value.encode("utf-8", "surrogateescape")


class Written(NamedTuple):
    """An answer. `json_length`: where the binary tensors begin, None without any."""

    body: bytes
    json_length: int | None


def answer(
    name: str, version: int, asked: Asked, arrays: Mapping[str, Array], signature_outputs: Sequence[str]
) -> Written:
    """`signature_outputs`: names in the order in which the answer has them."""
    binary = asked.binary_outputs(signature_outputs)
    entries: list[bytes] = []
    behind: list[bytes] = []
    for output in signature_outputs:
        array = arrays[output]
        entry: dict[str, Any] = {
            "name": output, "datatype": datatypes.name_of(array), "shape": list(array.shape),
        }  # fmt: skip
        if output in binary:
            behind.append(datatypes.raw(array))
            entry["parameters"] = {BINARY_SIZE: len(behind[-1])}
            entries.append(orjson.dumps(entry))
        else:
            entries.append(orjson.dumps(entry)[:-1] + b',"data":' + _values(array, output) + b"}")
    head: dict[str, Any] = {"model_name": name, "model_version": str(version)}
    if asked.id:
        head["id"] = asked.id
    text = orjson.dumps(head)[:-1] + b',"outputs":[' + b",".join(entries) + b"]}"
    if not behind:
        return Written(text, None)
    return Written(b"".join((text, *behind)), len(text))


def _values(array: Array, name: str) -> bytes:
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == object:
        try:
            return orjson.dumps([value.decode() for value in flat.tolist()])
        except UnicodeDecodeError:
            raise invalid(
                f"output {name!r} holds bytes that are no UTF-8 text; ask for it with binary_data: true"
            ) from None
    if flat.dtype.kind == "c":
        raise invalid(f"output {name!r} is of type {flat.dtype}, which the Open Inference Protocol cannot carry")
    if flat.dtype.kind == "V":  # bfloat16 and its like
        flat = flat.astype(np.float32)
    written = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
    if flat.dtype.kind != "f" or np.isfinite(flat).all():
        return written
    # orjson has no words for these; clients of this protocol read them as Python's json does.
    words = written[1:-1].split(b",")
    for at in np.flatnonzero(~np.isfinite(flat)).tolist():
        words[at] = b"NaN" if math.isnan(flat[at]) else b"Infinity" if flat[at] > 0 else b"-Infinity"
    return b"[" + b",".join(words) + b"]"


def _objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key, [])
    if type(found) is not list or not all(type(each) is dict for each in found):
        raise invalid(f"{key}: expected an array of objects, received {_kind(found)}")
    return found


def _object(document: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    found = document.get(key)
    if found is None:
        return {}
    if type(found) is not dict:
        raise invalid(f"{where}: expected an object, received {_kind(found)}")
    return found


def _name(output: Mapping[str, Any]) -> str:
    name = output.get("name")
    if type(name) is not str:
        raise invalid(f"outputs: expected a name as a string, received {_kind(name)}")
    return name


def _flag(parameters: Mapping[str, Any], key: str, where: str) -> bool:
    value = parameters.get(key, False)
    if type(value) is not bool:
        raise invalid(f"{where}.{key}: expected true or false, received {_kind(value)}")
    return value


def _size(value: Any, tensor: Any) -> int:
    if type(value) is not int or value < 0:
        raise invalid(f"input {tensor!r}: {BINARY_SIZE}: expected a number of bytes, received {str(value)[:40]!r}")
    return value


def _kind(value: Any) -> str:
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value), "null")
