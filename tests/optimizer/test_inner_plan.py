"""Plans of real models with a dynamic length: what takes a mask is padded up to inner buckets, what averages is not."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.engines import table
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.plan import read
from tfopt_optimizer.servable import Servable

pytestmark = pytest.mark.tensorflow
rng = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr("tfopt_optimizer.measure.ROUNDS", 2)


def tokens(rows, length):
    return rng.integers(1, 50, (rows, length)).astype(np.int32)


def question(rows, length):
    return {"ids": tokens(rows, length), "mask": np.ones([rows, length], np.int32)}


def test_a_bert_with_a_mask_is_compiled_for_a_few_lengths_and_requests_of_all_others_are_padded(savedmodel, tmp_path):
    model, folder = savedmodel("encoder"), tmp_path / "plan"
    samples = {"serving_default": tuple(question(1, length) for length in (12, 40, 40, 40, 64, 33))}
    flags = OptimizerFlags(allowed_batch_sizes=(2,), engines=("litert",), optimize_budget_s=300.0)
    job = OptimizeJob(model, folder, ("serve",), flags, samples, "warmup")
    one_thread = [e for e in table.entrants(flags)[0] if e.variant == "t1"]
    plan = optimize(job, lambda _: None, entrants=one_thread)

    assert read(folder) == plan
    signature = plan.signature("serving_default")
    assert (signature.inner.padded, signature.inner.floor) == (True, (1,))
    assert [b.sizes for b in signature.inner.buckets] == [(12,), (40,), (64,)]
    # the length that most records need comes first; the others are as right and measured as it is
    assert [(b.batch, b.inner, b.engine) for b in signature.buckets] == [
        (2, (40,), "litert"), (2, (64,), "litert"), (2, (12,), "litert"),
    ]  # fmt: skip
    assert [b.shapes["mask"] for b in signature.buckets] == [(2, 40), (2, 64), (2, 12)]
    said = "serving_default: inner sizes 12, 40, 64; requests between them are padded: "
    assert any(line.startswith(said) for line in plan.log)
    assert any(line.startswith("serving_default x 2 x 64: litert/t1 ") for line in plan.log)

    servable = Servable.open(model, folder, plan)
    assert not servable.tensorflow_loaded
    runner = servable.signatures["serving_default"]
    for rows, length, padded_to in ((1, 40, 40), (3, 12, 12), (2, 9, 12), (5, 41, 64), (2, 64, 64)):
        asked = question(rows, length)
        assert runner.inner.fit(asked).feeds["ids"].shape == (rows, padded_to)
        found = runner.run(asked)
        assert not servable.tensorflow_loaded or length != 40
        expected = runner.run_reference(asked)
        for name, array in expected.items():
            assert found[name].shape == array.shape
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6)
    assert runner.inner.fit(question(1, 65)) is None
    assert runner.run(question(1, 65))["states"].shape == (1, 65, 16)
    servable.close()


@pytest.mark.slow
def test_a_model_that_averages_over_padding_is_compiled_for_the_lengths_seen_and_nothing_is_padded(
    savedmodel, tmp_path
):
    model, folder = savedmodel("averaged"), tmp_path / "plan"
    samples = {"serving_default": tuple({"tokens": tokens(1, length)} for length in (8, 8, 16))}
    flags = OptimizerFlags(allowed_batch_sizes=(2,), optimize_budget_s=300.0)
    job = OptimizeJob(model, folder, ("serve",), flags, samples, "warmup")
    plan = optimize(job, lambda _: None, entrants=[])
    signature = plan.signature("serving_default")
    assert not signature.inner.padded
    assert signature.inner.reason.startswith("padded from 1 to 16: max error")
    assert [b.inner for b in signature.buckets] == [(8,), (16,)]
    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    assert runner.inner.fit({"tokens": tokens(1, 7)}) is None
    assert runner.inner.fit({"tokens": tokens(1, 16)}).sizes == ()
    asked = {"tokens": tokens(1, 7)}
    np.testing.assert_allclose(runner.run(asked)["mean"], runner.run_reference(asked)["mean"], rtol=1e-6)
    servable.close()
