"""A device without memory for a bucket: PJRT's own error, at load and at run, from a module that asks for 64 TB."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from tfopt_optimizer import exhausted
from tfopt_optimizer.engines import artifacts, pjrt, weights
from tfopt_optimizer.errors import EngineError, OutOfMemory
from tfopt_optimizer.plan import BucketPlan, Candidate, Measured
from tfopt_optimizer.servable import Servable

SAYS = "Out of memory allocating"
EXECUTABLE = artifacts.executable("pjrt")


def module_without_end(inputs):
    """A module of these parameters (arrays) whose result no machine can hold."""
    types = [f"tensor<{'x'.join(map(str, a.shape))}xf32>" for a in inputs]
    given = ", ".join(f"%a{i}: {t}" for i, t in enumerate(types))
    return f"""
module @m {{ func.func public @main({given}) -> tensor<4x4000000000000xf32> {{
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %all = stablehlo.broadcast_in_dim %one, dims = [] : (tensor<f32>) -> tensor<4x4000000000000xf32>
  return %all : tensor<4x4000000000000xf32>
}} }}""".encode()


@pytest.fixture
def plan_copy(mlp, tmp_path):
    return mlp.model, shutil.copytree(mlp.folder, tmp_path / "plan"), mlp.plan


@pytest.fixture
def planted(plan_copy, mlp):
    """The plan with such a module, compiled, in its bucket of 4 rows."""
    model, folder, plan = plan_copy
    place = folder / "s0" / "b4"
    arrays = weights.read(folder)
    inputs = [mlp.x[:4], *(arrays[n] for n in artifacts.read_meta(place).weights)]
    executable = pjrt.client(2).compile(module_without_end(inputs))
    (place / EXECUTABLE).write_bytes(executable.serialize())
    return model, folder, plan


def test_the_runtimes_error_is_known():
    x = np.ones(2, np.float32)
    executable = pjrt.client(2).compile(module_without_end([x]))
    with pytest.raises(pjrt.runtime_error()) as raised:
        executable.execute([pjrt.client(2).put(x)])
    failure = pjrt.failure(raised.value)
    assert isinstance(failure, OutOfMemory)
    assert (failure.code, failure.message[: len(SAYS)]) == ("RESOURCE_EXHAUSTED", SAYS)
    other = pjrt.failure(RuntimeError("INTERNAL: something"))
    assert (type(other), other.code) == (EngineError, "INTERNAL")


@pytest.mark.tensorflow
class TestServable:
    def test_at_run_the_bucket_is_dropped_and_smaller_ones_answer(self, planted, mlp):
        servable = Servable.open(*planted)
        runner = servable.signatures["serving_default"]
        assert (runner.buckets, servable.dropped) == ((1, 4), ())
        (found,) = runner.run({"features": mlp.x}).values()
        assert runner.buckets == (1,)
        assert (runner.bucket_for(4).engine, found.shape) == ("xla", (9, 10))
        alone = [next(iter(runner.run({"features": row[None]}).values()))[0] for row in mlp.x]
        assert np.array_equal(found, alone)
        assert not servable.tensorflow_loaded
        servable.close()

    def test_at_load_the_bucket_is_left_out_and_named(self, plan_copy, mlp, monkeypatch):
        def full(client, module, number=0):
            raise pjrt.runtime_error()("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.")

        (plan_copy[1] / "s0" / "b4" / EXECUTABLE).unlink()
        monkeypatch.setattr(pjrt.Client, "compile", full)
        servable = Servable.open(*plan_copy)
        assert servable.signatures["serving_default"].buckets == (1,)
        assert set(servable.dropped) == {("serving_default", 4), ("serve", 4)}
        told = [n for n in servable.notes if " is dropped: RESOURCE_EXHAUSTED: Out of memory while trying" in n]
        assert len(told) == 2
        servable.close()

    def test_where_nothing_fits_plain_tensorflow_answers(self, plan_copy, mlp, monkeypatch):
        def full(client, blob, number=0):
            raise pjrt.runtime_error()("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.")

        monkeypatch.setattr(pjrt.Client, "deserialize", full)
        monkeypatch.setattr(pjrt.Client, "compile", full)
        servable = Servable.open(*plan_copy)
        runner = servable.signatures["serving_default"]
        assert {runner.bucket_for(n).engine for n in (1, 4)} == {"tensorflow/function"}
        (found,) = runner.run({"features": mlp.x}).values()
        assert found.shape == (9, 10)
        servable.close()


def bucket(rows, engine, us, lost=()):
    trials = [Candidate(engine, "v", "chosen", "", Measured(us, us, 9))]
    trials += [Candidate(e, "v", "rejected", "RESOURCE_EXHAUSTED: Out of memory") for e in lost]
    return BucketPlan(rows, {"x": (rows, 2)}, engine, "v", True, "", tuple(trials), "")


class TestPlanning:
    def test_a_bucket_that_smaller_runs_beat_is_left_out(self):
        buckets = [bucket(1, "xla", 100), bucket(8, "xla", 200), bucket(32, "litert", 9000, lost=["xla"])]
        assert exhausted.left_out(buckets) == {
            32: "left out: xla/v has no memory for it, and 4 runs of 8 take 800 us, less than litert/v with 9 ms"
        }

    def test_one_that_is_faster_all_the_same_stays(self):
        assert exhausted.left_out([bucket(8, "xla", 200), bucket(32, "litert", 700, lost=["xla"])]) == {}

    def test_without_a_smaller_one_or_for_other_reasons_nothing_changes(self):
        assert exhausted.left_out([bucket(8, "litert", 900, lost=["xla"]), bucket(32, "litert", 9000)]) == {}
        slow = bucket(32, "litert", 9000)
        wrong = Candidate("xla", "v", "rejected", "max error 0.5 is above 0.0001")
        slow = dataclasses.replace(slow, candidates=(*slow.candidates, wrong))
        assert exhausted.left_out([bucket(8, "xla", 200), slow]) == {}
