"""The conformance table on real SavedModels through REST and gRPC: as they are, batched, and by an optimized plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import restclient
import rpcclient
from bothfaces import Faces, check, named, served
from conformance_cases import Answer
from served_cases import ANSWERS, PLANNED, ROUTES, VERSIONED, Route, Versioned
from tfopt_protos import messages
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.preparing import LoadOptions, Source
from tfopt_server.rest.status import HTTP_STATUS

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("optimized_here")]
Find = Callable[[str], Path]
HALF = ("half_plus_two", "half_plus_two_v1", "half_plus_two_v1_ref")
BATCHING = BatchingParameters(max_batch_size=16, allowed_batch_sizes=(1, 4, 16), batch_timeout_micros=0)


def plain(cache: Path, parameters: BatchingParameters | None = None) -> LoadOptions:
    from tfopt_optimizer.flags import OptimizerFlags

    return LoadOptions(OptimizerFlags(disable_optimizer=True), cache, parameters=parameters)


@pytest.fixture(scope="module", params=["plain", "batched"])
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, savedmodel: Find
) -> Iterator[Faces]:
    """forms, counter, and half_plus_two in three versions with labels."""
    options = plain(tmp_path_factory.mktemp("plans"), BATCHING if request.param == "batched" else None)
    half = [Source("half", n, savedmodel(name)) for n, name in enumerate(HALF, 1)]
    others = [Source(name, 1, savedmodel(name)) for name in ("forms", "planned", "counter")]
    with served(tmp_path_factory.mktemp("rpc"), options, *half, *others) as faces:
        faces.registry.assign_labels("half", {"stable": 1, "canary": 2})
        yield faces


@pytest.fixture(scope="module")
def optimized(tmp_path_factory: pytest.TempPathFactory, savedmodel: Find) -> Iterator[Faces]:
    """The model `planned` by a plan whose buckets of 1 and 4 rows run compiled: plain TensorFlow, faster on so small a
    model, may not win."""
    from tfopt_optimizer.flags import OptimizerFlags

    flags = OptimizerFlags(
        allow_precompilation=True, allowed_batch_sizes=(1, 4), engines=("xla",), without_tensorflow=True
    )
    options = LoadOptions(flags, tmp_path_factory.mktemp("plans"))
    with served(tmp_path_factory.mktemp("rpc"), options, Source("planned", 1, savedmodel("planned"))) as faces:
        # The first request outside the plan loads TensorFlow, which takes seconds.
        outside = rpcclient.predict_request({"x": np.ones((2, 3), np.float32)}, "centered")
        outside.model_spec.name = "planned"
        assert not isinstance(faces.client.predict(outside, timeout=120), rpcclient.Refusal)
        yield faces


def through_all_faces(faces: Faces, case: Answer) -> None:
    for content in (False, True):
        check(case, faces.rpc(case, content))
    if case.json:
        check(case, faces.columns(case))
    if case.json and case.rows:
        check(case, faces.rows(case))


@named([*ANSWERS, *PLANNED])
def test_answers(models: Faces, case: Answer) -> None:
    through_all_faces(models, case)


@named(PLANNED)
def test_answers_of_an_optimized_plan(optimized: Faces, case: Answer) -> None:
    through_all_faces(optimized, case)


@pytest.fixture
def a_row_costs_the_same_in_all(optimized: Faces) -> Iterator[Faces]:
    """As if the buckets had been measured so: rows between them go through several in turn."""
    (version,) = optimized.registry.available()
    lanes = [lane for lane in version.loaded.lanes.values() if lane.runner.buckets]
    measured = [[lane.runner.bucket_for(rows) for rows in lane.runner.buckets] for lane in lanes]
    for lane, buckets in zip(lanes, measured, strict=True):
        lane.runner._set([dataclasses.replace(bucket, cost_us=5_000.0 * bucket.batch) for bucket in buckets])
        lane._set_rules()
    yield optimized
    for lane, buckets in zip(lanes, measured, strict=True):
        lane.runner._set(buckets)
        lane._set_rules()


@named(PLANNED)
def test_answers_of_rows_in_pieces(a_row_costs_the_same_in_all: Faces, case: Answer) -> None:
    through_all_faces(a_row_costs_the_same_in_all, case)


def test_pieces_are_counted_in_their_buckets(a_row_costs_the_same_in_all: Faces) -> None:
    faces = a_row_costs_the_same_in_all

    def counted() -> dict[tuple[str, ...], float]:
        rows = faces.plane.metrics.rows.children().items()
        return {key[1:]: child.value for key, child in rows if key[2].startswith("xla")}

    before = counted()
    request = rpcclient.predict_request({"x": np.ones((7, 3), np.float32)})
    request.model_spec.name = "planned"
    assert faces.client.outputs(request)["y"].shape == (7, 2)
    more = {key: count - before.get(key, 0.0) for key, count in counted().items() if count != before.get(key)}
    assert more == {("serving_default", "xla", "4"): 4.0, ("serving_default", "xla", "1"): 3.0}


def test_the_plan_runs_elsewhere_and_merges_only_what_may_be_merged(optimized: Faces) -> None:
    (plan,) = optimized.plane.plans().values()
    engines = {s.signature.key: {b.engine for b in s.buckets} for s in plan.signatures}
    assert engines["serving_default"] == {"xla"}
    assert {s.signature.key: s.row_independent for s in plan.signatures} == {
        "serving_default": True, "pair": True, "centered": False, "total": False, "scalar": False,
    }  # fmt: skip


def refusals(faces: Faces, case: Route) -> None:
    if case.rpc is not None:
        refused = faces.client.predict(messages.from_text("tensorflow.serving.PredictRequest", case.rpc))
        assert isinstance(refused, rpcclient.Refusal), refused
        assert refused.code is case.code
        says(refused.text, case.text)
    if case.rest is not None:
        answer = faces.rest(case.rest, case.path)
        assert answer.status == HTTP_STATUS[case.rest_code or case.code]
        says(answer.error, case.rest_text or case.text)


def says(found: str, expected: str) -> None:
    assert found == expected if not expected.endswith("*") else found.startswith(expected[:-1]), found


@named(ROUTES)
def test_refusals(models: Faces, case: Route) -> None:
    refusals(models, case)


@pytest.mark.parametrize("width", [2, 4])
def test_a_plan_refuses_what_the_graph_refuses_in_its_words(models: Faces, optimized: Faces, width: int) -> None:
    for rows in (1, 3, 4, 9):
        found = []
        for faces in (models, optimized):
            request = rpcclient.predict_request({"x": np.ones((rows, width), np.float32)})
            request.model_spec.name = "planned"
            body = {"instances": np.ones((rows, width)).tolist()}
            answer = restclient.call(faces.app, "POST", "/v1/models/planned:predict", body)
            refused = faces.client.predict(request)
            assert (answer.status, refused.code.name) == (400, "INVALID_ARGUMENT")
            assert refused.text == answer.error
            found.append(refused.text.partition("\n")[0])
        assert found[0].startswith(f"Matrix size-incompatible: In[0]: [{rows},{width}], In[1]: [3,2]")
        assert found[1].startswith(f"Matrix size-incompatible: In[0]: [{rows},{width}], In[1]: [3,2]")


@named(VERSIONED)
def test_versions_and_labels(models: Faces, case: Versioned) -> None:
    answer = models.rest('{"instances": [[1], [4]]}', case.path)
    assert (answer.status, answer.json()) == (200, {"predictions": [[2.5], [4.0]]})
    text = f'model_spec {{ name: "half" {case.spec} }} ' + (
        'inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } dim { size: 1 } } float_val: 1 } }'
    )
    found = models.client.predict(messages.from_text("tensorflow.serving.PredictRequest", text))
    assert (found.model_spec.version.value, found.model_spec.signature_name) == (case.version, "serving_default")
    assert list(found.outputs["y"].float_val) == [2.5]


@pytest.mark.parametrize(
    ("asked", "given"), [((), {"sum", "text"}), (("text",), {"text"}), (("text", "sum"), {"sum", "text"})]
)
def test_output_filter(models: Faces, asked: tuple[str, ...], given: set[str]) -> None:
    feeds = {"a": np.float32([1]), "b": np.array([b"x"], object)}
    request = rpcclient.predict_request(feeds, "two", asked)
    request.model_spec.name = "forms"
    assert set(models.client.outputs(request)) == given


def test_fewer_values_than_elements_repeat_the_last(models: Faces) -> None:
    tensor = "dtype: DT_FLOAT tensor_shape { dim { size: 4 } } float_val: [2, 4]"
    text = f'model_spec {{ name: "forms" }} inputs {{ key: "x" value {{ {tensor} }} }}'
    found = models.client.predict(messages.from_text("tensorflow.serving.PredictRequest", text))
    assert list(found.outputs["y"].float_val) == [3.0, 4.0, 4.0, 4.0]


def test_a_stateful_model_runs_every_request_once_as_it_came(models: Faces) -> None:
    """Three rows in a bucket of four would count the padding as well."""
    get = rpcclient.predict_request({}, "get")
    get.model_spec.name = "counter"
    assert float(models.client.outputs(get)["count"]) == 0.0  # nor was it warmed with anything
    assert models.rest('{"instances": [1, 1, 1]}', "counter").json() == {"predictions": [3.0, 3.0, 3.0]}
    assert models.rest('{"inputs": [10]}', "counter").json() == {"outputs": [13.0]}
    assert float(models.client.outputs(get)["count"]) == 13.0
