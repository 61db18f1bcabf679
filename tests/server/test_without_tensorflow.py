"""A server that has no TensorFlow: it runs the plans that were made for it, and says what it cannot do."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tfopt_optimizer import carried, lazy_tensorflow
from tfopt_optimizer import plan as plans
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_server.errors import Code, ServingError
from tfopt_server.executor import Executor
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadError, LoadOptions, Source, prepare

pytestmark = pytest.mark.tensorflow
FLAGS = OptimizerFlags(allowed_batch_sizes=(1, 4))


@pytest.fixture(scope="module")
def cache(savedmodel: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan cache that a machine with TensorFlow filled, for servers without."""
    folder = tmp_path_factory.mktemp("plans")
    command = [sys.executable, "-m", "tfopt_server", "optimize", str(savedmodel("half_plus_two"))]
    wishes = ["--without_tensorflow", "--engines=litert", "--allowed_batch_sizes=1,4", "--optimize_budget_s=1"]
    subprocess.run([*command, f"--plan_cache_dir={folder}", *wishes], check=True, capture_output=True)
    return folder


@pytest.fixture
def model(savedmodel_copy: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model with the plan in it, on a server without TensorFlow and with another processor."""
    folder = savedmodel_copy("half_plus_two")
    (plan,) = (p.parent for p in cache.glob("*/plan.json"))
    place = Path(shutil.copytree(plan, carried.folder(folder) / plan.name))
    found = plans.read(place)
    elsewhere = {**found.fingerprint.hardware, "processor": "Another", "cores": "96"}
    plans.write(
        dataclasses.replace(found, fingerprint=dataclasses.replace(found.fingerprint, hardware=elsewhere)), place
    )
    monkeypatch.setattr(lazy_tensorflow, "installed", lambda: False)
    return folder


def options(cache: Path, flags: OptimizerFlags = FLAGS) -> LoadOptions:
    return LoadOptions(flags, cache)


def why_not(folder: Path, cache: Path, flags: OptimizerFlags = FLAGS) -> tuple[Code, str]:
    with pytest.raises(LoadError) as caught:
        prepare(Source("m", 1, folder), options(cache, flags), Metrics())
    return caught.value.code, caught.value.message


def test_a_plan_of_another_processor_is_better_than_none(model: Path, tmp_path: Path) -> None:
    loaded = prepare(Source("m", 1, model), options(tmp_path), Metrics())
    buckets = loaded.servable.signatures["serving_default"].all_buckets()
    assert {b.engine.partition("/")[0] for b in buckets} == {"litert"}  # how many fit into a second is the machine's
    assert "measured where this was otherwise: hardware.cores: 96 != " in loaded.why
    assert loaded.warning == ""
    loaded.servable.close()


def test_requests_outside_the_plan_are_refused_by_name(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = prepare(Source("m", 1, model), options(tmp_path), Metrics())
    executor = Executor(Metrics(), 1)
    lane = loaded.lanes["serving_default"]

    def run(x: np.ndarray) -> list[float]:
        found = executor.start(lane, {"x": x})
        result = found if isinstance(found, tuple) else found.result(10)
        return [float(v) for v in result.outputs["y"].ravel()]

    def refused(x: np.ndarray) -> ServingError:
        with pytest.raises(ServingError) as caught:
            run(x)
        return caught.value

    assert run(np.full([5, 1], 2, np.float32)) == [3.0] * 5
    nothing = refused(np.ones([0, 1], np.float32))
    assert (nothing.code, "no rows; requests outside the plan need TensorFlow" in nothing.message) == (
        Code.UNIMPLEMENTED,
        True,
    )
    assert (
        "is outside the plan (no rows) and is refused, for TensorFlow is not installed: x: float32[0, 1]" in caplog.text
    )
    wrong = refused(np.ones([1, 1], np.float64))
    assert (wrong.code, wrong.message) == (Code.INVALID_ARGUMENT, "input 'x': expected float, received float64")
    executor.finish(10)
    loaded.servable.close()


def test_a_plan_may_lie_in_the_cache(
    savedmodel: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_tensorflow, "installed", lambda: False)
    loaded = prepare(Source("m", 1, savedmodel("half_plus_two")), options(cache), Metrics())
    assert loaded.why.startswith(f"it lies in the cache ({cache}/")
    loaded.servable.close()


def test_no_plan_is_an_error_that_says_what_was_there(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    code, message = why_not(model, tmp_path, OptimizerFlags(allowed_batch_sizes=(1, 2)))
    assert code == Code.FAILED_PRECONDITION
    assert message.startswith(f"no plan for {model} can be used, and TensorFlow is not installed to make one")
    assert message.endswith("it is for something else: flags.allowed_batch_sizes: [1, 4] != [1, 2]")
    shutil.rmtree(carried.folder(model))
    code, message = why_not(model, tmp_path)
    assert code == Code.FAILED_PRECONDITION
    assert message.endswith(f"there is none in the model (tfopt optimize --in_place) or in {tmp_path}")


def test_a_model_that_is_to_run_as_it_is_needs_tensorflow(model: Path, tmp_path: Path) -> None:
    code, message = why_not(model, tmp_path, OptimizerFlags(disable_optimizer=True))
    assert (code, message) == (
        Code.FAILED_PRECONDITION,
        f"{model} needs TensorFlow, which is not installed here",
    )


def test_an_engine_that_does_not_load_fails_the_version(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    code, message = why_not(model, tmp_path)
    assert code == Code.FAILED_PRECONDITION
    assert "litert cannot be loaded, and TensorFlow is not installed to take its place: " in message
