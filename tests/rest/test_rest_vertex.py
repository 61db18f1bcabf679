"""Vertex AI's contract on the predict route: both payload styles, parameters, raw bodies, batch prediction, sizes."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import faceplane
import pytest
import restclient
from tfopt_server.rest.answer_size import OTHER_ENDPOINTS, SHARED_ENDPOINT, AnswerSize
from tfopt_server.rest.app import App

ROUTES = ("/predict", "/v1/endpoints/1/deployedModels/2:predict", "/v1/models/m:predict", "/any/path/at/all")


class Face:
    def __init__(self, *argv: str, **environ: str) -> None:
        self.plane = faceplane.plane()
        self.settings = faceplane.configured(*argv, **environ)
        self.app = App(self.plane, self.settings, self.plane.metrics)

    def post(self, body: Any, **headers: str) -> restclient.Answer:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return restclient.call(self.app, "POST", self.settings.predict_route, body, named)


@pytest.fixture(scope="module")
def face() -> Face:
    return Face()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [1, 2]}, {"predictions": [2.5, 3.0]}),
        ({"instances": [{"x": 1}], "parameters": {}}, {"predictions": [2.5]}),
        ({"inputs": {"x": [1, 2]}}, {"outputs": [2.5, 3.0]}),
        ({"signature_name": "several", "inputs": [1]}, {"outputs": {"a": [1.0], "b": [-1.0], "c": [2.0]}}),
        ({"instances": [1], "parameters": {"signature_name": "several"}}, {"predictions": [{"a": 1.0, "b": -1.0,
                                                                                            "c": 2.0}]}),
    ],
)  # fmt: skip
def test_both_payload_styles_on_any_route(route: str, body: Any, answer: Any) -> None:
    assert Face(AIP_PREDICT_ROUTE=route).post(body).json() == answer


SCALED = {"signature_name": "scaled", "factor": 2, "shift": 0.5}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [1, 2], "parameters": SCALED}, {"predictions": [2.5, 4.5]}),
        ({"instances": [{"x": 1}], "parameters": {**SCALED, "shift": [3]}}, {"predictions": [5.0]}),
        ({"instances": [{"x": 1, "shift": 1}, {"x": 2, "shift": 9}], "parameters": SCALED}, {"predictions": [3.0,
                                                                                                             13.0]}),
        ({"inputs": {"x": [1, 2]}, "parameters": SCALED}, {"outputs": [2.5, 4.5]}),
        ({"inputs": [1, 2], "parameters": SCALED}, {"outputs": [2.5, 4.5]}),
        ({"inputs": {"x": [1], "factor": 5, "shift": [0]}, "parameters": SCALED}, {"outputs": [5.0]}),
        ({"instances": [1], "parameters": {"x": 7, "confidence": {"a": None}}}, {"predictions": [2.5]}),
    ],
)  # fmt: skip
def test_parameters_are_inputs_where_a_signature_wants_them(face: Face, body: Any, answer: Any) -> None:
    found = face.post(body)
    assert (found.status, found.json()) == (200, answer)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"instances": [1], "parameters": {**SCALED, "factor": "much"}},
            'parameters: factor: JSON Value: "much" Type: String is not of expected type: float',
        ),
        (
            {"instances": [1], "parameters": {"signature_name": "scaled", "factor": 2}},
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        ({"parameters": SCALED}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [], "parameters": SCALED}, None),
    ],
)
def test_parameters_that_are_refused(face: Face, body: Any, text: str | None) -> None:
    answer = face.post(body)
    assert answer.status == 400
    assert text is None or answer.error == text
    assert face.plane.held == 0


def test_tensorflow_servings_own_route_does_not_look_at_parameters(face: Face) -> None:
    body = {"signature_name": "scaled", "instances": [1], "parameters": SCALED}
    assert restclient.call(face.app, "POST", "/v1/models/m:predict", body).status == 400


KINDS = (
    "", "text/plain", "application/json; charset=utf-8", "application/octet-stream", "application/x-protobuf",
    "application/x-www-form-urlencoded", "nonsense",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_raw_predictions_may_call_json_what_they_like(face: Face, kind: str) -> None:
    answer = face.post({"instances": [1]}, content_type=kind, accept="application/json")
    assert (answer.status, answer.json()) == (200, {"predictions": [2.5]})


def b64(text: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(text).decode()}


def test_batch_predictions_records_come_64_at_a_time(face: Face) -> None:
    """TFRecord and file lists come as b64 objects, JSONL values as they stand, CSV and BigQuery rows as arrays."""
    records = [b64(b"\xff\x00record %d" % i) for i in range(64)]
    answer = face.post({"instances": records, "parameters": {"signature_name": "image"}})
    assert answer.json() == {"predictions": records}
    answer = face.post({"instances": [[float(i), 1.0] for i in range(64)]})
    assert answer.json()["predictions"] == [[i / 2 + 2, 2.5] for i in range(64)]
    rows = [{"a": float(i), "b": "x"} for i in range(64)]
    answer = face.post({"instances": rows, "parameters": {"signature_name": "two"}})
    assert answer.json()["predictions"][63] == {"sum": 126.0, "text": "x!"}


def test_answers_over_the_operators_limit_are_refused_with_a_text() -> None:
    face = Face("--max_answer_bytes=100")
    assert face.post({"instances": [1] * 10}).status == 200
    answer = face.post({"instances": [1] * 100})
    assert (answer.status, answer.error) == (
        400,
        "The answer has 417 bytes, and --max_answer_bytes allows 100: ask for fewer rows or outputs in one request, or "
        "for a stream (Accept: text/event-stream)",
    )
    streamed = face.post({"instances": [1] * 100}, accept="text/event-stream")
    assert (streamed.status, len(streamed.body)) == (200, 417 + len("data: \n\n"))
    failed = face.plane.metrics.request_count.labels("m", "OUT_OF_RANGE").value
    assert failed == 1


def test_on_vertex_answers_that_no_endpoint_passes_are_pointed_out_once(caplog: pytest.LogCaptureFixture) -> None:
    sizes = AnswerSize(0, on_vertex=True)
    with caplog.at_level(logging.WARNING):
        for size in (SHARED_ENDPOINT, SHARED_ENDPOINT + 1, SHARED_ENDPOINT + 2, OTHER_ENDPOINTS + 1):
            assert sizes.look(b" " * size) is None
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == [
        "an answer has 1572865 bytes; shared public endpoints pass 1572864",
        "an answer has 10485761 bytes; Vertex AI's endpoints pass 10485760",
    ]
    assert not sizes.looked_at
    assert not AnswerSize(0, on_vertex=False).looked_at
    assert Face(AIP_MODE="PREDICTION").settings.on_vertex


def test_errors_are_one_string(face: Face) -> None:
    answer = face.post({"instances": ["no number"]})
    assert answer.status == 400
    assert isinstance(json.loads(answer.body)["error"], str)
