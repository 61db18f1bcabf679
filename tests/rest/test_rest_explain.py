""":explain: attributions in Vertex AI's schema, and what they are worth."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import faceplane
import numpy as np
import pytest
import restclient
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_server.rest import explain
from tfopt_server.rest.app import App
from tfopt_server.rest.vertex import explain_path

W = np.float32([[1, -2], [3, 4], [0.5, 0.25]])
TARGET = "/v1/models/m:explain"


def signature(key: str, function: Any, inputs: dict[str, Any], outputs: dict[str, Any]) -> faceplane.Signature:
    """`inputs`, `outputs`: name to (dtype, shape)."""
    ins, outs = (
        tuple(TensorInfo(n, d, s, f"{n}_tensor:0") for n, (d, s) in side.items()) for side in (inputs, outputs)
    )
    return faceplane.Signature(SignatureInfo(key, "tensorflow/serving/predict", ins, outs), function)


def _linear(x: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(invalid="ignore"):
        return {"y": x @ W}


def _product(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> dict[str, np.ndarray]:
    """Numeric and categorical, with interactions; int, string and bool."""
    return {"y": a * np.float32([1 if v == b"red" else 2 for v in b]) + np.where(c, a * a, 1).astype(np.float32)}


def _wide(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"y": np.tanh(x).sum(axis=1) + x.prod(axis=1)}


def _named(x: np.ndarray) -> dict[str, np.ndarray]:
    names = np.array([[b"low", b"high"]] * len(x), object)
    return {"scores": x @ W, "names": names}


def _ranked(x: np.ndarray) -> dict[str, np.ndarray]:
    """Rows depend on each other."""
    return {"y": x[:, 0] - x[:, 0].mean() + x[:, 1]}


def _scaled(x: np.ndarray, factor: np.ndarray) -> dict[str, np.ndarray]:
    return {"y": x * factor}


FLOATS = ("float", (None, 3))
SIGNATURES = (
    signature("serving_default", _linear, {"x": FLOATS}, {"y": ("float", (None, 2))}),
    signature("product", _product, {"a": ("float", (None,)), "b": ("string", (None,)), "c": ("bool", (None,))},
              {"y": ("float", (None,))}),
    signature("wide", _wide, {"x": ("float", (None, 20))}, {"y": ("float", (None,))}),
    signature("named", _named, {"x": FLOATS}, {"scores": ("float", (None, 2)), "names": ("string", (None, 2))}),
    signature("ranked", _ranked, {"x": ("float", (None, 2))}, {"y": ("float", (None,))}),
    signature("scaled", _scaled, {"x": ("float", (None,)), "factor": ("float", ())}, {"y": ("float", (None,))}),
    signature("many", lambda x: {"a": x, "b": x}, {"x": ("float", (None,))}, {"a": ("float", (None,)),
                                                                              "b": ("float", (None,))}),
    signature("mislabelled", lambda x: {"y": x @ W, "names": np.array([b"a"] * len(x), object)}, {"x": FLOATS},
              {"y": ("float", (None, 2)), "names": ("string", (None,))}),
    signature("total", lambda x: {"y": x.sum()}, {"x": ("float", (None,))}, {"y": ("float", ())}),
)  # fmt: skip


class Face:
    def __init__(self, *argv: str, batch: int = 8) -> None:
        self.plane = faceplane.FakePlane({("m", 1): SIGNATURES})
        self.plane.batch = batch
        self.app = App(self.plane, faceplane.configured(*argv), self.plane.metrics)

    def post(self, instances: list[Any], target: str = TARGET, **rest: Any) -> restclient.Answer:
        return restclient.call(self.app, "POST", target, {"instances": instances, **rest})

    def attributions(self, instances: list[Any], **rest: Any) -> list[list[dict[str, Any]]]:
        answer = self.post(instances, **rest)
        assert answer.status == 200, answer.body
        assert self.plane.held == 0
        return [e["attributions"] for e in answer.json()["explanations"]]


@pytest.fixture
def face() -> Face:
    return Face()


def spec(metadata: Any = None, **parameters: Any) -> dict[str, Any]:
    return {"explanation_spec_override": {"parameters": parameters, **({"metadata": metadata} if metadata else {})}}


def test_a_linear_model_is_explained_exactly(face: Face) -> None:
    answer = face.post([[1, 2, 4], [0, 1, 0]])
    assert answer.json() == {
        "explanations": [
            {"attributions": [{
                "baselineOutputValue": 0.0, "instanceOutputValue": 9.0, "featureAttributions": {"x": [1.0, 6.0, 2.0]},
                "outputName": "y", "outputIndex": [0], "approximationError": 0.0,
            }]},
            {"attributions": [{
                "baselineOutputValue": 0.0, "instanceOutputValue": 4.0, "featureAttributions": {"x": [0.0, 4.0, 0.0]},
                "outputName": "y", "outputIndex": [1], "approximationError": 0.0,
            }]},
        ],
        "predictions": [[9.0, 7.0], [3.0, 4.0]],
    }  # fmt: skip


PRODUCT = [{"a": 3, "b": "red", "c": True}, {"a": -1, "b": "blue", "c": False}]


def exact(instance: dict[str, Any], baseline: dict[str, Any]) -> dict[str, float]:
    """By the definition, over all orders."""

    def value(chosen: set[str]) -> float:
        row = {n: instance[n] if n in chosen else baseline[n] for n in instance}
        feeds = {"a": np.float32([row["a"]]), "b": np.array([row["b"].encode()], object), "c": np.array([row["c"]])}
        return float(_product(**feeds)["y"][0])

    found = dict.fromkeys(instance, 0.0)
    for order in itertools.permutations(instance):
        for i, name in enumerate(order):
            found[name] += (value({*order[: i + 1]}) - value({*order[:i]})) / math.factorial(len(instance))
    return found


@pytest.mark.parametrize("baseline", [{"a": 0, "b": "", "c": False}, {"a": 2, "b": "blue", "c": True}])
def test_numeric_and_categorical_features_equal_the_exact_values(face: Face, baseline: dict[str, Any]) -> None:
    inputs = {name: {"inputBaselines": [value]} for name, value in baseline.items()}
    found = face.attributions(PRODUCT, signature_name="product", **spec({"inputs": inputs}))
    for (each,), instance in zip(found, PRODUCT, strict=True):
        assert each["featureAttributions"] == pytest.approx(exact(instance, baseline), abs=1e-6)
        assert "outputIndex" not in each  # the prediction is a scalar


def test_several_baselines_are_averaged(face: Face) -> None:
    two = [{"a": 2, "b": "blue", "c": True}, {"a": 0, "b": "blue", "c": False}]
    inputs = {
        "a": {"input_baselines": [2, 0]},
        "b": {"input_baselines": ["blue"]},
        "c": {"inputBaselines": [True, False]},
    }
    ((each,),) = face.attributions(PRODUCT[:1], signature_name="product", **spec({"inputs": inputs}))
    several = [exact(PRODUCT[0], baseline) for baseline in two]
    assert each["featureAttributions"] == pytest.approx(
        {n: (several[0][n] + several[1][n]) / 2 for n in "abc"}, abs=1e-6
    )
    assert each["baselineOutputValue"] == pytest.approx((2 * 2 + 4 + 1) / 2)


@pytest.mark.parametrize("paths", [1, 2, 9])
def test_sampled_attributions_sum_to_the_difference(face: Face, paths: int) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 20)).round(3).tolist()
    found = face.attributions(rows, signature_name="wide", **spec(sampledShapleyAttribution={"pathCount": paths}))
    for (each,) in found:
        difference = each["instanceOutputValue"] - each["baselineOutputValue"]
        assert sum(each["featureAttributions"]["x"]) == pytest.approx(difference, abs=1e-5)
        assert ("approximationError" in each) is (paths >= 4)
    assert max(len(c[2]["x"]) for c in face.plane.calls) <= face.plane.batch


def test_the_same_request_gets_the_same_answer(face: Face) -> None:
    rows = [[i / 7 for i in range(20)]]
    assert face.post(rows, signature_name="wide").body == face.post(rows, signature_name="wide").body


def test_elements_of_the_output(face: Face) -> None:
    x = [1, 2, 4]
    both = face.attributions([x], **spec(topK=-1))[0]
    assert [a["outputIndex"] for a in both] == [[0], [1]]
    assert [a["featureAttributions"]["x"] for a in both] == [[1.0, 6.0, 2.0], [-2.0, 8.0, 1.0]]
    assert [a["outputIndex"] for a in face.attributions([x], **spec(topK=5))[0]] == [[0], [1]]
    for indices in ([1], [[1]]):
        (one,) = face.attributions([x], **spec(outputIndices=indices))[0]
        assert one["instanceOutputValue"] == 7.0


def test_display_names_of_an_output(face: Face) -> None:
    rest = {"signature_name": "named"}
    metadata = {"outputs": {"risk": {"outputTensorName": "scores_tensor:0", "displayNameMappingKey": "names"}}}
    (one,) = face.attributions([[1, 2, 4]], **rest, **spec(metadata))[0]
    assert (one["outputName"], one["outputDisplayName"]) == ("risk", "low")
    metadata = {"outputs": {"scores": {"index_display_name_mapping": ["no", "yes"]}}}
    (one,) = face.attributions([[0, 1, 0]], **rest, **spec(metadata))[0]
    assert (one["outputName"], one["outputDisplayName"], one["outputIndex"]) == ("scores", "yes", [1])


METADATA = {
    "framework": "tensorflow",
    "inputs": {
        "amount": {"input_tensor_name": "a_tensor:0", "input_baselines": [2], "group_name": "both"},
        "colour": {"input_tensor_name": "b", "encoding": "identity", "group_name": "both"},
        "flag": {"input_tensor_name": "c"},
    },
    "outputs": {"score": {"output_tensor_name": "y_tensor:0"}},
}


def test_the_file_beside_the_model_names_features_and_baselines(face: Face, tmp_path: Path) -> None:
    face.plane.folder = tmp_path
    (tmp_path / explain.METADATA_FILE).write_text(json.dumps(METADATA))
    (one,) = face.attributions(PRODUCT[:1], signature_name="product")[0]
    assert one["outputName"] == "score"
    assert set(one["featureAttributions"]) == {"both", "flag"}
    assert sum(one["featureAttributions"].values()) == pytest.approx(12 - 5)
    override = spec({"inputs": {"flag": {"inputBaselines": [True]}}})
    (one,) = face.attributions(PRODUCT[:1], signature_name="product", **override)[0]
    assert one["featureAttributions"] == {"both": 4.0, "flag": 0.0}
    (tmp_path / explain.METADATA_FILE).write_text("{")
    answer = face.post(PRODUCT, signature_name="product")
    assert (answer.status, answer.error.startswith("The model's explanation_metadata.json: ")) == (400, True)


def test_the_operators_file_wins_over_the_models(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({"parameters": {"sampledShapleyAttribution": {"pathCount": 3}, "topK": -1},
                                "metadata": {"inputs": {"x": {"inputBaselines": [1]}}}}))  # fmt: skip
    face = Face(f"--explanation_spec_file={file}")
    face.plane.folder = tmp_path
    (tmp_path / explain.METADATA_FILE).write_text("{")
    first, second = face.attributions([[1, 2, 1]])[0]
    assert first["featureAttributions"] == {"x": [0.0, 3.0, 0.0]}
    assert second["featureAttributions"] == {"x": [0.0, 4.0, 0.0]}
    file.write_text('{"parameters": {"topK": "x"}}')
    with pytest.raises(explain.ExplanationSpecError, match=r"spec.json: --explanation_spec_file: parameters: topK"):
        Face(f"--explanation_spec_file={file}")


def test_what_a_request_gives_as_parameters_is_no_feature(face: Face) -> None:
    (one,) = face.attributions([3], signature_name="scaled", parameters={"factor": 2})[0]
    assert one["featureAttributions"] == {"x": 6.0}


def test_where_rows_depend_on_each_other_each_runs_alone() -> None:
    face = Face(batch=0)
    found = face.attributions([[5, 1], [7, 2]], signature_name="ranked")
    assert [a["featureAttributions"] for (a,) in found] == [{"x": [0.0, 1.0]}, {"x": [0.0, 2.0]}]
    assert [len(c[2]["x"]) for c in face.plane.calls][1:] == [1] * 8


REFUSALS: list[tuple[Any, str]] = [
    (spec(sampledShapleyAttribution={"pathCount": 51}), "explanation_spec_override: parameters: "
     "sampledShapleyAttribution: pathCount: expected a whole number from 1 to 50, received 51"),
    (spec(sampledShapleyAttribution={}), "pathCount: expected a whole number from 1 to 50, received None"),
    (spec(integratedGradientsAttribution={"stepCount": 5}), "expected sampledShapleyAttribution, received integrated"),
    (spec(outputIndices=[2]), "outputIndices: expected an index into a row of shape [2], received 2"),
    (spec(outputIndices=[[0, 0]]), "outputIndices: expected an index into a row of shape [2], received [0, 0]"),
    (spec(outputIndices=1), "outputIndices: expected a list, received 1"),
    (spec({"inputs": {"z": {"inputBaselines": [1]}}}), "explanation_spec_override: 'z' is no feature; there are x"),
    (spec({"inputs": {"x": {"inputBaselines": [[1, 2]]}}}), "inputBaselines of x: expected float of shape [3] or one"),
    (spec({"inputs": {"x": {"inputBaselines": ["a"]}}}), "inputBaselines of x: expected float of shape [3] or one"),
    (spec({"inputs": {"x": {"inputBaselines": 1}}}), "inputs: x: inputBaselines: expected a list"),
    (spec({"inputs": {"x": {"encoding": "CONCAT_EMBEDDING"}}}), "encoding: expected IDENTITY or BAG_OF_FEATURES"),
    (spec({"inputs": []}), "explanation_spec_override: metadata: inputs: expected an object, received []"),
    (spec({"outputs": {"z": {}}}), "explanation metadata: outputs: z: no numeric output 'z'; there are y"),
    (spec({"outputs": {"y": {"displayNameMappingKey": "q"}}}), "displayNameMappingKey: no output 'q' in the signature"),
    (spec({"outputs": {"y": {}, "z": {}}}), "outputs: expected one output, received y, z"),
    ({"signature_name": "mislabelled", **spec({"outputs": {"y": {"displayNameMappingKey": "names"}}})},
     "displayNameMappingKey: expected an output of shape [1, 2], as 'y' has, received 'names' of shape [1]"),
    ({"explanation_spec_override": 1}, "explanation_spec_override: expected an object, received 1"),
    ({"signature_name": "nope"}, 'Serving signature name: "nope" not found in signature def'),
    ({"signature_name": "many", "instances": [1]}, "expected the output to explain in the metadata's outputs; the "
     "signature has these numbers: a, b"),
    ({"signature_name": "total", "instances": [1]}, "output 'y' has shape []: expected a row for each of 1"),
    ({"instances": [1, [2]]}, "Failed to process element: 1 of 'instances' list."),
]  # fmt: skip


@pytest.mark.parametrize(("rest", "text"), REFUSALS)
def test_requests_that_are_refused(face: Face, rest: Any, text: str) -> None:
    answer = restclient.call(face.app, "POST", TARGET, {"instances": [[1, 2, 4]], **rest})
    assert answer.status == 400
    assert text in answer.error
    assert face.plane.held == 0


def test_columns_are_refused(face: Face) -> None:
    answer = restclient.call(face.app, "POST", TARGET, {"inputs": [[1, 2, 3]]})
    assert answer.error == "explain takes rows: expected 'instances', received inputs"


def test_requests_that_are_too_large_say_what_to_change() -> None:
    face = Face("--max_explain_rows=50")
    answer = face.post([[0.5] * 20], signature_name="wide")
    assert answer.error == (
        "20 features, 10 paths, 1 baselines and 1 instances mean 191 rows to run, and --max_explain_rows allows 50: "
        "send fewer instances, lower pathCount, or give inputs a groupName"
    )
    assert face.plane.calls == []


@pytest.mark.parametrize(
    ("predict", "explains"),
    [
        ("/predict", "/explain"),
        ("/v1/endpoints/1/deployedModels/2:predict", "/v1/endpoints/1/deployedModels/2:explain"),
        ("/v1/models/m:predict", "/v1/models/m:explain"),
        ("/V1/models/m/versions/1:predict", "/V1/models/m/versions/1:explain"),
        ("/run", "/run:explain"),
    ],
)
def test_the_route_stands_beside_the_predict_route(predict: str, explains: str) -> None:
    assert explain_path(predict) == explains
    face = Face(f"--predict_route={predict}")
    assert face.post([[1, 2, 4]], explains).status == 200
    assert face.post([[1, 2, 4]], "/v1/models/m/versions/1:explain").status == 200
    assert face.post([[1, 2, 4]], "/v1/models/other:explain").status == 404


def test_nan_is_a_bare_token(face: Face) -> None:
    answer = face.post([[float("inf"), 0, 0]])
    assert b"NaN" in answer.body
    assert b"Infinity" in answer.body


def test_explanations_take_turns_and_predicts_need_not_wait() -> None:
    """While one explanation runs, another waits; a predict is answered at once; who leaves stops the runs."""
    gate, began = threading.Event(), threading.Event()

    def gated(x: np.ndarray) -> dict[str, np.ndarray]:
        if x.shape[1] == 3:
            began.set()
            gate.wait(10)
        return {"y": x.sum(axis=1)}

    face = Face()
    slow = signature("slow", gated, {"x": ("float", (None, None))}, {"y": ("float", (None,))})
    face.plane.models["m", 1]["slow"] = slow

    async def story() -> None:
        body = json.dumps({"instances": [[1, 2, 3]], "signature_name": "slow"}).encode()
        first, second = (asyncio.ensure_future(restclient.acall(face.app, "POST", TARGET, body)) for _ in range(2))
        await asyncio.to_thread(began.wait, 10)
        predict = await restclient.acall(face.app, "POST", "/predict", b'{"instances": [[1, 2, 4]]}')
        assert predict.json() == {"predictions": [[9.0, 7.0]]}
        assert sum(call[1] == "slow" for call in face.plane.calls) == 1
        second.cancel()
        gate.set()
        assert (await first).status == 200

    asyncio.run(story())
    assert face.plane.held == 0


def test_no_run_of_an_explanation_is_larger_than_a_batch() -> None:
    """Nor that of the instances themselves: what is in the queue behind one waits for no more than that."""
    face = Face(batch=4)
    rows = np.arange(27, dtype=np.float32).reshape(9, 3)
    answer = face.post(rows.tolist())
    assert answer.json()["predictions"] == (rows @ W).tolist()
    found = [each["attributions"][0]["featureAttributions"]["x"] for each in answer.json()["explanations"]]
    np.testing.assert_allclose(found, rows * W.T[(rows @ W).argmax(axis=1)], atol=1e-4)
    assert max(len(call[2]["x"]) for call in face.plane.calls) == 4


def test_explanations_end_at_the_deadline() -> None:
    face = Face("--rest_api_timeout_in_ms=200", batch=1)

    def lingers(x: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(0.02)
        return {"y": x.sum(axis=1)}

    face.plane.models["m", 1]["lingers"] = signature(
        "lingers", lingers, {"x": ("float", (None, 20))}, {"y": ("float", (None,))}
    )
    answer = face.post([[0.5] * 20], signature_name="lingers")
    assert (answer.status, answer.error) == (504, "Explaining timed out")
    assert len(face.plane.calls) < 30


def test_more_than_can_wait_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "MOST_WAITING", 0)
    answer = Face().post([[1, 2, 3]])
    assert (answer.status, "try again later" in answer.error, answer.headers["retry-after"]) == (429, True, "1")
