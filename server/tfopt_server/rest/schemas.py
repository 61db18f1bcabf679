"""A signature's predict body as a JSON schema, with an example that can be sent as it is. No transport in here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo, TensorInfo

Json = dict[str, Any]

DEFAULT_SIGNATURE = "serving_default"
MOST_ELEMENTS = 2048  # an example longer than this helps nobody

_BITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}
_UNSIGNED = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}
_B64: Json = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["b64"],
    "additionalProperties": False,
}

# A feature of a tf.Example: one value, or a list of one kind.
_VALUE: Json = {"anyOf": [{"type": ["number", "string", "boolean"]}, _B64]}
_FEATURE: Json = {"anyOf": [_VALUE, {"type": "array", "items": _VALUE}]}

_VERSIONS: Json = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "version": {"type": "string"},
            "state": {"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
            "status": {
                "type": "object",
                "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
                "required": ["error_code", "error_message"],
            },
        },
        "required": ["version", "state", "status"],
    },
}


def _object(required: Sequence[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


# Vertex AI's ExplanationSpec, as much of it as is looked at, and its Explanation.
_SPEC = _object(
    [],
    parameters=_object(
        [],
        sampledShapleyAttribution=_object(["pathCount"], pathCount={"type": "integer", "minimum": 1, "maximum": 50}),
        topK={"type": "integer", "minimum": -1, "maximum": 2**31 - 1},
        outputIndices={"type": "array"},
    ),
    metadata={"type": "object"},
)
_NUMBER: Json = {"type": "number"}
_ATTRIBUTION = _object(
    ["baselineOutputValue", "instanceOutputValue", "featureAttributions", "outputName"],
    baselineOutputValue=_NUMBER,
    instanceOutputValue=_NUMBER,
    featureAttributions={"type": "object"},
    outputIndex={"type": "array", "items": {"type": "integer"}},
    outputDisplayName={"type": "string"},
    outputName={"type": "string"},
    approximationError=_NUMBER,
)
_EXPLANATION = _object(["attributions"], attributions={"type": "array", "items": _ATTRIBUTION})

# The schemas that are the same for every server.
FIXED: Json = {
    "Error": _object(["error"], error={"type": "string"}),
    "Health": _object([], status={"enum": ["starting", "ready", "draining"]}),
    "Status": _object(["model_version_status"], model_version_status=_VERSIONS),
    "Metadata": _object(["model_spec", "metadata"], model_spec={"type": "object"}, metadata={"type": "object"}),
    "Optimization": _object(["models"], models={"type": "array", "items": {"type": "object"}}),
    "Document": _object(["openapi", "paths"], openapi={"type": "string"}, paths={"type": "object"}),
    "Predictions": {
        "description": "predictions for instances, outputs for inputs; NaN and Infinity come as bare tokens.",
        "anyOf": [_object(["predictions"], predictions={"type": "array"}), _object(["outputs"], outputs={})],
    },
    "Examples": {
        **_object(
            ["examples"],
            signature_name={"type": "string"},
            context={"type": "object", "additionalProperties": _FEATURE},
            examples={"type": "array", "minItems": 1, "items": {"type": "object", "additionalProperties": _FEATURE}},
        ),
        "examples": [{"signature_name": "classify", "examples": [{"age": 42, "words": ["a", "b"]}]}],
    },
    "Explain": {
        **_object(["instances"], instances={"type": "array"}, explanation_spec_override=_SPEC),
        "examples": [
            {"explanation_spec_override": {"parameters": {"sampledShapleyAttribution": {"pathCount": 10}, "topK": 1}}}
        ],
    },
    "Explanations": _object(
        ["explanations", "predictions"],
        predictions={"type": "array"},
        explanations={"type": "array", "items": _EXPLANATION},
    ),
    "ClassifyResults": _object(["results"], results={"type": "array", "items": {"type": "array"}}),
    "RegressResults": _object(["results"], results={"type": "array"}),
    "AnyPredict": {
        "description": "Rows or columns; which is known once a model serves.",
        "anyOf": [_object(["instances"], instances={"type": "array"}), _object(["inputs"], inputs={})],
    },
}


def name(model: str, key: str) -> str:
    """The name of a signature's body among the schemas: OpenAPI allows few characters, so others are spelled out."""
    return "Predict." + ".".join(re.sub(r"[^A-Za-z0-9-]", lambda m: f"_{ord(m[0]):x}_", part) for part in (model, key))


def body(model: str, signature: SignatureInfo) -> Json:
    """What :predict takes for one signature: rows (`instances`) or columns (`inputs`)."""
    named = {"const": signature.key, "type": "string"}
    required = [] if signature.key == DEFAULT_SIGNATURE else ["signature_name"]
    rows = _object(["instances", *required], signature_name=named, instances=_rows(signature))
    columns = _object(["inputs", *required], signature_name=named, inputs=_columns(signature))
    found: Json = {"title": f"{model}: {signature.key}", "anyOf": [rows, columns] if _in_rows(signature) else [columns]}
    example = _example(signature)
    return found if example is None else {**found, "examples": [example]}


def _in_rows(signature: SignatureInfo) -> bool:
    """Whether rows can be told apart at all: a scalar input belongs to no row."""
    return bool(signature.inputs) and all(t.shape is None or t.shape for t in signature.inputs)


def _rows(signature: SignatureInfo) -> Json:
    return {"type": "array", "minItems": 1, "items": _inputs(signature, rows=True)}


def _columns(signature: SignatureInfo) -> Json:
    return _inputs(signature, rows=False)


def _inputs(signature: SignatureInfo, rows: bool) -> Json:
    """One row, or all columns: an object by input name, or the bare value where there is one input."""
    values = {t.name: tensor(t, rows) for t in signature.inputs}
    required = [t.name for t in signature.inputs if t.name not in signature.defaults]
    named: Json = {"type": "object", "properties": values, "required": required, "additionalProperties": False}
    return {"anyOf": [next(iter(values.values())), named]} if len(values) == 1 else named


def tensor(info: TensorInfo, row: bool) -> Json:
    """Nested arrays of the tensor's shape; without its first dimension for a row."""
    if info.shape is None:
        return {}
    found = _element(info.dtype)
    for size in reversed(info.shape[1:] if row else info.shape):
        found = {"type": "array", "items": found, "minItems": size or 1}
        if size is not None:
            found["maxItems"] = size
    return found


def _element(dtype: str) -> Json:
    if dtype == "string":
        return {"anyOf": [{"type": "string"}, _B64]}
    if dtype == "bool":
        return {"type": "boolean"}
    if dtype in _BITS:
        return {"type": "integer", "minimum": -(2 ** _BITS[dtype]), "maximum": 2 ** _BITS[dtype] - 1}
    if dtype in _UNSIGNED:
        return {"type": "integer", "minimum": 0, "maximum": 2 ** _UNSIGNED[dtype] - 1}
    return {"type": "number"}


def _example(signature: SignatureInfo) -> Json | None:
    """Zeros and short texts in the declared shapes, one for each unknown size; None where that would be too long."""
    rows = _in_rows(signature)
    values = {t.name: _zeros(t, rows) for t in signature.inputs if t.name not in signature.defaults}
    if any(value is None for value in values.values()):
        return None
    named: Json = {} if signature.key == DEFAULT_SIGNATURE else {"signature_name": signature.key}
    one = next(iter(values.values())) if len(signature.inputs) == 1 else values
    return {**named, "instances": [one]} if rows else {**named, "inputs": one}


def _zeros(info: TensorInfo, row: bool) -> Any:
    if info.shape is None:
        return None
    sizes = [size or 1 for size in (info.shape[1:] if row else info.shape)]
    found: Any = {"string": "text", "bool": False}.get(info.dtype, 0 if "int" in info.dtype else 0.0)
    count = 1
    for size in reversed(sizes):
        found, count = [found] * size, count * size
        if count > MOST_ELEMENTS:
            return None
    return found
