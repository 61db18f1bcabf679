"""Plans that travel with a model: `assets.extra/tfopt/<digest>/plan.json`, several for several machines side by side.

    found, passed_over = carried.find(job)

`tfopt optimize MODEL --in_place` writes them. One is used when it was made for this model, its records and these flags,
when what it needs is here (fitness.py), and when its files are whole. Others are passed over, each with its reason.
Where no plan can be made, because TensorFlow is not installed, one that was measured on another processor or with other
threads may serve, and one from the plan cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tfopt_optimizer import fitness, lazy_tensorflow, plan_files
from tfopt_optimizer import plan as plans
from tfopt_optimizer.fingerprint import fingerprint
from tfopt_optimizer.optimize import OptimizeJob
from tfopt_optimizer.plan import Fingerprint, Plan, PlanError

FOLDER = Path("assets.extra") / "tfopt"
Found = tuple[Plan, Path, str]


def folder(model_dir: Path) -> Path:
    return model_dir / FOLDER


def find(job: OptimizeJob, cache_dir: Path | None = None) -> tuple[Found | None, list[str]]:
    """The plan in the model that fits here, its folder and why it may be used, or None; and a line per other plan.

    Without TensorFlow `cache_dir` is looked through as well.
    """
    replaceable = lazy_tensorflow.installed()
    there = plans.folders(folder(job.model_dir)) + (
        [] if replaceable or cache_dir is None else plans.folders(cache_dir)
    )
    if not there:
        return None, []
    here, passed_over, fitting = fingerprint(job.model_dir, job.flags, job.tags, job.samples), [], []
    for place in there:
        plan, reason = _fits(place, here, replaceable=replaceable)
        if plan is None:
            passed_over.append(f"plan {_named(place, job.model_dir)} is passed over: {reason}")
            continue
        other = fitness.elsewhere(plan, here)
        if not other:
            return (plan, place, _why(plan, place, job.model_dir)), passed_over
        fitting.append((plan, place, f"{_why(plan, place, job.model_dir)}, measured where this was otherwise: {other}"))
    return (fitting[0] if fitting else None), passed_over


def _fits(place: Path, here: Fingerprint, *, replaceable: bool) -> tuple[Plan | None, str]:
    try:
        plan = plans.read(place)
        differences = fitness.unfit(plan, here, replaceable=replaceable)
        if differences:
            return None, _reason(differences)
        plan_files.verify(plan, place)
    except PlanError as error:
        return None, str(error)
    return plan, ""


def _reason(differences: Iterable[str]) -> str:
    return "it is for something else: " + "; ".join(differences)


def _why(plan: Plan, place: Path, model_dir: Path) -> str:
    origin = "it came with the model" if place.is_relative_to(model_dir) else "it lies in the cache"
    return f"{origin} ({_named(place, model_dir)}), made {plan.created} in {plan.optimize_s:.1f} s"


def _named(place: Path, model_dir: Path) -> str:
    return str(place.relative_to(model_dir) if place.is_relative_to(model_dir) else place)
