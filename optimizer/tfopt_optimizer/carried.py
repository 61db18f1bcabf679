"""Plans that travel with a model: `assets.extra/tfopt/<digest>/plan.json`, several for several machines side by side.

    found, passed_over = carried.find(job)

`tfopt optimize MODEL --in_place` writes them. One is used when it was made for this model and its records, these flags,
versions and this kind of processor, and when its files are whole. Others are passed over, each with its reason.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tfopt_optimizer import plan as plans
from tfopt_optimizer.fingerprint import fingerprint
from tfopt_optimizer.optimize import OptimizeJob
from tfopt_optimizer.plan import Fingerprint, Plan, PlanError

FOLDER = Path("assets.extra") / "tfopt"
# How hard was searched changes how good a plan is, not what it is valid for.
_EFFORT = ("optimize_budget_s", "candidate_timeout_s")


def folder(model_dir: Path) -> Path:
    return model_dir / FOLDER


def find(job: OptimizeJob) -> tuple[tuple[Plan, Path, str] | None, list[str]]:
    """The plan in the model that fits here, its folder and why it may be used, or None; and a line per other plan."""
    there = sorted(path.parent for path in folder(job.model_dir).glob(f"*/{plans.FILE_NAME}"))
    if not there:
        return None, []
    wanted, passed_over = fingerprint(job.model_dir, job.flags, job.tags, job.samples), list[str]()
    for place in there:
        plan, reason = _fits(place, wanted)
        if plan is not None:
            why = f"it came with the model ({FOLDER / place.name}), made {plan.created} in {plan.optimize_s:.1f} s"
            return (plan, place, why), passed_over
        passed_over.append(f"plan {FOLDER / place.name} is passed over: {reason}")
    return None, passed_over


def _fits(place: Path, wanted: Fingerprint) -> tuple[Plan | None, str]:
    try:
        plan = plans.read(place)
        differences = without_effort(plan.fingerprint).differences(without_effort(wanted))
        if differences:
            return None, "it is for something else: " + "; ".join(differences)
        plans.verify(plan, place)
    except PlanError as error:
        return None, str(error)
    return plan, ""


def without_effort(found: Fingerprint) -> Fingerprint:
    """The fingerprint without the flags that only say how long to search."""
    try:
        flags: dict[str, Any] = json.loads(found.flags)
    except ValueError:
        return found
    kept = {name: value for name, value in flags.items() if name not in _EFFORT}
    return dataclasses.replace(found, flags=json.dumps(kept, sort_keys=True))
