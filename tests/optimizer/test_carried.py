"""Plans inside a model: found where they fit, passed over by name where they do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tfopt_optimizer import carried, plan_files
from tfopt_optimizer import plan as plans
from tfopt_optimizer.cache import optimize_cached
from tfopt_optimizer.fingerprint import fingerprint
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob
from tfopt_optimizer.plan import Plan


def make(job, progress):
    (job.plan_dir / "weights.bin").write_bytes(b"weights")
    found, files = fingerprint(job.model_dir, job.flags, job.tags, job.samples), plan_files.checksums(job.plan_dir)
    plan = Plan(found, "cpu", "function", "warmup", (), (), "2026-11-22T05:00:00+00:00", 1.5, files=files)
    plans.write(plan, job.plan_dir)
    return plan


@pytest.fixture
def job(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    samples = {"serving_default": ({"x": np.ones([1, 2], np.float32)},)}
    return OptimizeJob(model, tmp_path / "unused", ("serve",), OptimizerFlags(), samples, "warmup")


def in_place(job):
    return optimize_cached(job, carried.folder(job.model_dir), lambda _: None, make)


def rewrite(place, **changes):
    """As if the plan in this folder had been made elsewhere."""
    plan = plans.read(place)
    plans.write(dataclasses.replace(plan, fingerprint=dataclasses.replace(plan.fingerprint, **changes)), place)


def test_a_model_without_plans(job):
    assert carried.find(job) == (None, [])


def test_a_plan_in_the_model_is_found_and_does_not_change_what_the_model_is(job):
    before = fingerprint(job.model_dir, job.flags, job.tags, job.samples)
    plan, place = in_place(job)
    assert fingerprint(job.model_dir, job.flags, job.tags, job.samples) == before
    found, passed_over = carried.find(job)
    assert found == (
        plan,
        place,
        f"it came with the model (assets.extra/tfopt/{place.name}), made 2026-11-22T05:00:00+00:00 in 1.5 s",
    )
    assert passed_over == []
    assert [p.name for p in carried.folder(job.model_dir).iterdir()] == [place.name]


def test_how_long_was_searched_does_not_matter(job):
    in_place(dataclasses.replace(job, flags=OptimizerFlags(optimize_budget_s=900.0)))
    found, passed_over = carried.find(job)
    assert found is not None
    assert passed_over == []


def test_plans_for_other_machines_lie_beside_it_and_are_named(job):
    _, place = in_place(job)
    other = place.rename(place.with_name("0-other"))
    here = plans.read(other).fingerprint
    rewrite(other, hardware={**here.hardware, "features": "avx2 avx9", "processor": "Another"})
    _, mine = in_place(job)
    found, passed_over = carried.find(job)
    assert found is not None
    assert found[1] == mine
    (line,) = passed_over
    assert line.startswith("plan assets.extra/tfopt/0-other is passed over: it is for something else: hardware.f")
    assert "hardware.processor: Another != " in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "another+0"}, "model: another+0 != "),
        ({"flags": '{"allow_compression": true}'}, "flags.allow_compression: True != False"),
    ],
)
def test_what_a_plan_must_be_for(job, changes, said):
    _, place = in_place(job)
    rewrite(place, **changes)
    found, (line,) = carried.find(job)
    assert found is None
    assert said in line


def test_a_damaged_plan_is_passed_over(job):
    _, place = in_place(job)
    (place / "weights.bin").write_bytes(b"w")
    found, (line,) = carried.find(job)
    assert found is None
    assert "weights.bin: damaged" in line
    (place / "plan.json").write_text("{")
    assert "not valid JSON" in carried.find(job)[1][0]


def test_a_plan_that_has_no_name_yet_is_not_one(job):
    """Of a process that is about to give it its name, or was killed then: the folder will not stay."""
    _, place = in_place(job)
    place.rename(place.with_name(f"{place.name}.part.killed"))
    assert carried.find(job) == (None, [])
