"""Both faces against one table (tests/conformance_cases.py), over numpy functions and over real SavedModels."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import faceplane
import numpy as np
import pytest
import restclient
import rpcclient
from conformance_cases import ANSWERS, REAL_ANSWERS, REFUSALS, SPELLINGS, Answer, Refusal, Spelling
from tfopt_protos import messages
from tfopt_server.dataplane import Dataplane
from tfopt_server.executor import Executor
from tfopt_server.lifecycle import Event
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions, Source, prepare
from tfopt_server.registry import Registry
from tfopt_server.rest.app import App
from tfopt_server.rest.status import HTTP_STATUS


def named(cases: Sequence[Any]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


class Faces:
    """Both faces of one plane, and an independent way of writing and reading their tensors."""

    def __init__(self, app: App, client: rpcclient.Client) -> None:
        self.app = app
        self.client = client

    def rest(self, body: str, model: str = "m") -> restclient.Answer:
        return restclient.call(self.app, "POST", f"/v1/models/{model}:predict", body)

    def rows(self, case: Answer) -> dict[str, Any]:
        instances = [
            {name: spelled(array[i]) for name, array in case.feeds.items()} for i in range(rows_of(case.feeds))
        ]
        answer = self.rest(json.dumps({"signature_name": case.signature, "instances": instances}), case.model)
        assert answer.status == 200, answer.body
        predictions = answer.json()["predictions"]
        if len(case.outputs) == 1:
            return {next(iter(case.outputs)): predictions}
        return {name: [row[name] for row in predictions] for name in case.outputs}

    def columns(self, case: Answer) -> dict[str, Any]:
        inputs = {name: spelled(array) for name, array in case.feeds.items()}
        answer = self.rest(json.dumps({"signature_name": case.signature, "inputs": inputs}), case.model)
        assert answer.status == 200, answer.body
        outputs = answer.json()["outputs"]
        return {next(iter(case.outputs)): outputs} if len(case.outputs) == 1 else outputs

    def rpc(self, case: Answer, content: bool) -> dict[str, np.ndarray]:
        request = rpcclient.predict_request(case.feeds, case.signature, content=content)
        request.model_spec.name = case.model
        return self.client.outputs(request)


def rows_of(feeds: Mapping[str, np.ndarray]) -> int:
    (rows,) = {len(array) for array in feeds.values()}
    return rows


def spelled(array: Any) -> Any:
    """An array as Python's json writes it; bytes as b64 objects."""
    if isinstance(array, bytes):
        return {"b64": base64.b64encode(array).decode()}
    if isinstance(array, np.ndarray) and array.dtype == object:
        return [spelled(each) for each in array]
    return np.asarray(array).tolist()


def read(name: str, value: Any, like: np.ndarray) -> np.ndarray:
    """What a client makes of a JSON value when it expects an array like that."""
    if like.dtype != object:
        return np.array(value, like.dtype)
    flat = [v["b64"] if name.endswith("_bytes") else v for v in np.ravel(np.array(value, object))]
    decoded = [base64.b64decode(v) if name.endswith("_bytes") else v.encode() for v in flat]
    array = np.empty(len(decoded), object)
    array[:] = decoded
    return array.reshape(like.shape)


def check(case: Answer, found: Mapping[str, Any]) -> None:
    assert set(found) == set(case.outputs)
    for name, expected in case.outputs.items():
        array = found[name] if isinstance(found[name], np.ndarray) else read(name, found[name], expected)
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert array.tolist() == expected.tolist() or np.testing.assert_array_equal(array, expected) is None


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    with rpcclient.face(tmp_path_factory.mktemp("rpc")) as (client, plane, _):
        yield Faces(App(plane, faceplane.configured(), plane.metrics), client)


@named([case for case in ANSWERS if case.json and case.rows])
def test_rest_rows(faces: Faces, case: Answer) -> None:
    check(case, faces.rows(case))


@named([case for case in ANSWERS if case.json])
def test_rest_columns(faces: Faces, case: Answer) -> None:
    check(case, faces.columns(case))


@pytest.mark.parametrize("content", [False, True], ids=["typed", "content"])
@named(ANSWERS)
def test_rpc(faces: Faces, case: Answer, content: bool) -> None:
    check(case, faces.rpc(case, content))


@named([case for case in REFUSALS if case.rest_error])
def test_rest_refusals(faces: Faces, case: Refusal) -> None:
    body = case.rest or ""
    if case.signature and "signature_name" not in body:
        body = f'{{"signature_name": "{case.signature}", {body[1:]}'
    answer = faces.rest(body)
    code, text = case.rest_error
    assert (answer.status, answer.error) == (HTTP_STATUS[code], text)


@named([case for case in REFUSALS if case.rpc_error])
def test_rpc_refusals(faces: Faces, case: Refusal) -> None:
    request = messages.from_text("tensorflow.serving.PredictRequest", case.rpc)
    assert faces.client.predict(request) == rpcclient.Refusal(*case.rpc_error)


@named(SPELLINGS)
def test_rest_spellings(faces: Faces, case: Spelling) -> None:
    body = case.body
    if case.signature:
        body = f'{{"signature_name": "{case.signature}", {body[1:]}'
    assert faces.rest(body).json() == case.answer


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, savedmodel: Callable[[str], Path]) -> Iterator[Faces]:
    """Faces over a real dataplane whose models run in TensorFlow as they are."""
    from tfopt_optimizer.flags import OptimizerFlags

    metrics, names = Metrics(), sorted({case.model for case in REAL_ANSWERS})
    options = LoadOptions(OptimizerFlags(disable_optimizer=True), tmp_path_factory.mktemp("plans"))
    registry = Registry(names)
    for name in names:
        version = registry.add(name, 1, savedmodel(name))
        registry.move(version, Event.LOAD)
        version.loaded = prepare(Source(name, 1, version.path), options, metrics)
        registry.move(version, Event.READY)
    plane = Dataplane(registry, Executor(metrics, 2), metrics)
    plane.metrics = metrics
    with rpcclient.face(tmp_path_factory.mktemp("rpc"), plane) as (client, _, _):
        yield Faces(App(plane, faceplane.configured(), metrics), client)
    plane.drain(5)


@pytest.mark.tensorflow
@named([case for case in REAL_ANSWERS if case.json and case.rows])
def test_real_rest_rows(real: Faces, case: Answer) -> None:
    check(case, real.rows(case))


@pytest.mark.tensorflow
@named([case for case in REAL_ANSWERS if case.json])
def test_real_rest_columns(real: Faces, case: Answer) -> None:
    check(case, real.columns(case))


@pytest.mark.tensorflow
@pytest.mark.parametrize("content", [False, True], ids=["typed", "content"])
@named(REAL_ANSWERS)
def test_real_rpc(real: Faces, case: Answer, content: bool) -> None:
    check(case, real.rpc(case, content))


@pytest.mark.tensorflow
def test_what_a_real_graph_refuses_is_the_clients_mistake_on_both_faces(real: Faces) -> None:
    answer = real.rest('{"inputs": {"a": [[1, 2, 3]], "b": [[1, 2, 3]]}}', "multi")
    assert answer.status == 400
    assert "Matrix size-incompatible" in answer.error
    request = rpcclient.predict_request({"a": np.ones((1, 3), np.float32), "b": np.ones((1, 3), np.float32)})
    request.model_spec.name = "multi"
    refused = real.client.predict(request)
    assert (refused.code.name, "Matrix size-incompatible" in refused.text) == ("INVALID_ARGUMENT", True)


@pytest.mark.tensorflow
def test_real_metadata_on_both_faces(real: Faces) -> None:
    rest = restclient.call(real.app, "GET", "/v1/models/strings/metadata").json()
    signature = rest["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["text"]["dtype"] == "DT_STRING"
    assert set(signature["outputs"]) == {"lower", "lower_bytes", "length"}
    request = messages.GetModelMetadataRequest(model_spec={"name": "strings"}, metadata_field=["signature_def"])
    answer = messages.GetModelMetadataResponse.FromString(
        real.client.call(rpcclient.PREDICTION + "GetModelMetadata", request)
    )
    packed = messages.SignatureDefMap.FromString(answer.metadata["signature_def"].value)
    assert set(packed.signature_def) == set(rest["metadata"]["signature_def"]["signature_def"])
