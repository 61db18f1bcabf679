"""SavedModels that older TensorFlow releases wrote, served by this one with the answers that those gave (build.py)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfopt_optimizer import saved_model
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions, Source, prepare

pytestmark = pytest.mark.tensorflow
HERE = Path(__file__).parent
MODELS = sorted(path.parent for path in HERE.glob("*/*/answers.json"))
RELEASES = {"2.12": {"estimator_dnn", "keras_text", "keras_with_optimizer", "tf1_reference_variables", "tf1_tables"}}
PLAIN = OptimizerFlags(disable_optimizer=True)


def calls(model: Path) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """(signature, inputs, outputs) as the old release answered them."""
    for call in json.loads((model / "answers.json").read_text()):
        yield call["signature"], arrays(call["inputs"]), arrays(call["outputs"])


def arrays(found: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: array(each["dtype"], each["values"]) for name, each in found.items()}


def array(dtype: str, values: list) -> np.ndarray:
    if dtype != "bytes":
        return np.array(values, dtype)
    found = np.array(values, object)
    return np.array([base64.b64decode(v) for v in found.ravel()], object).reshape(found.shape)


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        if value.dtype == object:
            assert found[name].tolist() == value.tolist()
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


def test_the_set_is_whole():
    assert {p.name: {m.name for m in MODELS if m.parent == p} for p in {m.parent for m in MODELS}} == RELEASES


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.parent.name}/{m.name}")
def test_it_is_what_it_says(model):
    graph = saved_model.meta_graph(model / "1")
    assert graph.meta_info_def.tensorflow_version.startswith(model.parent.name)
    assert (graph.graph_def.versions.producer < 100) == model.name.startswith("tf1_")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.parent.name}/{m.name}")
def test_a_model_of_an_older_release_answers_as_it_did(model, tmp_path):
    answered(model, LoadOptions(PLAIN, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.parent.name}/{m.name}")
def test_and_so_does_its_plan(model, tmp_path):
    flags = OptimizerFlags(allow_precompilation=True, allowed_batch_sizes=(1, 4), optimize_budget_s=20.0)
    plan = answered(model, LoadOptions(flags, tmp_path))
    assert plan is not None


def answered(model: Path, options: LoadOptions) -> Any:
    loaded = prepare(Source("m", 1, model / "1"), options, Metrics())
    try:
        for key, inputs, outputs in calls(model):
            same(loaded.servable.signatures[key].run(inputs), outputs)
        return loaded.plan
    finally:
        loaded.servable.close()
