"""The document of a classify or regress request -> serialized tf.Examples, and its answer. Pure.

    Request.read(b'{"examples": [{"x": 1.0}], "context": {"y": 2}}')
    answer(Regressed(float32[2]))                                        b'{"results":[0.1,2.0]}'

Sources: FillClassifyRegressRequestFromJson and MakeJsonFrom...Result in TensorFlow Serving's util/json_tensor.cc. The
spelling of a number decides its feature's kind: 2 is an int64, 2.0 a float.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import orjson
from tfopt_protos import messages

from tfopt_server.errors import invalid
from tfopt_server.inference import Answer, Array, Regressed
from tfopt_server.rest import codec
from tfopt_server.rest.parse import parse
from tfopt_server.rest.text import kind, quoted
from tfopt_server.rest.values import from_base64_object, is_base64_object

_INT64 = range(-(2**63), 2**63)
_UINT64_MAX = 2**64 - 1
_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}  # as error texts call them


class Request(NamedTuple):
    """`examples`: [n] bytes, the context's features in front of each one's own, which therefore win."""

    signature_name: str
    examples: Array

    @classmethod
    def read(cls, body: bytes) -> Request:
        """Parses `body`. INVALID_ARGUMENT with TensorFlow Serving's text for the first thing that is wrong."""
        document = parse(body)
        if type(document) is not dict:
            raise invalid(f"JSON Value: {quoted(document)} Is not object")
        name = document.get("signature_name", "")
        if type(name) is not str:
            raise invalid(
                f"JSON Value: {quoted(document)} not formatted correctly. 'signature_name' key must be a string value."
            )
        context = serialized(document["context"]) if "context" in document else b""
        examples = [context + serialized(example) for example in _examples(document)]
        array = np.empty(len(examples), object)
        array[:] = examples
        return cls(name, array)


def _examples(document: dict[str, Any]) -> list[Any]:
    if "examples" not in document:
        # "classify" for regress as well: TensorFlow Serving has one text for both.
        raise invalid(
            f"JSON Value: {quoted(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if type(examples) is not list:
        raise invalid(f"JSON Value: {quoted(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {quoted(document)} 'examples' value is an empty array")
    return examples


def serialized(value: Any) -> bytes:
    """The bytes of a tf.Example with the features that a JSON object names: a value each, or a list of them."""
    if type(value) is not dict:
        raise invalid(f"Example must be JSON object but got JSON {kind(value)}")
    example = messages.message("tensorflow.Example")()
    features = example.features.feature
    for name, content in value.items():
        feature = features[name]  # an empty list leaves a feature without kind
        for each in content if type(content) is list else (content,):
            _add(each, name, feature)
    return bytes(example.SerializeToString())


def _add(value: Any, name: str, feature: Any) -> None:
    field, converted = _converted(value, name)
    present = feature.WhichOneof("kind")
    if present not in (None, field):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}")
    getattr(feature, field).value.append(converted)


def _converted(value: Any, name: str) -> tuple[str, Any]:
    """The list of a Feature that a JSON value belongs to, and the value as that list holds it."""
    if type(value) is bool:
        return "int64_list", int(value)
    if type(value) is str:
        return "bytes_list", value.encode("utf-8", "surrogatepass")
    if is_base64_object(value):
        decoded = from_base64_object(value)
        if decoded is None:
            raise invalid("Unable to base64 decode")
        return "bytes_list", decoded
    if type(value) is int and value in _INT64:
        return "int64_list", value
    if type(value) is int and 0 <= value <= _UINT64_MAX:
        raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if type(value) in (int, float):
        with np.errstate(over="ignore"):
            return "float_list", float(np.float32(value))
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {kind(value)}")


def answer(found: Answer) -> bytes:
    """`{"results": [v, ...]}`, or with a list of [label, score] per example; "" and 0.0 where the model has none."""
    if isinstance(found, Regressed):
        return b'{"results":[' + b",".join(codec.numbers(found.values)) + b"]}"
    rows, width = found.shape
    labels = [b'""'] * (rows * width) if found.labels is None else [_label(x) for x in found.labels.ravel()]
    scores = [b"0.0"] * (rows * width) if found.scores is None else codec.numbers(found.scores.ravel())
    pairs = [b"[" + label + b"," + score + b"]" for label, score in zip(labels, scores, strict=True)]
    lists = (b"[" + b",".join(pairs[i * width : (i + 1) * width]) + b"]" for i in range(rows))
    return b'{"results":[' + b",".join(lists) + b"]}"


def _label(value: bytes) -> bytes:
    try:
        return orjson.dumps(value.decode())
    except UnicodeDecodeError:  # goes out as it is, as in a predict answer
        return codec.strings(value.decode("utf-8", "surrogateescape"))
