"""Equal inputs give equal plans, up to what was measured: by two runs whose processes hash in different ways."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer.plan import BucketPlan, Plan

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def pair(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Plan]:
    folder, model = tmp_path_factory.mktemp("plans"), demo_models / "tabular" / "1"
    return _made(model, folder / "a", "1"), _made(model, folder / "b", "2")


def _made(model: Path, out: Path, seed: str) -> Plan:
    flags = [f"--out={out}", "--allowed_batch_sizes=1,8", "--optimize_budget_s=120"]
    command = [sys.executable, "-m", "tfopt_server", "optimize", str(model), *flags]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True)
    return plans.read(out)


def _buckets(plan: Plan) -> list[BucketPlan]:
    return [b for s in plan.signatures for b in s.buckets]


def test_what_both_wrote_is_the_same_to_the_byte(pair):
    a, b = (p.files for p in pair)
    common = a.keys() & b.keys()
    assert any("split" in name for name in common)
    assert {name: a[name] for name in common} == {name: b[name] for name in common}


def test_both_found_the_same_candidates_right(pair):
    for one, other in zip(*map(_buckets, pair), strict=True):
        assert one.shapes == other.shapes
        found = [{(c.engine, c.variant): c for c in bucket.candidates} for bucket in (one, other)]
        assert found[0].keys() == found[1].keys()
        for key, candidate in found[0].items():
            same = found[1][key]
            if "skipped" in (candidate.status, same.status):
                continue  # how far a run gets is a matter of time
            assert (candidate.status == "rejected") == (same.status == "rejected")


def test_where_the_choices_differ_each_was_right_in_the_other_run_too(pair):
    for one, other in zip(*map(_buckets, pair), strict=True):
        for mine, theirs in ((one, other), (other, one)):
            (seen,) = (c for c in theirs.candidates if (c.engine, c.variant) == (mine.engine, mine.variant))
            assert seen.status in ("chosen", "slower", "skipped")
