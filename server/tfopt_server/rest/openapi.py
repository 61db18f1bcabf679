"""What this server answers, as one OpenAPI 3.1 document: every route, and the models' inputs as JSON schemas.

Pure: what the server is and which models it has come as arguments. The paths are TensorFlow Serving's
(`/v1/models/{model}:predict`), with the platform's own predict and health routes beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfopt_server.rest import openapi_open_inference, schemas

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo

Json = dict[str, Any]

VERSION = "3.1.0"
_WHERE = {
    "": "the newest version that serves",
    "/versions/{version}": "one version",
    "/labels/{label}": "the version that carries a label",
}
# A PredictRequest or PredictResponse, and an .npy file: what they are is told by the media type, not by a schema.
_BINARY: Json = {"application/x-protobuf": {}, "application/octet-stream": {}}
_RETRY_AFTER: Json = {
    "description": "Seconds after which the same request may be sent again.",
    "schema": {"type": "integer", "minimum": 1},
}
_REFUSALS = {
    "400": "The request does not fit the model; the text says what was expected and what came.",
    "404": "There is no such model or version.",
    "413": "The body is larger than --max_body_bytes.",
    "429": "The queue is full.",
    "500": "A failure that is not the client's; the log has more under the id in the text.",
    "501": "The request asks for an extension that is not served.",
    "503": "Nothing serves this model now: starting, draining, or unloaded.",
    "504": "No answer within --rest_api_timeout_in_ms or the queue's deadline.",
}


@dataclasses.dataclass(frozen=True)
class Served:
    """What a server is: its version, the routes that settings name, and its models with their signatures by key."""

    version: str
    health_route: str
    predict_route: str
    explain_route: str
    metrics_paths: Sequence[str]
    default_model: str
    models: Mapping[str, Mapping[str, SignatureInfo]]


def document(served: Served) -> Json:
    """The OpenAPI document, ready for a JSON writer."""
    names = sorted(served.models)
    return {
        "openapi": VERSION,
        "info": {
            "title": "tfopt model server",
            "version": served.version,
            "description": "TensorFlow Serving's REST API, Vertex AI's container contract and the Open Inference "
            "Protocol over optimized models.",
        },
        "tags": [
            {"name": "predict", "description": "Run a signature of a model."},
            {"name": "models", "description": "Status and signatures."},
            openapi_open_inference.TAG,
            {"name": "server", "description": "Health, numbers, and how models were optimized."},
        ],
        "paths": {**_own(served), **_models(names, served), **openapi_open_inference.paths(names), **_platform(served)},
        "components": {"schemas": _components(served), "responses": _refusals()},
    }


# --- TensorFlow Serving's routes --------------------------------------------------------------------------------------


def _models(names: Sequence[str], served: Served) -> Json:
    found: Json = {}
    for part, meaning in _WHERE.items():
        base = f"/v1/models/{{model}}{part}"
        parameters = [_parameter("model", names), *_version_parameters(part)]
        found[f"{base}:predict"] = {
            "parameters": parameters,
            "post": _predict("predict" + _suffix(part), f"Predict with {meaning}", _bodies(served, names)),
        }
        found[f"{base}:explain"] = {
            "parameters": parameters,
            "post": _explain("explain" + _suffix(part), f"Predict with {meaning}, and explain", served, names),
        }
        for verb in ("classify", "regress"):
            operation = _post(f"{verb}{_suffix(part)}", f"{verb.title()} tf.Examples with {meaning}", verb.title())
            found[f"{base}:{verb}"] = {"parameters": parameters, "post": operation}
        found[base] = {
            "parameters": parameters,
            "get": _get("status" + _suffix(part), "models", f"Status of {meaning}", "Status"),
        }
        found[f"{base}/metadata"] = {
            "parameters": parameters,
            "get": _get("metadata" + _suffix(part), "models", f"Signatures of {meaning}", "Metadata"),
        }
    return found


def _suffix(part: str) -> str:
    return part.replace("/", "_").replace("{", "").replace("}", "").title().replace("_", "")


def _version_parameters(part: str) -> list[Json]:
    if "{version}" in part:
        return [_parameter("version", (), {"type": "integer", "minimum": 0, "maximum": 2**63 - 1})]
    return [_parameter("label", ())] if "{label}" in part else []


def _parameter(name: str, known: Sequence[str], schema: Json | None = None) -> Json:
    found: Json = schema or {"type": "string", "minLength": 1}
    if known:
        found = {**found, "examples": list(known)}
    return {"name": name, "in": "path", "required": True, "schema": found}


def _predict(operation: str, summary: str, bodies: Sequence[tuple[str, str]]) -> Json:
    """`bodies`: (name of a schema, title) of what may be sent."""
    references = [{"$ref": f"#/components/schemas/{name}"} for name, _ in bodies]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {
        "operationId": operation,
        "tags": ["predict"],
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}, **_BINARY}},
        "responses": {"200": _predictions(), **_refused("400", "404", "413", "429", "500", "503", "504")},
    }


def _predictions() -> Json:
    found = _ok("Predictions")
    found["content"] |= {**_BINARY, "text/event-stream": {"schema": {"type": "string"}}}
    return found


def _post(operation: str, summary: str, schema: str) -> Json:
    """Classify or regress: tf.Examples in, as objects of features; results out, one for each."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Examples"}}}
    return {
        "operationId": operation,
        "tags": ["predict"],
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _ok(f"{schema}Results"), **_refused("400", "404", "413", "429", "500", "503", "504")},
    }


def _explain(operation: str, summary: str, served: Served, names: Iterable[str]) -> Json:
    found = _predict(operation, summary, _bodies(served, names))
    body = found["requestBody"]["content"]["application/json"]["schema"]
    both = {"allOf": [body, {"$ref": "#/components/schemas/Explain"}]}
    found["requestBody"]["content"] = {"application/json": {"schema": both}}
    found["responses"]["200"] = _ok("Explanations")
    return found


def _bodies(served: Served, names: Iterable[str]) -> list[tuple[str, str]]:
    found = [(schemas.name(m, key), f"{m}: {key}") for m in names for key in sorted(served.models[m])]
    return found or [("AnyPredict", "any model")]


# --- the platform's, and the server's own -----------------------------------------------------------------------------


def _platform(served: Served) -> Json:
    """The platform's routes last: where one is TensorFlow Serving's own, it means that model there too."""
    model = [served.default_model] if served.default_model in served.models else []
    predict = _predict("predictRoute", f"Predict with {served.default_model or 'the model'}", _bodies(served, model))
    found: Json = {
        served.health_route: {
            "get": {
                "operationId": "health",
                "tags": ["server"],
                "summary": "Whether every configured model serves",
                "responses": {"200": _ok("Health"), "503": _json("Starting or draining.", "Health")},
            }
        }
    }
    found.setdefault(served.predict_route, {})["post"] = predict
    explain = _explain(
        "explainRoute", f"Predict with {served.default_model or 'the model'}, and explain", served, model
    )
    found.setdefault(served.explain_route, {})["post"] = explain
    return found


def _own(served: Served) -> Json:
    text: Json = {"schema": {"type": "string"}}
    plans = _get("optimization", "server", "How each version was optimized: evidence, log, or a page", "Optimization")
    plans["responses"]["200"]["content"] |= {"text/plain": text, "text/html": text}
    plans["responses"]["304"] = {"description": "What If-None-Match names is what there is"}
    metrics = {
        path: {"get": _text(f"metrics{i or ''}", "Numbers for Prometheus", "text/plain")}
        for i, path in enumerate(served.metrics_paths)
    }
    return {
        **metrics,
        "/optimization": {"get": plans},
        "/openapi.json": {"get": _get("openapi", "server", "This document", "Document")},
        "/docs": {"get": _text("docs", "A page to try requests", "text/html")},
    }


def _get(operation: str, tag: str, summary: str, schema: str) -> Json:
    refused = _refused("400", "404") if tag == "models" else {}
    responses = {"200": _ok(schema), **refused}
    return {"operationId": operation, "tags": [tag], "summary": summary, "responses": responses}


def _text(operation: str, summary: str, kind: str) -> Json:
    content = {kind: {"schema": {"type": "string"}}}
    responses = {"200": {"description": "OK", "content": content}}
    return {"operationId": operation, "tags": ["server"], "summary": summary, "responses": responses}


def _ok(schema: str) -> Json:
    return _json("OK", schema)


def _json(description: str, schema: str) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _refused(*codes: str) -> Json:
    return {code: {"$ref": f"#/components/responses/Refused{code}"} for code in codes}


def _refusals() -> Json:
    found = {f"Refused{code}": _json(text, "Error") for code, text in _REFUSALS.items()}
    for code in ("429", "503"):
        found[f"Refused{code}"]["headers"] = {"Retry-After": _RETRY_AFTER}
    return found


def _components(served: Served) -> Json:
    found = schemas.FIXED | openapi_open_inference.SCHEMAS
    for model, signatures in served.models.items():
        for key, signature in signatures.items():
            found[schemas.name(model, key)] = schemas.body(model, signature)
    return found
