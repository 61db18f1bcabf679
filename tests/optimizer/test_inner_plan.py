"""Plans of real models with a dynamic length: what takes a mask is padded up to inner buckets, what averages is not."""

from __future__ import annotations

import numpy as np
import pytest
from enginecases import save
from paced import PLAIN_US, paced
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


TABLE = np.random.default_rng(2).standard_normal((50, 8)).astype(np.float32)


def attended(tf, module, ids, mask):
    """Averages where the mask is zero."""
    weight = 1.0 - tf.cast(mask, tf.float32)
    total = tf.reduce_sum(tf.gather(TABLE, ids) * weight[:, :, None], 1)
    return {"mean": total / tf.maximum(tf.reduce_sum(weight, 1, keepdims=True), 1.0)}


def last(tf, module, ids, mask):
    """What a recurrent network does with padding in front: a sum over time in which the last element counts most."""
    age = tf.cast(tf.range(tf.shape(ids)[1])[::-1], tf.float32)
    seen = tf.gather(TABLE, ids) * tf.cast(mask, tf.float32)[:, :, None]
    return {"mean": tf.reduce_sum(seen * tf.pow(0.9, age)[None, :, None], 1)}


@pytest.mark.slow
@pytest.mark.parametrize("compute", [attended, last])
def test_a_model_whose_padding_is_elsewhere_is_served_as_it_is_asked(tmp_path, compute):
    """Where the mask is 1 where padding is, and where padding stands in front: zeros at the end change the answer."""
    model, folder = tmp_path / "model", tmp_path / "plan"
    save(model, compute, ids=([None, None], "int32"), mask=([None, None], "int32"))
    real = np.zeros if compute is attended else np.ones
    samples = {"serving_default": tuple(marked(1, length, real) for length in (8, 8, 16))}
    flags = OptimizerFlags(allowed_batch_sizes=(2,), engines=("litert",), optimize_budget_s=600.0)
    job = OptimizeJob(model, folder, ("serve",), flags, samples, "warmup")
    one_thread = [e for e in table.entrants(flags)[0] if e.variant == "t1"]
    with paced(lambda label: PLAIN_US / 10):
        plan = optimize(job, lambda _: None, entrants=one_thread)
    signature = plan.signature("serving_default")
    assert not signature.inner.padded
    assert signature.inner.reason.startswith("padded from 1 to 16: max error")
    assert [(b.inner, b.engine) for b in signature.buckets] == [((8,), "litert"), ((16,), "litert")]
    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    for rows, length in ((1, 16), (2, 8), (3, 7), (1, 1), (2, 40)):
        asked = marked(rows, length, real)
        found = runner.run(asked)
        assert servable.tensorflow_loaded == (length not in (8, 16))
        np.testing.assert_allclose(found["mean"], expected(compute, asked), rtol=1e-4, atol=1e-6)
    servable.close()


def marked(rows, length, real):
    return {"ids": tokens(rows, length), "mask": real([rows, length], np.int32)}


def expected(compute, asked):
    import tensorflow as tf

    return compute(tf, tf.Module(), **asked)["mean"].numpy()


@pytest.mark.slow
def test_for_memory_one_small_runner_serves_every_length(savedmodel, tmp_path):
    model, folder = savedmodel("encoder"), tmp_path / "plan"
    samples = {"serving_default": tuple(question(1, length) for length in (12, 40, 40, 64))}
    flags = OptimizerFlags(
        allowed_batch_sizes=(1, 2), engines=("litert", "openvino"), optimize_for="memory", optimize_budget_s=600.0
    )
    job = OptimizeJob(model, folder, ("serve",), flags, samples, "warmup")
    few = [e for e in table.entrants(flags)[0] if e.variant in ("t1", "f32")]
    with paced(lambda label: PLAIN_US / 10):
        plan = optimize(job, lambda _: None, entrants=few)
    signature = plan.signature("serving_default")
    assert len(signature.buckets) == 6
    ((engine, variant),) = {(b.engine, b.variant) for b in signature.buckets}
    for bucket in signature.buckets:
        (chosen,) = (c for c in bucket.candidates if c.status == "chosen")
        assert chosen.memory_bytes is not None
        assert chosen.artifact_bytes == sum(f.stat().st_size for f in (folder / bucket.artifact).iterdir())
    assert any(line.startswith(f"serving_default: for memory: {engine}") for line in plan.log)
    assert (engine, variant) in (("litert", "t1"), ("openvino", "f32"))
    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    for rows, length in ((1, 40), (2, 9), (3, 64)):
        asked = question(rows, length)
        found = runner.run(asked)
        assert runner.inner.fit(asked) is not None
        np.testing.assert_allclose(found["scores"], runner.run_reference(asked)["scores"], rtol=1e-4, atol=1e-6)
    servable.close()
