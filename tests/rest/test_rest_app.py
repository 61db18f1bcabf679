"""The REST face as a client sees it: routes, methods, headers, bodies, what is counted. No port is opened."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from pathlib import Path
from typing import Any

import faceplane
import numpy as np
import pytest
import restclient
from prometheus_client.parser import text_string_to_metric_families
from tfopt_server.dataplane import Optimized
from tfopt_server.errors import Code
from tfopt_server.lifecycle import State
from tfopt_server.rest.app import REMEMBERED, App
from tfopt_server.rest.bodies import LONG_PACKED

PREDICT = "/v1/models/m:predict"
TWO_ROWS = {"instances": [1, 2]}
HALVED = {"predictions": [2.5, 3.0]}


class Face:
    """An app over the fake plane, and a short way to call it."""

    def __init__(self, *argv: str) -> None:
        self.plane = faceplane.plane()
        self.app = App(self.plane, faceplane.configured(*argv), self.plane.metrics)

    def __call__(self, method: str, target: str, body: Any = b"", **headers: str) -> restclient.Answer:
        return restclient.call(self.app, method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, body: Any, target: str = PREDICT, **headers: str) -> restclient.Answer:
        return self("POST", target, body, **headers)

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        """Samples of a metric with their label values, those that are not zero. The parser adds _total to counters."""
        page = self("GET", "/monitoring/prometheus/metrics").body.decode()
        samples = [s for family in text_string_to_metric_families(page) for s in family.samples if s.name == name]
        return {tuple(s.labels.values()): s.value for s in samples if s.value}


@pytest.fixture
def face() -> Face:
    return Face()


def test_predict_answers_json(face: Face) -> None:
    answer = face.post(TWO_ROWS)
    assert (answer.status, answer.json()) == (200, HALVED)
    assert answer.headers == {"content-type": "application/json"}
    (handle, signature, feeds, outputs, deadline, origin) = face.plane.calls[0]
    assert (handle.version, signature, outputs, origin) == (2, "serving_default", None, "REST")
    assert deadline is not None
    assert deadline - time.monotonic() == pytest.approx(30, abs=5)
    np.testing.assert_array_equal(feeds["x"], np.float32([1, 2]))
    assert face.plane.held == 0


@pytest.mark.parametrize(
    ("target", "version"),
    [
        ("/v1/models/m:predict", 2),
        ("/V1/Models/m/Versions/1:predict", 1),
        ("/v1/models/m/versions/0002:predict", 2),
        ("/v1/models/m/labels/stable:predict", 1),
        ("/v1/models/%6D/labels/cana%72y:predict", 2),
        ("/predict", 2),
    ],
)
def test_paths_that_predict(face: Face, target: str, version: int) -> None:
    assert face.post(TWO_ROWS, target).json() == HALVED
    assert face.plane.calls[0][0].version == version


@pytest.mark.parametrize(
    ("method", "target", "status", "text"),
    [
        ("POST", "/v1/models/m:predict?x=1", 400, "Malformed request: POST /v1/models/m:predict?x=1"),
        ("POST", "/v1/models/m:PREDICT", 400, "Malformed request: POST /v1/models/m:PREDICT"),
        ("POST", "/v1/models/m:predict/", 400, "Malformed request: POST /v1/models/m:predict/"),
        ("POST", "/v1/models/m/versions/1/labels/stable:predict", 400, "Malformed request: POST "
         "/v1/models/m/versions/1/labels/stable:predict"),
        ("PUT", "/v1/models/m:predict", 400, "Malformed request: PUT /v1/models/m:predict"),
        ("HEAD", "/v1/models/m", 400, "Malformed request: HEAD /v1/models/m"),
        ("GET", "/v1/models/m:predict", 400, "Malformed request: GET /v1/models/m:predict"),
        ("GET", "/v1/models/m/", 400, "Malformed request: GET /v1/models/m/"),
        ("GET", "/v1/other", 400, "Malformed request: GET /v1/other"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/m?x=1", 404, "Could not find any versions of model m?x=1"),
        ("GET", "/v1/models/metadata", 404, "Could not find any versions of model metadata"),
        ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
        ("GET", "/v1/models/m/versions/9", 404, "Could not find version 9 of model m"),
        ("GET", "/v1/models/other/metadata", 404, "Servable not found for request: Latest(other)"),
        ("GET", "/v1/models/m/versions/9/metadata", 404, "Servable not found for request: Specific(m, 9)"),
        ("GET", "/v1/models/m/labels/x/metadata", 400, "Unrecognized servable version label: x"),
        ("TRACE", "/v1/models/m", 501, "Not Implemented: TRACE"),
        ("GET", "/", 404, "Not Found: GET /"),
        ("GET", "/predict", 405, "Method Not Allowed: GET /predict"),
        ("POST", "/optimization", 405, "Method Not Allowed: POST /optimization"),
    ],
)  # fmt: skip
def test_requests_that_match_nothing(face: Face, method: str, target: str, status: int, text: str) -> None:
    answer = face(method, target)
    assert (answer.status, answer.error) == (status, text)
    assert answer.body == b'{\n    "error": ' + json.dumps(text).encode() + b"\n}"


def test_a_version_beyond_int64_has_an_empty_answer(face: Face) -> None:
    for method, target in (("POST", "/v1/models/m/versions/9223372036854775808:predict"),
                           ("GET", "/v1/models/m/versions/99999999999999999999")):  # fmt: skip
        answer = face(method, target)
        assert (answer.status, answer.body) == (400, b"")


def test_the_order_of_checks(face: Face) -> None:
    unknown = "/v1/models/other:predict"
    assert face.post(b"{", unknown).status == 400  # the document comes before the model
    assert face.post({"signature_name": 5}, unknown).status == 400
    assert face.post({}, unknown).status == 404  # the model before the signature and the keys
    assert face.post({"signature_name": "nope"}).error == 'Serving signature name: "nope" not found in signature def'
    assert face.plane.calls == []
    assert face.plane.held == 0


def test_the_platforms_route_takes_the_signature_from_parameters() -> None:
    face = Face("--predict_route=/v1/endpoints/1/deployedModels/2:predict")
    body = {"instances": [1], "parameters": {"signature_name": "several", "confidence": "a:b"}}
    several = {"predictions": [{"a": 1.0, "b": -1.0, "c": 2.0}]}
    assert face.post(body, "/v1/endpoints/1/deployedModels/2:predict").json() == several
    body["signature_name"] = "serving_default"
    assert face.post(body, "/v1/endpoints/1/deployedModels/2:predict").json() == {"predictions": [2.5]}
    # TensorFlow Serving's own route ignores keys that it does not know.
    del body["signature_name"]
    assert face.post(body).json() == {"predictions": [2.5]}
    assert face.post({"inputs": 1}, "/v1/endpoints/1/deployedModels/2:predict").json() == {"outputs": 2.5}
    wrong = face.post(
        {"instances": [1], "parameters": {"signature_name": 5}}, "/v1/endpoints/1/deployedModels/2:predict"
    )
    assert wrong.error.endswith("not formatted correctly. 'signature_name' key must be a string value.")


def test_a_platform_route_of_tensorflow_servings_form_means_its_model_and_version() -> None:
    face = Face("--predict_route=/v1/models/m/versions/1:predict")
    body = {"instances": [1], "parameters": {"signature_name": "several"}}
    assert face.post(body, "/v1/models/m/versions/1:predict").json() == {
        "predictions": [{"a": 1.0, "b": -1.0, "c": 2.0}]
    }
    assert face.plane.calls[0][0].version == 1
    assert face.post(body).json() == {"predictions": [2.5]}
    assert face("GET", "/v1/models/m/versions/1:predict").status == 400


def test_status_lists_versions_newest_first_whatever_the_label(face: Face) -> None:
    face.plane.statuses["m", 3] = faceplane.Status(3, State.END, Code.INVALID_ARGUMENT, "no such file")
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    failed = {"state": "END", "status": {"error_code": "INVALID_ARGUMENT", "error_message": "no such file"}}
    versions = [{"version": "3", **failed}, {"version": "2", **available}, {"version": "1", **available}]
    for target in ("/v1/models/m", "/v1/models/m/labels/nope", "/v1/models/m/METADATA"):
        answer = face("GET", target)
        assert (answer.status, answer.json()) == (200, {"model_version_status": versions})
    assert face("GET", "/v1/models/m/versions/1").json() == {"model_version_status": versions[2:]}


def test_metadata_is_the_signature_map_in_proto_json(face: Face) -> None:
    answer = face("GET", "/v1/models/m/labels/stable/metadata").json()
    assert answer["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {s.info.key for s in faceplane.many_signatures()}
    tensor = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}}
    assert signatures["serving_default"] == {
        "inputs": {"x": {"name": "x:0", **tensor}},
        "outputs": {"y": {"name": "y:0", **tensor}},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def test_optimization_as_json_text_or_page(face: Face) -> None:
    answer = face("GET", "/optimization")
    assert answer.json() == {
        "models": [{"name": "m", "version": v, "why": "not optimized", "plan": None} for v in (1, 2)]
    }
    text = face("GET", "/optimization", accept="text/plain, */*;q=0.1")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.body.decode() == "".join(f"m version {v}: not optimized\n" for v in (1, 2))
    page = face("GET", "/optimization", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none';")
    assert page.body.decode().startswith("<!DOCTYPE html>\n<html")
    assert {a.headers["vary"] for a in (answer, text, page)} == {"Accept"}


def test_a_version_that_is_still_loading_is_part_of_optimization(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    on_its_way = Optimized("m", 3, "it is being loaded", None, None, loading=True)
    monkeypatch.setattr(face.plane, "optimized", lambda: (on_its_way,))
    assert face("GET", "/optimization").json() == {
        "models": [{"name": "m", "version": 3, "why": "it is being loaded", "plan": None, "loading": True}]
    }
    assert face("GET", "/optimization", accept="text/plain").body.decode() == "m version 3: it is being loaded\n"
    assert b"It is being loaded." in face("GET", "/optimization", accept="text/html").body


def test_a_converted_models_report_is_part_of_optimization(face: Face) -> None:
    from tfopt_optimizer.tpu.report import PlacedFunction, Report

    placed = (PlacedFunction("f", "function_alias"),)
    face.plane.conversions = {("m", 2): Report(placed, (), (), None, (), 0, (), (), "warmup records", 1.0)}
    first, second = face("GET", "/optimization").json()["models"]
    assert "conversion" not in first
    assert second["conversion"]["placed"] == [{"name": "f", "chosen_by": "function_alias"}]
    text = face("GET", "/optimization", accept="text/plain").body.decode()
    assert "m version 2: not optimized\n  conversion: on the TPU: f (function_alias)\n" in text
    assert b"Conversion for Cloud TPU" in face("GET", "/optimization", accept="text/html").body


def test_a_clients_own_id_of_a_request_comes_back() -> None:
    face = Face()
    for body in (b'{"instances": [1]}', b"{"):
        assert face.post(body, X_Request_Id="a-7").headers["x-request-id"] == "a-7"
        assert "x-request-id" not in face.post(body).headers
        assert "x-request-id" not in face.post(body, X_Request_Id="a" * 257).headers


@pytest.mark.parametrize(("seconds", "sent"), [(0.1, "1"), (1.0, "1"), (2.25, "3")])
def test_who_hears_503_or_429_is_told_when_to_ask_again(seconds: float, sent: str) -> None:
    for code, expected in ((Code.UNAVAILABLE, 503), (Code.RESOURCE_EXHAUSTED, 429)):
        face = Face()
        face.plane.models["m", 2] = faceplane.busy(seconds, code)
        answer = face.post({"instances": [1]})
        assert (answer.status, answer.error, answer.headers["retry-after"]) == (expected, "busy", sent)
    assert "retry-after" not in Face().post(b"{").headers


def test_cors_only_when_asked_for() -> None:
    cors = {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "POST, GET",
        "access-control-allow-headers": "Content-Type",
    }
    plain, shared = Face(), Face("--rest_api_enable_cors_support")
    for body in (TWO_ROWS, b"{"):
        assert cors.keys().isdisjoint(plain.post(body).headers)
        assert shared.post(body).headers.items() >= cors.items()


@pytest.mark.parametrize(("origin", "status"), [("https://a.example", 200), ("http://a", 200), ("null", 400)])
def test_preflight(face: Face, origin: str, status: int) -> None:
    answer = face("OPTIONS", PREDICT, origin=origin)
    assert (answer.status, answer.body, answer.headers) == (status, b"", {})


def test_packed_bodies(face: Face) -> None:
    body = json.dumps(TWO_ROWS).encode()
    assert face.post(gzip.compress(body), content_encoding="gzip").json() == HALVED
    assert face.post(gzip.compress(body), content_encoding="GZip").json() == HALVED
    assert face.post(body, content_type="application/x-www-form-urlencoded").json() == HALVED
    rows = json.dumps({"instances": np.random.default_rng(1).random(2000).tolist()}).encode()
    assert len(gzip.compress(rows)) > LONG_PACKED
    assert face.post(gzip.compress(rows), content_encoding="gzip").json() == face.post(rows).json()
    for broken in (body, gzip.compress(body)[:-9], b""):
        answer = face.post(broken, content_encoding="gzip")
        assert (answer.status, answer.error) == (400, "JSON Parse error: The document is empty")


def test_a_packed_body_may_not_unfold_without_end(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfopt_server.rest.bodies.GUNZIPPED_LIMIT", 1000)
    assert face.post(gzip.compress(b"[" * 1001), content_encoding="gzip").error.endswith("The document is empty")
    fits = json.dumps(TWO_ROWS).ljust(1000).encode()
    assert face.post(gzip.compress(fits), content_encoding="gzip").json() == HALVED


def test_internal_errors_show_the_client_an_id_and_the_log_the_rest(
    face: Face, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = face.post({"instances": [1], "signature_name": "fails"})
    assert answer.status == 500
    assert "secret" not in answer.error
    incident = answer.error.split("incident ")[1][:8]
    assert f"incident {incident}" in caplog.text
    assert "RuntimeError: a secret of the server" in caplog.text
    assert face.plane.held == 0


def test_refusals_of_the_model_pass_through(face: Face) -> None:
    for signature in ("refuses", "later_refuses"):
        answer = face.post({"instances": [1], "signature_name": signature})
        assert (answer.status, answer.error) == (400, "Matrix size-incompatible: In[0]: [1,3], In[1]: [2,1]")


def test_long_requests_overlap_and_end_at_their_deadline() -> None:
    face = Face("--rest_api_timeout_in_ms=1000")

    async def both() -> list[restclient.Answer | None]:
        bodies = [json.dumps({"instances": [s], "signature_name": "slow"}).encode() for s in (0.05, 0.05, 60)]
        return await asyncio.gather(*(restclient.acall(face.app, "POST", PREDICT, body) for body in bodies))

    answers = asyncio.run(both())
    assert [a and a.status for a in answers] == [200, 200, 504]
    assert face.plane.held == 0


def test_long_bodies_are_read_while_others_are_answered(face: Face) -> None:
    rows = json.dumps({"instances": [[i + 0.5 for i in range(100)]] * 1000}).encode()
    answered: list[str] = []

    async def one(name: str, body: bytes) -> restclient.Answer | None:
        answer = await restclient.acall(face.app, "POST", PREDICT, body)
        answered.append(name)
        return answer

    async def both() -> list[restclient.Answer | None]:
        return await asyncio.gather(one("long", rows), one("short", json.dumps(TWO_ROWS).encode()))

    long, short = asyncio.run(both())
    assert answered == ["short", "long"]
    assert short is not None
    assert short.json() == HALVED
    assert long is not None
    assert long.json()["predictions"][-1][-1] == 99.5 / 2 + 2


def test_what_is_counted(face: Face) -> None:
    face.post(TWO_ROWS)
    face.post(TWO_ROWS, "/predict")
    face.post(b"{")
    face.post({}, "/v1/models/other:predict")
    face("GET", "/v1/models/m")
    face("PUT", "/v1/models/m")
    face("GET", "/nothing")
    assert face.counted(":tensorflow:serving:request_count_total") == {
        ("m", "OK"): 3, ("m", "INVALID_ARGUMENT"): 1, ("other", "NOT_FOUND"): 1, ("", "INVALID_ARGUMENT"): 1,
    }  # fmt: skip
    assert face.counted(":tensorflow:serving:request_latency_count") == {
        ("m", "REST", "predict"): 2,
        ("m", "REST", ""): 1,
    }
    steps = face.counted("tfopt_step_seconds_count")
    assert steps == {("m", "serving_default", "decode"): 2, ("m", "serving_default", "encode"): 2}


def test_a_scan_of_the_port_grows_neither_the_metrics_nor_the_memory(face: Face) -> None:
    for i in range(REMEMBERED + 200):
        face.post(b"{}", f"/v1/models/scan{i}:predict")
    assert len(face.counted(":tensorflow:serving:request_count_total")) == 101
    assert len(face.app._remembered) == REMEMBERED
    assert face.post(TWO_ROWS).json() == HALVED


def test_nothing_long_that_a_client_makes_up_is_kept(face: Face) -> None:
    name = "x" * 2000
    face.post(b"{}", f"/v1/models/{name}:predict")
    assert list(face.counted(":tensorflow:serving:request_count_total")) == [("(other)", "NOT_FOUND")]
    assert face.app._remembered.keys() == {("GET", "/monitoring/prometheus/metrics")}


def test_the_metrics_page_is_where_the_monitoring_config_says(tmp_path: Path) -> None:
    config = tmp_path / "monitoring.config"
    config.write_text('prometheus_config { enable: true path: "/metrics" }')
    face = Face(f"--monitoring_config_file={config}")
    for target in ("/metrics", "/monitoring/prometheus/metrics"):
        page = face("GET", target)
        assert (page.status, page.headers["content-type"]) == (200, "text/plain")
        assert b"# TYPE :tensorflow:serving:request_count counter\n" in page.body
    config.write_text("prometheus_config { enable: false }")
    assert Face(f"--monitoring_config_file={config}")("GET", "/monitoring/prometheus/metrics").status == 404
