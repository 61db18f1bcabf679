"""The Open Inference Protocol's paths and schemas for the OpenAPI document. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tfopt_server.oip.datatypes import DATATYPES

Json = dict[str, Any]

TAG = {"name": "open inference protocol", "description": "Version 2, with binary tensors and the model repository."}
_WHERE = {"": "the newest version that serves", "/versions/{version}": "one version, by number or label"}
_INFER = ("400", "404", "413", "429", "500", "501", "503", "504")


def _object(required: Iterable[str] = (), **properties: Json) -> Json:
    needed = list(required)
    return {"type": "object", "properties": properties, **({"required": needed} if needed else {})}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Json = {"type": "string"}
_SHAPE = _array({"type": "integer", "minimum": -1})
_DATATYPE: Json = {"type": "string", "examples": sorted(DATATYPES)}
_PARAMETERS: Json = {"type": "object", "additionalProperties": {"type": ["string", "integer", "number", "boolean"]}}
_DATA: Json = {"description": "Values in row-major order, flat or nested; numbers, booleans or strings."}
_LINE = _object(("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_SHAPE)
_STATES = ["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"]

SCHEMAS: Json = {
    "InferRequest": _object(
        ("inputs",),
        id=_TEXT,
        parameters=_PARAMETERS,
        inputs=_array(
            _object(
                ("name", "datatype", "shape"),
                name=_TEXT, datatype=_DATATYPE, shape=_array({"type": "integer", "minimum": 0}), data=_DATA,
                parameters=_PARAMETERS,
            )
        ),
        outputs=_array(_object(("name",), name=_TEXT, parameters=_PARAMETERS)),
    )
    | {"examples": [{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 2]}]}]},
    "IndexRequest": _object(ready={"type": "boolean"}) | {"examples": [{"ready": True}]},
    "ControlRequest": _object(parameters={"type": "object"}) | {"examples": [{"parameters": {}}]},
    "InferAnswer": _object(
        ("model_name", "model_version", "outputs"),
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        outputs=_array(
            _object(
                ("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_SHAPE, data=_DATA,
                parameters=_PARAMETERS,
            )
        ),
    ),
    "InferMetadata": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_TEXT, versions=_array(_TEXT), platform=_TEXT, inputs=_array(_LINE), outputs=_array(_LINE),
    ),
    "InferServer": _object(("name", "version", "extensions"), name=_TEXT, version=_TEXT, extensions=_array(_TEXT)),
    "Live": _object(("live",), live={"type": "boolean"}),
    "Ready": _object(("ready",), ready={"type": "boolean"}),
    "ModelReady": _object(("name", "ready"), name=_TEXT, ready={"type": "boolean"}),
    "InferIndex": _array(
        _object(
            ("name", "version", "state", "reason"),
            name=_TEXT, version=_TEXT, state={"type": "string", "enum": _STATES}, reason=_TEXT,
        )
    ),
}  # fmt: skip


def paths(models: Iterable[str]) -> Json:
    """`models`: names that serve now, as examples."""
    found: Json = {
        "/v2": {"get": _operation("openServer", "What this server is", _ok("InferServer"))},
        "/v2/health/live": {"get": _operation("openLive", "Whether the server runs", _ok("Live"))},
        "/v2/health/ready": {
            "get": _operation("openReady", "Whether every configured model serves", _ok("Ready"), "503", alike=True)
        },
        "/v2/repository/index": {
            "post": _operation("openIndex", "Every version of every model", _ok("InferIndex"), "400")
            | _body("IndexRequest", required=False)
        },
    }
    for part, meaning in _WHERE.items():
        base, suffix = f"/v2/models/{{model}}{part}", "Version" if part else ""
        parameters = [_parameter("model", list(models)), *([_parameter("version", ["1"])] if part else [])]
        infer = _operation(f"openInfer{suffix}", f"Run {meaning}", _answer(), *_INFER)
        found[f"{base}/infer"] = {
            "parameters": parameters, "post": {**infer, **_body("InferRequest", required=True)},
        }  # fmt: skip
        metadata = _operation(f"openMetadata{suffix}", f"Inputs and outputs of {meaning}", _ok("InferMetadata"))
        metadata["responses"] |= _refused("400", "404")
        found[base] = {"parameters": parameters, "get": metadata}
        ready = _operation(f"openModelReady{suffix}", f"Whether {meaning} serves", _ok("ModelReady"), "404", alike=True)
        ready["responses"] |= _refused("400")
        found[f"{base}/ready"] = {"parameters": parameters, "get": ready}
    for verb in ("load", "unload"):
        change = _operation(f"open{verb.title()}", f"{verb.title()} a model by its name", _empty(), "400", "404", "500")
        found[f"/v2/repository/models/{{model}}/{verb}"] = {
            "parameters": [_parameter("model", [])],
            "post": {**change, **_body("ControlRequest", required=False)},
        }
    return found


def _operation(name: str, summary: str, ok: Json, *refused: str, alike: bool = False) -> Json:
    """`alike`: a refusal has the body of an answer."""
    responses = {"200": ok}
    responses |= {code: {**ok, "description": "No."} for code in refused} if alike else _refused(*refused)
    return {"operationId": name, "tags": [TAG["name"]], "summary": summary, "responses": responses}


def _refused(*codes: str) -> Json:
    return {code: {"$ref": f"#/components/responses/Refused{code}"} for code in codes}


def _ok(schema: str) -> Json:
    return {"description": "OK", "content": {"application/json": {"schema": _reference(schema)}}}


def _answer() -> Json:
    found = _ok("InferAnswer")
    found["content"]["application/octet-stream"] = {}
    return found


def _empty() -> Json:
    return {"description": "OK"}


def _body(schema: str, required: bool) -> Json:
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": _reference(schema)}}}}


def _parameter(name: str, known: list[str]) -> Json:
    schema: Json = {"type": "string", "minLength": 1} | ({"examples": known} if known else {})
    return {"name": name, "in": "path", "required": True, "schema": schema}
