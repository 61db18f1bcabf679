"""Plans kept by fingerprint: one folder per plan, written to a temporary folder and renamed, one lock per plan.

<cache>/<digest>/plan.json ...       <cache>/<digest>.lock
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tfopt_optimizer import plan as plans
from tfopt_optimizer.fingerprint import digest, fingerprint
from tfopt_optimizer.optimize import OptimizeJob, Progress, optimize
from tfopt_optimizer.plan import Fingerprint, Plan, PlanError

Optimize = Callable[[OptimizeJob, Progress], Plan]


def cached(job: OptimizeJob, cache_dir: Path) -> tuple[Plan, Path, str] | None:
    """The plan for this job, its folder and why it may be used; None when there is none, or only a damaged one."""
    found, _ = _look_up(_fingerprint(job), cache_dir)
    return found


def optimize_cached(
    job: OptimizeJob, cache_dir: Path, progress: Progress, make: Optimize = optimize
) -> tuple[Plan, Path]:
    """The cached plan, else a new one, made once however many processes ask at a time. `job.plan_dir` is not used.

    OptimizeError as from optimize(); OSError when the cache directory cannot be written.
    """
    wanted = _fingerprint(job)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _lock(cache_dir / f"{digest(wanted)}.lock", progress):
        found, trouble = _look_up(wanted, cache_dir)
        if found is not None:
            plan, folder, why = found
            progress(f"plan {folder.name}: {why}")
            return plan, folder
        progress(trouble or f"no plan for {job.model_dir} in {cache_dir}{_nearest(wanted, cache_dir)}")
        return _make(job, cache_dir, digest(wanted), progress, make)


def _make(job: OptimizeJob, cache_dir: Path, name: str, progress: Progress, make: Optimize) -> tuple[Plan, Path]:
    """Under the plan's lock, so an unfinished folder that lies here belongs to a process that was killed."""
    for left_over in cache_dir.glob(f"{name}.part.*"):
        shutil.rmtree(left_over, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"{name}.part.", dir=cache_dir))
    try:
        plan = make(dataclasses.replace(job, plan_dir=part), progress)
        final = cache_dir / name
        if final.exists():
            shutil.rmtree(final)  # the damaged one
        part.chmod(0o755)  # mkdtemp's 0700 would keep a replica under another user out
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return plan, final


def _fingerprint(job: OptimizeJob) -> Fingerprint:
    return fingerprint(job.model_dir, job.flags, job.tags, job.samples)


def _look_up(wanted: Fingerprint, cache_dir: Path) -> tuple[tuple[Plan, Path, str] | None, str]:
    """The plan, or why the one that lies there cannot be used ("" when there is none)."""
    folder = cache_dir / digest(wanted)
    if not folder.is_dir():
        return None, ""
    try:
        plan = plans.read(folder)
        plans.verify(plan, folder)
    except PlanError as error:
        return None, f"the cached plan is damaged and made again: {error}"
    if differences := plan.fingerprint.differences(wanted):
        return None, f"the cached plan is for something else and made again: {'; '.join(differences)}"
    return (plan, folder, f"found in the cache, made {plan.created} in {plan.optimize_s:.1f} s"), ""


def _nearest(wanted: Fingerprint, cache_dir: Path) -> str:
    """What keeps a plan of the same model from being used: the operator of a new image wants to know."""
    for path in sorted(cache_dir.glob(f"*/{plans.FILE_NAME}"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            other = plans.read(path.parent)
        except PlanError:
            continue  # it will be named when it is the one that is asked for
        if other.fingerprint.model == wanted.model:
            return f" (one for the same model differs: {'; '.join(other.fingerprint.differences(wanted))})"
    return ""


@contextlib.contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    """Exclusive between processes, released by the system when its holder dies. The file stays: removing it races."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another process makes this plan; waiting for it ({path.name})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
