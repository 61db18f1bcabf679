"""How many elements a pipeline puts together, by the plans that lie in a model."""

from __future__ import annotations

import dataclasses

import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer.plan import BucketPlan, Candidate, Fingerprint, Measured, Plan, SignatureInfo, SignaturePlan
from tfopt_server.beam import batches, carried_plans


def bucket(batch, cost_us):
    measured = Measured(cost_us, cost_us, 10) if cost_us else None
    slower = Candidate("tensorflow", "session", "slower", "", Measured(1.0, 1.0, 10))
    chosen = Candidate("litert", "t1", "chosen", "", measured)
    return BucketPlan(batch, {}, "litert", "t1", True, "", (slower, chosen), "")


def signature(costs, *, independent=True):
    buckets = tuple(bucket(batch, cost) for batch, cost in costs.items())
    return SignaturePlan(SignatureInfo("serving_default", "", (), ()), independent, "", True, "", buckets)


@pytest.mark.parametrize(
    ("costs", "best"),
    [
        ({1: 20.0, 8: 40.0, 32: 320.0}, 8),
        ({1: 20.0, 8: 40.0, 32: 160.0}, 32),  # as cheap a row: fewer calls
        ({1: 0.0, 32: 0.0}, 32),
        ({1: 20.0, 32: 0.0}, 1),
        ({None: 20.0}, 1),
    ],
)
def test_batches_are_of_the_bucket_with_the_cheapest_rows(costs, best):
    assert batches.best([signature(costs)]) == best


def test_rows_that_are_not_independent_are_never_put_together():
    assert batches.best([signature({1: 20.0, 8: 40.0}, independent=False)]) == 1


def test_of_several_machines_plans_the_largest_counts_and_without_any_there_is_no_answer():
    assert batches.best([signature({8: 8.0}), signature({16: 16.0})]) == 16
    assert batches.best([]) is None


@pytest.fixture
def model(tmp_path):
    """A base path with a version, and two plans in it of which one is damaged."""
    plan = Plan(Fingerprint("", "", {}, {}), "cpu", "session", "none", (signature({8: 8.0}),), (), "", 1.0)
    for name in ("good", "damaged"):
        folder = tmp_path / "m" / "1" / "assets.extra" / "tfopt" / name
        folder.mkdir(parents=True)
        plans.write(plan if name == "good" else dataclasses.replace(plan, format_version=99), folder)
    return tmp_path / "m"


@pytest.mark.parametrize("version", ["", "1"])
def test_the_plans_in_a_folder_are_read_and_damaged_ones_passed_over(model, version, caplog):
    (plan,) = carried_plans.read(str(model / version))
    assert plan.signature("serving_default") == signature({8: 8.0})
    assert "passed over" in caplog.text
    assert "format_version: expected 1, received 99" in caplog.text


def test_a_model_that_is_not_here_has_none(tmp_path):
    assert list(carried_plans.read(str(tmp_path / "elsewhere"))) == []
