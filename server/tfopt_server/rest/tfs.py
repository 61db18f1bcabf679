"""TensorFlow Serving's REST routes: predict, classify, regress, status, metadata. URLs and texts: http_rest_api_util.cc
and _handler.cc.

    POST /v1/models/NAME[/versions/N|/labels/L]:predict|classify|regress, and :explain, which is Vertex AI's
    GET  /v1/models/NAME[/versions/N|/labels/L][/metadata]

Rules that surprise: the query string is part of the path, so it matches nothing or becomes part of a name; path words
match in any case but verbs only in lower case; a label in a status request is not looked at.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any
from urllib.parse import unquote

import orjson
from tfopt_protos import messages

from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import invalid
from tfopt_server.http import Request, Response
from tfopt_server.inference import CLASSIFY, REGRESS
from tfopt_server.rest.call import Handler
from tfopt_server.rest.explain import Explain
from tfopt_server.rest.infer import Infer
from tfopt_server.rest.predict import Predict

PREFIX = "/v1/"  # in any case; what starts with it is TensorFlow Serving's

_VERSION = r"(?:/versions/(\d+)|/labels/([^/:]+))?"
_POST = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict|explain)", re.IGNORECASE | re.ASCII)
_GET = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(?:/(metadata))?", re.IGNORECASE | re.ASCII)
_INT64_MAX = 2**63 - 1


class Routes:
    """Finds what answers a path under /v1/, and answers all but those that run a model."""

    def __init__(self, plane: Dataplane, predict: Predict, infer: Infer, explain: Explain) -> None:
        self._plane = plane
        self._predict, self._infer, self._explain = predict, infer, explain

    def find(self, method: str, path: str, in_parameters: bool = False) -> Handler:
        """What answers `method` on `path` (still percent-encoded, with its query).

        `in_parameters`: predict takes signature_name and inputs from `parameters` as well.
        """
        pattern = {"POST": _POST, "GET": _GET}.get(method)
        found = pattern.fullmatch(path) if pattern else None
        if found is None:
            return partial(_malformed, f"Malformed request: {method} {path}")
        name, version, label, word = found.groups()
        if version is not None and int(version) > _INT64_MAX:
            return _unreadable_version
        spec = ModelSpec(
            unquote(name or ""),
            None if version is None else int(version),
            None if label is None else unquote(label),
        )
        if method == "GET":
            return partial(self._metadata if word == "metadata" else self._status, spec)
        if word == "predict":
            return partial(self._predict.answer, spec, in_parameters)
        if word == "explain":
            return partial(self._explain.answer, spec, True)
        if word in (CLASSIFY, REGRESS):
            return partial(self._infer.answer, word, spec)
        return partial(_malformed, f"Malformed request: {method} {path}")

    def _status(self, spec: ModelSpec, request: Request) -> Response:
        request.model, request.entrypoint = spec.name, ""
        if not spec.name:
            raise invalid("Missing model name in request.")
        versions = [
            {
                "version": str(v.version),
                "state": v.state.name,
                "status": {"error_code": v.code.name, "error_message": v.message},
            }
            for v in self._plane.status(spec.name, spec.version)
        ]
        return Response(orjson.dumps({"model_version_status": versions}, option=orjson.OPT_INDENT_2))

    def _metadata(self, spec: ModelSpec, request: Request) -> Response:
        request.model, request.entrypoint = spec.name, ""
        if not spec.name:
            raise invalid("Missing model name in request.")
        with self._plane.resolve(spec) as handle:
            signatures = {name: _as_json(proto) for name, proto in self._plane.metadata(handle).items()}
            version = str(handle.version)
        document = {
            "model_spec": {"name": spec.name, "signature_name": "", "version": version},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }
        return Response(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _as_json(proto: Any) -> Any:
    """A message as TensorFlow Serving prints it: snake_case names, and every field that cannot be unset."""
    from google.protobuf import json_format

    return json_format.MessageToDict(
        proto,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=messages.pool(),
    )


def _malformed(text: str, request: Request) -> Response:
    request.entrypoint = ""
    raise invalid(text)


def _unreadable_version(_request: Request) -> Response:
    """TensorFlow Serving forgets to write the error for a version beyond int64."""
    return Response(b"", 400)
