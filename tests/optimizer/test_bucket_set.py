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


@pytest.mark.parametrize(
    ("costs", "left_out", "parted"),
    [
        (RISING, {}, {}),
        ({1: 50.0e3, 8: 680.0e3, 32: 1340.0e3}, {}, {8: (1,) * 8}),  # plain TensorFlow, for want of time
        ({1: 50.0e3, 8: 450.0e3, 32: 1340.0e3}, {}, {}),  # may have been measured while the host was busy
        ({1: 50.0e3, 2: 70.0e3, 4: 300.0e3, 8: 200.0e3, 16: 900.0e3, 32: 4e6}, {}, {4: (2, 2), 16: (8, 8)}),
        ({1: 50.0e3, 2: 70.0e3, 4: 300.0e3, 8: 200.0e3}, {4: 8}, {}),
        ({1: 50.0e3, 8: 680.0e3}, {}, {}),  # the largest stays
        ({8: 680.0e3}, {}, {}),
        ({}, {}, {}),
    ],
)
def test_a_bucket_that_is_clearly_slower_than_smaller_ones_in_turn_is_left_out(costs, left_out, parted):
    assert bucket_set.in_pieces(costs, left_out) == parted


def test_the_log_says_why_it_is_these():
    assert bucket_set.line(FLAT, bucket_set.needless(FLAT), {}, [], ()) == (
        "1, 32 rows; 2, 4, 8, 16 left out: padded up they cost no more (32 in 1 ms)"
    )
    assert bucket_set.line({1: 1.0}, {}, {}, [], ()) == "1 row: each saves time over padding up to the next"
    named = bucket_set.line(RISING, {}, {}, [], (8, 4))
    assert named == "4, 8 rows, as --allowed_batch_sizes or the batching file name them"
    costs = {1: 50.0e3, 8: 100.0e3, 16: 680.0e3, 32: 1340.0e3}
    assert bucket_set.line(costs, {}, {16: (8, 8)}, [4, 2], ()) == (
        "1, 8, 32 rows; 16 left out: it took 680 ms, more than 2 x 8 in turn; no time left to measure 2, 4"
    )


def test_what_was_not_measured_for_want_of_time_runs_in_the_other_buckets():
    gone, why = bucket_set.settled({1: 50.0e3, 32: 1340.0e3}, {4: 32}, [2, 4, 8], ())
    assert gone == {2, 4, 8}
    assert why.endswith("; no time left to measure 2, 8")
    assert bucket_set.settled({1: 50.0e3, 32: 1340.0e3}, {}, [8], (1, 8, 32))[0] == set()
    assert bucket_set.settled({}, {}, [8], ()) == (set(), "")


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


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "case",
    [
        (OptimizerFlags(), 1, (1, 2, 4, 8)),
        (OptimizerFlags(), 16, (1, 16)),  # a record's size
        pytest.param((OptimizerFlags(allowed_batch_sizes=(1, 32)), 1, (1, 32)), marks=pytest.mark.slow),
        pytest.param((OptimizerFlags(optimize_for="throughput"), 1, DEFAULT_BUCKETS), marks=pytest.mark.slow),
    ],
)
def test_default_sizes_end_early_for_a_slow_model(savedmodel, tmp_path, monkeypatch, case):
    flags, rows, sizes = case
    monkeypatch.setattr("tfopt_optimizer.buckets.LONGEST_S", 0.0)  # every model is slow
    monkeypatch.setattr("tfopt_optimizer.measure.ROUNDS", 2)
    monkeypatch.setattr(bucket_set, "settled", lambda costs, left_out, untried, named: (set(), ""))
    x = np.linspace(0, 1, 16, dtype=np.float32)[:, None]
    samples = {"serving_default": tuple({"x": x[i : i + rows]} for i in range(0, 16, rows))}
    job = OptimizeJob(savedmodel("half_plus_two"), tmp_path / "plan", ("serve",), flags, samples, "warmup")
    plan = optimize(job, lambda _: None, entrants=[])
    assert tuple(b.batch for b in plan.signature("serving_default").buckets) == sizes
    told = [line for line in plan.log if line.endswith("default buckets end at 8 rows")]
    assert len(told) == (sizes == (1, 2, 4, 8))
