"""Classify, regress and MultiInference: both faces against one table (tests/inference_cases.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import faceplane
import numpy as np
import pytest
import restclient
import rpcclient
from bothfaces import named
from inference_cases import ANSWERS, BODIES, MADE, REFUSALS, Body, Case, signatures
from inferencefaces import TASK, Faces, check_rest, check_rpc, fill, results, said
from tfopt_protos import messages
from tfopt_server.dataplane import Dataplane
from tfopt_server.errors import Code
from tfopt_server.executor import Executor
from tfopt_server.lifecycle import Event
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions, Source, prepare
from tfopt_server.registry import Registry
from tfopt_server.rest.app import App
from tfopt_server.rest.examples import serialized


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    plane = faceplane.FakePlane({("m", 1): signatures()})
    with rpcclient.face(tmp_path_factory.mktemp("rpc"), plane) as (client, _, _):
        yield Faces(App(plane, faceplane.configured(), plane.metrics), client, "m")
    assert plane.held == 0


@pytest.fixture(scope="module", params=["half_plus_two_v1", "half_plus_two_v1_ref"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, savedmodel: Callable[[str], Path]
) -> Iterator[Faces]:
    """Faces over a real dataplane whose model runs in TensorFlow as it is: its ParseExample reads the examples."""
    from tfopt_optimizer.flags import OptimizerFlags

    metrics, name = Metrics(), request.param
    registry = Registry([name])
    version = registry.add(name, 1, savedmodel(name))
    registry.move(version, Event.LOAD)
    options = LoadOptions(OptimizerFlags(disable_optimizer=True), tmp_path_factory.mktemp("plans"))
    version.loaded = prepare(Source(name, 1, version.path), options, metrics)
    registry.move(version, Event.READY)
    plane = Dataplane(registry, Executor(metrics, 2), metrics)
    plane.metrics = metrics
    with rpcclient.face(tmp_path_factory.mktemp("rpc"), plane) as (client, _, _):
        yield Faces(App(plane, faceplane.configured(), metrics), client, name)
    assert version.users == 0
    plane.drain(5)


@pytest.mark.tensorflow
@named(ANSWERS)
def test_real_rest(real: Faces, case: Case) -> None:
    check_rest(real, case)


@pytest.mark.tensorflow
@named(ANSWERS)
def test_real_rpc(real: Faces, case: Case) -> None:
    check_rpc(real, case)


@named(MADE)
def test_rest(made: Faces, case: Case) -> None:
    check_rest(made, case)


@named(MADE)
def test_rpc(made: Faces, case: Case) -> None:
    check_rpc(made, case)


@named(REFUSALS)
def test_refusals_on_both_faces(made: Faces, case: Case) -> None:
    answer, refused = made.rest(case), made.rpc(case)
    assert (answer.status, refused.code) == (400, Code.INVALID_ARGUMENT)
    said(answer.error, case.results)
    said(refused.text, case.results)


@pytest.mark.parametrize("method", ["classify", "regress"])
@named(BODIES)
def test_documents_that_are_refused(made: Faces, case: Body, method: str) -> None:
    answer = restclient.call(made.app, "POST", f"/v1/models/{case.model}:{method}", case.body)
    assert (answer.status, answer.error) == (case.status, case.text)


def test_no_examples_over_grpc(made: Faces) -> None:
    for context in (None, {"x": 1.0}):
        refused = made.rpc(Case("", "regress", "column", "", (), context))
        assert refused == rpcclient.Refusal(Code.INVALID_ARGUMENT, "Input is empty.")


def test_the_spelling_of_a_value_decides_its_kind() -> None:
    found = messages.message("tensorflow.Example").FromString(
        serialized({"i": 2, "f": [2.0, 1e39], "b": True, "s": "é", "raw": {"b64": "AP8="}, "none": []})
    )
    features = found.features.feature
    assert list(features["i"].int64_list.value) == [2]
    assert list(features["f"].float_list.value) == [2.0, np.inf]
    assert list(features["b"].int64_list.value) == [1]
    assert list(features["s"].bytes_list.value) == ["é".encode()]
    assert list(features["raw"].bytes_list.value) == [b"\x00\xff"]
    assert features["none"].WhichOneof("kind") is None


@pytest.mark.tensorflow
def test_several_tasks_are_answered_in_their_order(real: Faces) -> None:
    answer = real.multi(ANSWERS[0], ("regress_x_to_y", "regress"), ("classify_x_to_y", "classify"))
    assert [results(getattr(r, r.WhichOneof("result"))) for r in answer.results] == [
        [3.0, 12.0],
        [[["3", 3.0]], [["12", 12.0]]],
    ]
    specs = [(r.model_spec.name, r.model_spec.version.value, r.model_spec.signature_name) for r in answer.results]
    assert specs == [(real.model, 1, "regress_x_to_y"), (real.model, 1, "classify_x_to_y")]


def test_tasks_that_wait_are_answered_together(made: Faces) -> None:
    answer = made.multi(MADE[3], ("slow", "regress"), ("column", "regress"), ("both", "classify"))
    assert [r.WhichOneof("result") for r in answer.results] == ["regression_result"] * 2 + ["classification_result"]


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ([("column", "regress")] * 2, "INVALID_ARGUMENT", "Duplicate evaluation of signature: column"),
        ([("z", "regress")], "INVALID_ARGUMENT", "Requested signature not found in model graph: z"),
        ([("column", "predict")], "UNIMPLEMENTED", "Unsupported signature method_name: tensorflow/serving/predict"),
        ([("column", "regress"), ("wide", "regress")], "INVALID_ARGUMENT", "Expected output Tensor shape to be*"),
        ([], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ],
)  # fmt: skip
def test_tasks_that_are_refused(made: Faces, tasks: list[tuple[str, str]], code: str, text: str) -> None:
    refused = made.multi(MADE[3], *tasks)
    assert refused.code.name == code
    said(refused.text, text)


def test_tasks_must_name_one_model(made: Faces) -> None:
    for other, text in (
        ("", "Found ModelSpec with an empty model name."),
        ("z", "All ModelSpecs in a MultiInference*"),
    ):
        request = messages.MultiInferenceRequest()
        for name in ("m", other):
            request.tasks.add(
                method_name=TASK + "regress", model_spec={"name": name, "signature_name": "column" + name}
            )
        request.tasks[0].model_spec.signature_name = "column"
        fill(request.input, MADE[3])
        refused = made.client.call(rpcclient.PREDICTION + "MultiInference", request)
        assert refused.code is Code.INVALID_ARGUMENT
        said(refused.text, text)


def test_method_names_count_only_with_the_flag(tmp_path: Path) -> None:
    plane = faceplane.FakePlane({("m", 1): signatures()})  # their method_name is predict's
    flag = "--enable_signature_method_name_check"
    text = "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict"
    with rpcclient.face(tmp_path, plane, flag) as (client, _, _):
        strict = Faces(App(plane, faceplane.configured(flag), plane.metrics), client, "m")
        assert strict.rest(MADE[3]).error == text
        assert strict.rpc(MADE[3]) == rpcclient.Refusal(Code.INVALID_ARGUMENT, text)


def test_requests_are_counted_as_tensorflow_serving_counts_them(tmp_path: Path) -> None:
    plane = faceplane.FakePlane({("m", 1): signatures()})
    with rpcclient.face(tmp_path, plane) as (client, _, _):
        faces = Faces(App(plane, faceplane.configured(), plane.metrics), client, "m")
        faces.rest(MADE[3])
        faces.rpc(MADE[3])
        faces.rpc(REFUSALS[1])
        faces.multi(MADE[3], ("column", "regress"))
    page = plane.metrics.render().decode()
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 2' in page
    assert ':tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"} 1' in page
    assert ':request_latency_count{model_name="m",API="REST",entrypoint="regress"} 1' in page
    assert ':request_latency_count{model_name="m",API="GRPC",entrypoint="Regress"} 1' in page
    assert ':tensorflow:serving:request_example_count_total{model="m"} 2' in page
