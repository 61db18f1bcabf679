"""Plans kept by fingerprint: one folder per plan, written to a temporary folder and renamed, one lock per plan.

<cache>/<digest>/plan.json ...       <cache>/<digest>.lock       <cache>/<digest>.part.<holder>/

The folder may be shared by hosts. The lock (lease.py) keeps replicas that start together from doing the same work; the
rename keeps plans whole, whoever makes them. Where a folder cannot be renamed at once (a bucket), a plan that is only
half there fails its checksums and counts as not there yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from tfopt_optimizer import disk, exchange, lease, plan_files
from tfopt_optimizer import plan as plans
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.fingerprint import digest, fingerprint
from tfopt_optimizer.lease import Lease
from tfopt_optimizer.optimize import OptimizeJob, Progress, optimize
from tfopt_optimizer.plan import Fingerprint, Plan, PlanError

Optimize = Callable[[OptimizeJob, Progress], Plan]


def name_of(job: OptimizeJob) -> str:
    """The name of this job's plan: equal for equal jobs on equal machines, and for no others."""
    return digest(_fingerprint(job))


def cached(job: OptimizeJob, cache_dir: Path) -> tuple[Plan, Path, str] | None:
    """The plan for this job, its folder and why it may be used; None when there is none, or only a damaged one."""
    found, _ = _look_up(_fingerprint(job), cache_dir)
    return found


def optimize_cached(
    job: OptimizeJob, cache_dir: Path, progress: Progress, make: Optimize = optimize
) -> tuple[Plan, Path]:
    """The cached plan, else a new one, made once however many processes ask at a time. `job.plan_dir` is not used.

    OptimizeError as from optimize(); OSError when the cache directory cannot be written, NoSpace when it is full.
    """
    wanted = _fingerprint(job)
    found, _ = _look_up(wanted, cache_dir)
    final = cache_dir / digest(wanted)
    lock = final.with_name(f"{final.name}.lock")
    waiting = f"another process makes this plan; waiting for it ({lock.name})"
    with disk.told(cache_dir):
        while found is None:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with lease.hold(lock, lambda: progress(waiting)) as ours:
                found, trouble = _look_up(wanted, cache_dir)
                if found is None:
                    progress(trouble or f"no plan for {job.model_dir} in {cache_dir}{_nearest(wanted, cache_dir)}")
                    made = _make(job, final, progress, make, wanted=wanted, ours=ours)
                    if made is not None:
                        return made, final
            # Frozen for long, this process was taken for dead: another one has made the plan by now, or is about to.
    plan, folder, why = found
    progress(f"plan {folder.name}: {why}")
    return plan, folder


def _make(
    job: OptimizeJob, final: Path, progress: Progress, make: Optimize, *, wanted: Fingerprint, ours: Lease
) -> Plan | None:
    """None when the lock was lost meanwhile: its new holder cleared our files away, and whatever we made is not whole.

    What others left is removed first: an optimizer that is killed at every start must not fill the disk. And once more
    at the end: their workers may have outlived them by a moment, and written.
    """
    _sweep(final)
    part = final.with_name(f"{final.name}{plans.MAKING}{ours.token}")
    part.mkdir()
    try:
        plan = make(dataclasses.replace(job, plan_dir=part), progress)
        if ours.lost():
            return None
        _publish(part, final, wanted)
    except (OSError, OptimizeError):
        if ours.lost():
            return None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _sweep(final)
    return plan


def _sweep(final: Path) -> None:
    for left_over in final.parent.glob(f"{final.name}{plans.MAKING}*"):
        shutil.rmtree(left_over, ignore_errors=True)


def _publish(part: Path, final: Path, wanted: Fingerprint) -> None:
    """Gives the finished plan its name, unless a good one has it already, which then counts."""
    if _look_up(wanted, final.parent)[0] is None:
        exchange.replace(part, final)


def _fingerprint(job: OptimizeJob) -> Fingerprint:
    return fingerprint(job.model_dir, job.flags, job.tags, job.samples)


def _look_up(wanted: Fingerprint, cache_dir: Path) -> tuple[tuple[Plan, Path, str] | None, str]:
    """The plan, or why the one that lies there cannot be used ("" when there is none)."""
    folder = cache_dir / digest(wanted)
    if not folder.is_dir():
        return None, ""
    try:
        plan = plans.read(folder)
        plan_files.verify(plan, folder)
    except PlanError as error:
        return None, f"the cached plan is damaged and made again: {error}"
    if differences := plan.fingerprint.differences(wanted):
        return None, f"the cached plan is for something else and made again: {'; '.join(differences)}"
    return (plan, folder, f"found in the cache, made {plan.created} in {plan.optimize_s:.1f} s"), ""


def _nearest(wanted: Fingerprint, cache_dir: Path) -> str:
    """What keeps a plan of the same model from being used: the operator of a new image wants to know."""
    for folder in sorted(plans.folders(cache_dir), key=_age, reverse=True):
        try:
            other = plans.read(folder)
        except PlanError:
            continue  # it will be named when it is the one that is asked for
        if other.fingerprint.model == wanted.model:
            return f" (one for the same model differs: {'; '.join(other.fingerprint.differences(wanted))})"
    return ""


def _age(folder: Path) -> float:
    with contextlib.suppress(OSError):  # gone since it was listed
        return (folder / plans.FILE_NAME).stat().st_mtime
    return 0.0
