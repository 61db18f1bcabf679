"""SavedModel -> Plan: the tournament, run by a supervisor that imports no engine.

    plan = optimize(OptimizeJob(model_dir, plan_dir, ("serve",), flags, samples, "warmup"), print)

Steps: read the signatures; start one worker process per engine; for each signature prove row independence and hold one
contest per bucket (tournament.py); pick the loader and the winners, keep their artifacts (settle.py); write plan.json.
A candidate that fails costs itself. When everything fails the plan says plain TensorFlow.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tfopt_optimizer import contest, cpu, disk, entry, lease, plan, saved_model, wording
from tfopt_optimizer.allotment import Allotment
from tfopt_optimizer.engines import unchecked
from tfopt_optimizer.engines.base import Place
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.errors import NoSpace, OptimizeError
from tfopt_optimizer.job import OptimizeJob
from tfopt_optimizer.lease import Lease
from tfopt_optimizer.plan import Plan
from tfopt_optimizer.report import Log
from tfopt_optimizer.saved_model import SavedModelError, State
from tfopt_optimizer.settle import settle
from tfopt_optimizer.split import worth
from tfopt_optimizer.tournament import LOADERS, TENSORFLOW, Tournament
from tfopt_optimizer.workers import OPEN_TIMEOUT_S, Worker, WorkerFailed

__all__ = ["OptimizeJob", "Progress", "optimize"]

# What lies at the top of a plan's folder.
_PARTS = re.compile(rf"{re.escape(plan.FILE_NAME)}|{re.escape(plan.UNFINISHED)}|s\d+|weights\.(bin|json)")
OPEN_S = 300.0  # what a candidate's engine may take for its imports and a small model
Progress = Callable[[str], None]


def optimize(job: OptimizeJob, progress: Progress, entrants: Sequence[Entrant] | None = None) -> Plan:
    """Makes the plan and writes it. OptimizeError when the SavedModel cannot be read or TensorFlow cannot load it.

    NoSpace when a disk is full. A run that fails once it has begun to write leaves the folder empty. OptimizeError also
    when another process is writing a plan into the folder, which is left alone then.
    """
    started, log = time.monotonic(), Log(progress)
    budget = Allotment.of(job.flags.budget_s())
    _refuse_others(job.plan_dir)
    allowed = entry.installed(job.flags, log) if entrants is None else tuple(entrants)
    allowed = entry.lossy_by_terms(allowed, job.flags, job.records, log)
    try:
        signatures = saved_model.read_signatures(job.model_dir, job.tags)
        states = saved_model.states(job.model_dir, job.tags)
    except SavedModelError as error:
        raise OptimizeError(str(error)) from error
    if not signatures:
        raise OptimizeError(f"{job.model_dir} has no signature that a client could call: there is nothing to optimize")
    allowed = _without_writers(allowed, states, log)
    refused = unchecked.reasons(job.model_dir, job.tags, signatures)
    splits = worth.worth_splitting(job.model_dir, job.tags, signatures) | {key for key in refused if refused[key]}
    allowed = tuple(e for e in allowed if splits or not e.split)
    needed = [e for e in allowed if any(not e.refuses(s, refused[s.key]) for s in signatures)]
    with _ours(job.plan_dir, log) as ours, _whole_or_empty(job, ours):
        with _workers(job, needed) as workers:
            loaders = _open_reference(workers[TENSORFLOW], job, log)
            broken = _open_others(workers, needed, log)
            able = tuple(e for e in allowed if e not in broken)
            tournament = Tournament(
                *(job, log, workers, loaders, able),
                signatures=signatures,
                budget=budget,
                splits=splits,
                unchecked=refused,
            )
            results = tournament.run(signatures, states)
        made = settle(job, results, loaders, log, started)
        if ours.lost():
            raise OptimizeError(_taken(job.plan_dir))
        plan.write(made, job.plan_dir)
    return made


def _refuse_others(plan_dir: Path) -> None:
    """OptimizeError for a folder that holds anything but a plan, or what a run that was killed left of one."""
    found = plan_dir.iterdir() if plan_dir.is_dir() else ()
    names = sorted(path.name for path in found if not path.name.startswith(plan.LOCK))
    if not names:
        return
    if not (plan.UNFINISHED in names or plan.is_one(plan_dir)):
        raise OptimizeError(f"{plan_dir} holds files that are no plan; name an empty folder")
    if others := [name for name in names if not _PARTS.fullmatch(name)]:
        raise OptimizeError(f"{plan_dir} holds {others[0]!r} beside a plan, which would be lost; name an empty folder")


def _taken(plan_dir: Path) -> str:
    return f"another process is writing a plan into {plan_dir}: let it finish, or name another folder"


@contextlib.contextmanager
def _ours(plan_dir: Path, log: Log) -> Iterator[Lease]:
    """The plan's folder, for this process alone. OptimizeError where another one that lives has it."""

    def refuse() -> None:
        raise OptimizeError(_taken(plan_dir))

    with contextlib.ExitStack() as held:
        with disk.told(plan_dir):
            plan_dir.mkdir(parents=True, exist_ok=True)
            waiting = f"{plan_dir} is another process's; looking whether that one lives"
            ours = held.enter_context(lease.hold(plan_dir / plan.LOCK, lambda: log.note(waiting), refuse))
        yield ours


@contextlib.contextmanager
def _whole_or_empty(job: OptimizeJob, ours: Lease) -> Iterator[None]:
    """The plan's folder, cleared, and cleared again when no plan comes of it: what is left may fill the disk."""
    disk.need_temporary()
    try:
        with disk.told(job.plan_dir):
            _clear(job.plan_dir)
            (job.plan_dir / plan.UNFINISHED).touch()  # says from now on whose the folder is
            yield
    except BaseException as error:
        if not ours.lost():
            with contextlib.suppress(OSError):
                _clear(job.plan_dir)
        if isinstance(error, NoSpace):
            weights = wording.size(saved_model.variables_bytes(job.model_dir))
            raise NoSpace(f"{error}; the model's variables alone are {weights}") from error
        raise


def _clear(plan_dir: Path) -> None:
    for path in plan_dir.iterdir():  # the folder itself may be a volume's, which cannot be removed
        if path.name == plan.LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _workers(job: OptimizeJob, entrants: Sequence[Entrant]) -> Iterator[dict[str, Worker]]:
    """All workers, started side by side: importing an engine takes seconds."""
    flags, cores = job.flags, cpu.usable_cores()
    threads = (flags.intra_op_threads or cores, flags.inter_op_threads or cores)
    place = Place(job.model_dir, job.plan_dir, job.tags, *threads, device=flags.accelerator())
    paths = {TENSORFLOW: "tensorflow", **{e.worker: e.engine for e in entrants}}
    paths |= {e.converter: f"{e.engine} conversion" for e in entrants if e.converter}
    large = saved_model.variables_bytes(job.model_dir) > contest.LARGE
    patience = OPEN_TIMEOUT_S if large else max(flags.candidate_timeout_s, OPEN_S)
    workers = {TENSORFLOW: Worker(TENSORFLOW, place, paths.pop(TENSORFLOW))}
    workers |= {path: Worker(path, place, name, patience) for path, name in paths.items()}
    on_standby = {e.converter for e in entrants if e.standby or (e.heavy and large)}
    try:
        for path, worker in workers.items():
            if path not in on_standby:
                worker.start()
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def _open_reference(worker: Worker, job: OptimizeJob, log: Log) -> tuple[str, ...]:
    """The loaders that take the model, the reference's first."""
    try:
        found = worker.opened()
    except WorkerFailed as error:
        raise OptimizeError(f"TensorFlow cannot load {job.model_dir}: {error.reason}") from error
    usable = tuple(loader for loader in LOADERS if found.get(loader) == "")
    for loader in LOADERS:
        if loader not in usable:
            log.say(f"tensorflow/{loader} cannot be used: {found.get(loader)}")
    if not usable:
        raise OptimizeError(f"TensorFlow cannot load {job.model_dir}: " + "; ".join(found.values()))
    return usable


def _open_others(workers: dict[str, Worker], entrants: Sequence[Entrant], log: Log) -> list[Entrant]:
    """Waits for the candidates' engines. Returns those that cannot take part, because their engine does not start."""
    broken: dict[str, str] = {}
    for path, worker in workers.items():
        if path == TENSORFLOW or not worker.started:
            continue
        try:
            worker.opened()
        except WorkerFailed as error:
            broken[path] = error.reason
    out = []
    for entrant in entrants:
        reason = broken.get(entrant.worker) or broken.get(entrant.converter)
        if reason:
            log.say(f"{entrant.label} cannot take part: {reason}")
            out.append(entrant)
    return out


def _without_writers(entrants: tuple[Entrant, ...], states: Mapping[str, State], log: Log) -> tuple[Entrant, ...]:
    """A compiled module holds the variables as they were: no model whose signatures write them can use one."""
    writers = [key for key, state in states.items() if state.writes and saved_model.is_callable(key)]
    if not writers or not entrants:
        return entrants
    log.say(
        f"only plain TF takes part: {writers[0]} writes state ({states[writers[0]].writes[0]}) that others may read"
    )
    return tuple(e for e in entrants if e.engine == "tensorflow")
