"""Classify, regress and MultiInference on a real model: as it is, and batched (example_cases.py)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import restclient
import rpcclient
from bothfaces import named, served
from example_cases import ANSWERS, REFUSED, ROUTED, TWO, Routed
from inference_cases import Case
from inferencefaces import Faces, check_rest, check_rpc, example, results, said, same
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.errors import Code
from tfopt_server.preparing import LoadOptions, Source
from tfopt_server.rest.status import HTTP_STATUS

pytestmark = pytest.mark.tensorflow
BATCHING = BatchingParameters(max_batch_size=16, allowed_batch_sizes=(1, 4, 16), batch_timeout_micros=0)


@pytest.fixture(scope="module", params=["plain", "batched"])
def faces(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, savedmodel: Callable[[str], Path]
) -> Iterator[Faces]:
    from tfopt_optimizer.flags import OptimizerFlags

    parameters = BATCHING if request.param == "batched" else None
    options = LoadOptions(
        OptimizerFlags(disable_optimizer=True), tmp_path_factory.mktemp("plans"), parameters=parameters
    )
    sources = [Source("examples", n, savedmodel(name)) for n, name in enumerate(("examples", "examples_next"), 1)]
    with served(tmp_path_factory.mktemp("rpc"), options, *sources) as both:
        both.registry.assign_labels("examples", {"stable": 1, "canary": 2})
        yield Faces(both.app, both.client, "examples")


ONE = {"version": {"value": 1}}
PATH = "examples/versions/1"


@named(ANSWERS)
def test_answers(faces: Faces, case: Case) -> None:
    check_rest(faces, case, PATH)
    check_rpc(faces, case, **ONE)
    (result,) = faces.multi(case, (case.signature, case.method), **ONE).results
    same(results(getattr(result, result.WhichOneof("result"))), case.results)


@named(REFUSED)
def test_refusals(faces: Faces, case: Case) -> None:
    answer, refused = faces.rest(case, PATH), faces.rpc(case, **ONE)
    assert (answer.status, refused.code) == (400, Code.INVALID_ARGUMENT)
    said(answer.error, case.results)
    said(refused.text, case.results)
    several = faces.multi(case, (case.signature, case.method), **ONE)
    assert several.code is Code.INVALID_ARGUMENT
    said(
        several.text,
        case.results.replace("No signature was found with the name", "Requested signature not found in model graph"),
    )


@named(ROUTED)
@pytest.mark.parametrize("method", ["classify", "regress"])
def test_versions_and_labels(faces: Faces, case: Routed, method: str) -> None:
    x = 102.0 if case.version == 2 else 2.0
    expected = [x] if method == "regress" else [[["?", 0.0]]]
    asked = Case("", method, "serving_default" if method == "regress" else "one_label", expected, TWO[:1])
    answer, message = faces.rest(asked, case.path), faces.rpc(asked, **case.spec)
    several = faces.multi(asked, (asked.signature, method), **case.spec)
    if case.code:
        assert (answer.status, answer.error) == (HTTP_STATUS[Code[case.code]], case.text)
        refused = rpcclient.Refusal(Code[case.code], case.text)
        assert (message, several) == (refused, refused)
        return
    assert answer.json() == {"results": expected}
    same(results(message.result), expected)
    assert message.model_spec.version.value == several.results[0].model_spec.version.value == case.version


def test_the_first_tasks_version_answers_all(faces: Faces) -> None:
    asked = Case("", "regress", "serving_default", None, TWO)
    answer = faces.multi(asked, ("serving_default", "regress"), ("both", "classify"), ("column", "regress"), **ONE)
    assert [r.WhichOneof("result") for r in answer.results] == [
        "regression_result", "classification_result", "regression_result"
    ]  # fmt: skip
    assert {r.model_spec.version.value for r in answer.results} == {1}
    assert results(answer.results[2].regression_result) == [2.0, 20.0]


def test_one_task_that_fails_fails_all(faces: Faces) -> None:
    asked = Case("", "regress", "serving_default", None, TWO)
    refused = faces.multi(asked, ("serving_default", "regress"), ("wide", "regress"), **ONE)
    assert refused.code is Code.INVALID_ARGUMENT


def test_predict_takes_serialized_examples(faces: Faces) -> None:
    """As the same signatures are called through :predict, in rows and in columns."""
    packed = [{"b64": base64.b64encode(example(each).SerializeToString()).decode()} for each in TWO]
    for signature, outputs in (("serving_default", [2.0, 20.0]), ("scores", None)):
        body: dict[str, Any] = {"signature_name": signature, "instances": packed}
        rows = restclient.call(faces.app, "POST", f"/v1/models/{PATH}:predict", json.dumps(body))
        columns = {"signature_name": signature, "inputs": {"inputs": packed}}
        whole = restclient.call(faces.app, "POST", f"/v1/models/{PATH}:predict", json.dumps(columns))
        assert rows.json()["predictions"] == whole.json()["outputs"]
        assert outputs is None or rows.json()["predictions"] == outputs
