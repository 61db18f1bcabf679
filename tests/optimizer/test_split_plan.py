"""A plan whose signature is cut, from the tournament to served answers."""

from __future__ import annotations

import numpy as np
import pytest
from paced import PLAIN_US, paced
from splitcases import WORDS, tf1_loop
from tfopt_optimizer import plan as plans
from tfopt_optimizer import plan_files, verify
from tfopt_optimizer.engines import table
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.servable import Servable

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def tf():
    import tensorflow

    return tensorflow


def record(rows):
    random = np.random.default_rng(rows)
    return {
        "color": np.array([(b"red", b"BLUE", b"\xff", b"")[i % 4] for i in range(rows)], object),
        "city": np.array([(b"lima", b"nowhere")[i % 2] for i in range(rows)], object),
        "age": random.uniform(18, 80, rows).astype(np.float32),
        "income": random.standard_normal((rows, 2)).astype(np.float32),
    }


def test_a_cut_signature_wins_and_is_served_without_tensorflow(savedmodel, tmp_path, monkeypatch):
    monkeypatch.setattr("tfopt_optimizer.contest.LIGHT_US", 0.0)  # without TensorFlow's cheapest way to run tiny models
    model, folder = savedmodel("tabular"), tmp_path / "plan"
    flags = OptimizerFlags(allow_precompilation=True, allowed_batch_sizes=(1, 4), engines=("xla",))
    samples = {"serving_default": (record(1), record(4), record(7))}
    job = OptimizeJob(model, folder, ("serve",), flags, samples, "warmup")
    with paced(lambda label: PLAIN_US / 10 if label.endswith("/pjrt") else PLAIN_US):
        plan = optimize(job, lambda _: None, entrants=table.splits(table.entrants(flags)[0]))
    assert plans.read(folder) == plan
    plan_files.verify(plan, folder)
    (signature,) = plan.signatures
    assert [(b.batch, b.engine, b.variant, b.static) for b in signature.buckets] == [
        (1, "host+xla", "pjrt", True),
        (4, "host+xla", "pjrt", True),
    ]
    assert {b.artifact for b in signature.buckets} == {"s0/split-xla"}
    assert [s.where for s in signature.segments] == ["host", "device"]
    assert [p.name for p in (folder / "s0").iterdir()] == ["split-xla"]
    assert plan.weights_bytes > 0

    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    whole = record(7)
    found = runner.run(whole)  # a bucket of four, and three rows padded up to it
    alone = [runner.run({n: a[i : i + 1] for n, a in whole.items()})["scores"] for i in range(7)]
    np.testing.assert_allclose(found["scores"], np.concatenate(alone), rtol=1e-5)
    assert not servable.tensorflow_loaded
    np.testing.assert_allclose(found["scores"], runner.run_reference(whole)["scores"], rtol=1e-4)
    assert servable.tensorflow_loaded
    servable.close()


LOSSY = "t1+int8-dynamic"


@pytest.mark.slow
@pytest.mark.parametrize(("largest", "chosen"), [(0.2, ("host+litert", LOSSY)), (1e-7, ("tensorflow", "function"))])
def test_a_lossy_device_segment_is_gated_and_may_be_chosen(savedmodel, tmp_path, largest, chosen):
    """Behind strings, within a wide gate and outside a narrow one, and fastest in both."""
    model, folder = savedmodel("tabular"), tmp_path / "plan"
    flags = OptimizerFlags(
        allow_compression=True, allowed_batch_sizes=(4,), engines=("litert",), optimize_budget_s=600.0,
        lossy_max_rel_error=largest, lossy_mean_rel_error=largest, lossy_top1=0.0,
    )  # fmt: skip
    samples = {"serving_default": tuple(record(rows) for rows in (1, 4, 7, 40))}
    job = OptimizeJob(model, folder, ("serve",), flags, samples, "warmup")
    cut = [e for e in table.splits(table.entrants(flags)[0]) if e.variant in ("t1", LOSSY)]
    with paced(lambda label: 10.0 if label.endswith(LOSSY) else 2 * PLAIN_US):
        plan = optimize(job, lambda _: None, entrants=cut)
    (signature,) = plan.signatures
    (bucket,) = signature.buckets
    (lossy,) = (c for c in bucket.candidates if c.variant == LOSSY)
    assert lossy.precision == "int8-dynamic"
    assert lossy.agreement.max_rel_error > 1e-6
    assert (bucket.engine, bucket.variant) == chosen
    if chosen[0] == "tensorflow":
        assert (lossy.status, "error" in lossy.reason) == ("rejected", True)
        return
    assert [s.where for s in signature.segments] == ["host", "device"]
    servable = Servable.open(model, folder, plan)
    runner, asked = servable.signatures["serving_default"], record(7)
    found = runner.run(asked)
    assert not servable.tensorflow_loaded
    verdict = verify.check(runner.run_reference(asked), found, verify.Tolerance(largest, largest, 0.0))
    assert (verdict.reason, verdict.agreement.max_rel_error > 1e-6) == ("", True)
    servable.close()


@pytest.mark.slow
def test_a_loop_of_tf1_runs_whole_and_the_report_says_why(tf, tmp_path):
    tf1_loop(tf, tmp_path / "model")
    flags = OptimizerFlags(allowed_batch_sizes=(1, 5), engines=("litert",), optimize_budget_s=600.0)
    samples = {"serving_default": ({"text": WORDS},)}
    job = OptimizeJob(tmp_path / "model", tmp_path / "plan", ("serve",), flags, samples, "warmup")
    whole = [e for e in table.entrants(flags)[0] if e.variant == "t1"]
    plan = optimize(job, lambda _: None, entrants=[*whole, *table.splits(whole)])
    (signature,) = plan.signatures
    assert {b.engine for b in signature.buckets} <= {"litert", "tensorflow"}
    for bucket in signature.buckets:
        (cut,) = (c for c in bucket.candidates if c.engine == "host+litert")
        assert cut.status == "rejected"
        assert "its graph is TF1's (" in cut.reason
        assert "its graph is TF1's (" in bucket.why
    servable = Servable.open(tmp_path / "model", tmp_path / "plan", plan)
    runner = servable.signatures["serving_default"]
    for rows in (1, 3, 5):
        asked = {"text": WORDS[:rows]}
        np.testing.assert_allclose(runner.run(asked)["y"], runner.run_reference(asked)["y"], rtol=1e-4, atol=1e-6)
    servable.close()
