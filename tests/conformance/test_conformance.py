"""Both faces against one table (tests/conformance_cases.py), over numpy functions and over real SavedModels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import faceplane
import numpy as np
import pytest
import restclient
import rpcclient
from bothfaces import Faces, check, named, served
from conformance_cases import ANSWERS, REAL_ANSWERS, REFUSALS, SPELLINGS, Answer, Refusal, Spelling
from tfopt_protos import messages
from tfopt_server.preparing import LoadOptions, Source
from tfopt_server.rest.app import App
from tfopt_server.rest.status import HTTP_STATUS


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

    options = LoadOptions(OptimizerFlags(disable_optimizer=True), tmp_path_factory.mktemp("plans"))
    sources = [Source(name, 1, savedmodel(name)) for name in sorted({case.model for case in REAL_ANSWERS})]
    with served(tmp_path_factory.mktemp("rpc"), options, *sources) as faces:
        yield faces


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
