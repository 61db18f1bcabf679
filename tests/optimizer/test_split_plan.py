"""A plan whose signature is cut, from the tournament to served answers."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer.engines import table
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.servable import Servable

pytestmark = pytest.mark.tensorflow


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
    plan = optimize(job, lambda _: None, entrants=table.splits(table.entrants(flags)[0]))
    assert plans.read(folder) == plan
    plans.verify(plan, folder)
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
