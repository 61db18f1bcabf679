"""Buckets that do not pay are left out; those that the operator names stay exactly."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer import bucket_set
from tfopt_optimizer.flags import DEFAULT_BUCKETS, OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize

FLAT = dict.fromkeys(DEFAULT_BUCKETS, 1000.0)
RISING = {n: 1000.0 * n for n in DEFAULT_BUCKETS}
STEP = {1: 300.0, 2: 1000.0, 4: 1000.0, 8: 1000.0, 16: 2000.0, 32: 4000.0}


@pytest.mark.parametrize(
    ("costs", "left_out"),
    [
        (FLAT, {2: 32, 4: 32, 8: 32, 16: 32}),
        (RISING, {}),
        (STEP, {2: 8, 4: 8}),
        ({1: 1000.0, 2: 1040.0, 4: 1080.0, 8: 1120.0}, {4: 8}),  # 2 padded up to 8 would be 7 % slower
        ({1: 2.0, 2: 2.0, 4: 2.0}, {}),  # padding would cost more than the call
        ({1: 50.0, 8: 900.0, 32: 400.0}, {8: 32}),  # a larger one is faster
        ({4: 10.0}, {}),
        ({}, {}),
    ],
)
def test_a_bucket_that_costs_no_less_than_the_next_is_left_out_and_the_ends_stay(costs, left_out):
    assert bucket_set.needless(costs) == left_out


def test_what_lies_between_two_sizes_of_one_cost_need_not_be_measured():
    assert bucket_set.covered({1: 1000.0, 32: 1000.0}, 8) == 32
    assert bucket_set.covered({1: 1000.0, 32: 4000.0}, 8) is None
    assert bucket_set.covered({1: 300.0, 4: 1000.0, 16: 1000.0}, 8) == 16
    assert bucket_set.covered({8: 1000.0}, 4) is None
    assert bucket_set.covered({}, 4) is None


def test_the_log_says_why_it_is_these():
    assert bucket_set.line(FLAT, bucket_set.needless(FLAT), ()) == (
        "1, 32 rows; 2, 4, 8, 16 left out: padded up they cost no more (32 in 1 ms)"
    )
    assert bucket_set.line({1: 1.0}, {}, ()) == "1 row: each saves time over padding up to the next"
    assert bucket_set.line(RISING, {}, (8, 4)) == "4, 8 rows, as --allowed_batch_sizes or the batching file name them"


@pytest.mark.tensorflow
@pytest.mark.parametrize("named", [(), pytest.param((1, 4, 8), marks=pytest.mark.slow)])
def test_the_search_opens_no_bucket_that_cannot_pay_and_keeps_what_is_named(savedmodel, tmp_path, monkeypatch, named):
    monkeypatch.setattr(bucket_set, "PADDING_US", float("-inf"))
    monkeypatch.setattr("tfopt_optimizer.measure.ROUNDS", 2)
    x, lines = np.linspace(0, 1, 9, dtype=np.float32)[:, None], []
    samples = {"serving_default": tuple({"x": x[i : i + 1]} for i in range(9))}
    flags = OptimizerFlags(allowed_batch_sizes=named, optimize_budget_s=300.0)
    job = OptimizeJob(savedmodel("half_plus_two"), tmp_path / "plan", ("serve",), flags, samples, "warmup")
    plan = optimize(job, lines.append, entrants=[])
    signature = plan.signature("serving_default")
    assert tuple(b.batch for b in signature.buckets) == (named or (1, 32))
    assert signature.bucket_reason in " ".join(plan.log)
    assert ("left out" in signature.bucket_reason) == (not named)
    opened = [line for line in lines if "serving_default x " in line and "]: plain TF" in line]
    assert len(opened) == len(signature.buckets)
