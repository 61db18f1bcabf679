"""JSON documents <-> feeds and outputs of predict, as TensorFlow Serving's util/json_tensor.cc does it. Pure.

    Request.read(b'{"instances": [[1, 2]]}')                  the document and its signature_name
    feeds(request, signature)                                 {"x": float32[1, 2]}, Layout.ROWS
    answer({"y": float32[1, 3]}, layout)                      b'{"predictions":[[0.1,0.2,0.7]]}'

Rules: every error is INVALID_ARGUMENT (UNIMPLEMENTED for a dtype that JSON cannot express, in columns) with TensorFlow
Serving's text. Numbers in answers are the shortest that read back as the same float32 or float64; TensorFlow Serving
prints 6 or 9 digits of the same value. NaN, Infinity and -Infinity are bare tokens both ways.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson
from tfopt_optimizer.plan import SignatureInfo

from tfopt_server import rows
from tfopt_server.errors import invalid
from tfopt_server.rest import parameters, walk
from tfopt_server.rest.parse import parse
from tfopt_server.rest.text import quoted
from tfopt_server.rest.values import Array, is_base64_object, to_array

DEFAULT_SIGNATURE = "serving_default"

_BYTES_SUFFIX = "_bytes"  # outputs with such names hold binary data
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_NULL = re.compile(b"null")
_WRITABLE = frozenset(np.dtype(t).char for t in (
    np.float32, np.float64, np.int32, np.int16, np.int8, np.uint8, np.int64, np.uint32, np.uint64, np.bool_,
    np.longlong, np.ulonglong,  # what ONNX Runtime makes of 64 bits: equal to the others, with a letter of their own
))  # fmt: skip
_NAMES = {"float16": "half"}  # numpy's name of a dtype -> TensorFlow's, where they differ


class Layout(enum.Enum):
    """How a request spelled its tensors, and the key of the answer's tensors."""

    ROWS = "predictions"
    COLUMNS = "outputs"


class Request(NamedTuple):
    """A predict document that is an object. `signature_name` is the client's word, "" without one; `signature` is never
    empty. `parameters` is None where the route does not look at them."""

    document: dict[str, Any]
    signature_name: str
    signature: str
    parameters: dict[str, Any] | None = None

    @classmethod
    def read(cls, body: bytes, in_parameters: bool = False) -> Request:
        """Parses `body`. `in_parameters`: signature_name, and inputs that are the same for all rows, may stand inside
        `parameters` too (Vertex AI's :predict passes nothing else on)."""
        document = parse(body)
        if type(document) is not dict:
            raise invalid(f"JSON Value: {quoted(document)} Is not object")
        where, given = document, None
        if in_parameters and type(document.get("parameters")) is dict:
            given = document["parameters"]
            where = document if "signature_name" in document else given
        name = where.get("signature_name", "")
        if type(name) is not str:
            raise invalid(
                f"JSON Value: {quoted(document)} not formatted correctly. 'signature_name' key must be a string value."
            )
        return cls(document, name, name or DEFAULT_SIGNATURE, given)


def feeds(request: Request, signature: SignatureInfo) -> tuple[dict[str, Array], Layout]:
    """The tensors of a predict document: [N] + shape per input from rows, any shapes from columns."""
    document = request.document
    if request.parameters:
        given, signature = parameters.split(request.parameters, document, signature)
        if given:
            found, layout = feeds(request._replace(parameters=None), signature)
            return found | parameters.feeds(request.parameters, given, rows.common(found)), layout
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {request.signature_name or 'DEFAULT'}")
    if "instances" in document:
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {quoted(document)} Not formatted correctly expecting only one of 'inputs' or 'instances'"
                " keys to exist "
            )
        return _rows(document, signature), Layout.ROWS
    if "inputs" in document:
        return _columns(document["inputs"], signature), Layout.COLUMNS
    raise invalid("Missing 'inputs' or 'instances' key")


def _rows(document: dict[str, Any], signature: SignatureInfo) -> dict[str, Array]:
    instances = document["instances"]
    if type(instances) is not list:
        raise invalid(f"JSON Value: {quoted(document)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {quoted(document)} No values in 'instances' array")
    inputs = signature.inputs
    if type(instances[0]) is dict and walk.is_row_object(instances[0]):
        fed = _gathered(instances, signature)
    elif len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    else:
        array = to_array(instances, inputs[0].dtype)
        fed = None if array is None else {inputs[0].name: array}
    if fed is None:
        raise walk.explain_rows(instances, {i.name: i.dtype for i in inputs})
    return fed


def _gathered(rows: list[Any], signature: SignatureInfo) -> dict[str, Array] | None:
    """One tensor per input from row objects; None when a row is no object, lacks an input or has others."""
    inputs = signature.inputs
    width = len(inputs)
    if not all(type(row) is dict and len(row) == width for row in rows):
        return None
    found = {}
    for i in inputs:
        try:
            array = to_array([row[i.name] for row in rows], i.dtype)
        except KeyError:
            return None
        if array is None:
            return None
        found[i.name] = array
    return found


def _columns(value: Any, signature: SignatureInfo) -> dict[str, Array]:
    inputs = signature.inputs
    if type(value) is not dict or is_base64_object(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        value = {inputs[0].name: value}
    fed = {}
    for i in inputs:
        if i.name not in value:
            raise invalid(f"Missing named input: {i.name} in 'inputs' object.")
        array = to_array(value[i.name], i.dtype)
        if array is None:
            raise walk.explain_column(value[i.name], i.name, {i.name: i.dtype})
        fed[i.name] = array
    return fed


def answer(outputs: Mapping[str, Array], layout: Layout) -> bytes:
    """The JSON answer of predict. One output stands alone, several become objects by name."""
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if layout is Layout.ROWS:
        return b'{"predictions":' + _predictions(outputs) + b"}"
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return b'{"outputs":' + _tensor(name, array) + b"}"
    return b'{"outputs":' + _object({name: _tensor(name, array) for name, array in outputs.items()}) + b"}"


def _predictions(outputs: Mapping[str, Array]) -> bytes:
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        if array.ndim:
            return _tensor(name, array)
    rows = _rows_of(outputs)
    if not _needs_care(outputs.values()):
        columns = [_python(name, a) if a.dtype == object else a for name, a in outputs.items()]
        objects = [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]
        with contextlib.suppress(TypeError):  # a string that is not UTF-8: written piece by piece
            return orjson.dumps(objects, option=_NUMPY)
    pieces = ({name: _tensor(name, array[i, ...]) for name, array in outputs.items()} for i in range(rows))
    return b"[" + b",".join(map(_object, pieces)) + b"]"


def _rows_of(outputs: Mapping[str, Array]) -> int:
    """The first dimension that every output must have, and share, to be told apart by row."""
    rows: int | None = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows is not None and rows != len(array):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}")
        rows = len(array)
    return rows or 0


def _needs_care(arrays: Iterable[Array]) -> bool:
    """Whether an array holds what orjson does not write as TensorFlow Serving does: non-finite, odd dtype or layout."""
    return any(
        a.dtype != object and (a.dtype.char not in _WRITABLE or not np.isfinite(a).all() or not a.flags.c_contiguous)
        for a in arrays
    )


def _object(texts: Mapping[str, bytes]) -> bytes:
    return b"{" + b",".join(orjson.dumps(name) + b":" + text for name, text in texts.items()) + b"}"


def _tensor(name: str, array: Array) -> bytes:
    """A whole tensor as JSON; rank 0 is a bare value."""
    if array.dtype.char in _WRITABLE:
        if not array.ndim:
            return _tensor(name, array.reshape(1))[1:-1]
        text = orjson.dumps(array if array.flags.c_contiguous else np.ascontiguousarray(array), option=_NUMPY)
        return _with_tokens(text, array) if b"null" in text else text
    if array.dtype == object:
        return strings(_python(name, array))
    if array.size:
        tensor_type = _NAMES.get(array.dtype.name, array.dtype.name)
        raise invalid(f"Failed to write JSON value for tensor type: {tensor_type}")
    return orjson.dumps(array.tolist())


def numbers(array: Array) -> list[bytes]:
    """A vector of numbers, each as an answer spells it."""
    return _tensor("", array)[1:-1].split(b",") if array.size else []


def _with_tokens(text: bytes, array: Array) -> bytes:
    """orjson writes every non-finite number as null, and nothing else: TensorFlow Serving's tokens there, in order."""
    flat = array.ravel()
    tokens = iter([_token(x) for x in flat[~np.isfinite(flat)]])
    return _NULL.sub(lambda _: next(tokens), text)


def _token(value: Any) -> bytes:
    if np.isnan(value):
        return b"NaN"
    return b"Infinity" if value > 0 else b"-Infinity"


def _python(name: str, array: Array) -> Any:
    """A string tensor as nested lists of what JSON writes: text, or a b64 object for names that end in _bytes."""
    flat = array.ravel()
    written = np.empty(flat.size, object)
    if name.endswith(_BYTES_SUFFIX):
        for i, value in enumerate(flat):
            written[i] = {"b64": base64.b64encode(value).decode()}
    else:
        written[:] = [value.decode("utf-8", "surrogateescape") for value in flat]
    return written.reshape(array.shape).tolist()


def strings(value: Any) -> bytes:
    """Text, or nested lists of it, as JSON; bytes that are not UTF-8 stand in it as surrogate escapes."""
    try:
        return orjson.dumps(value)
    except TypeError:  # bytes that are not UTF-8 go out as they are
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")
