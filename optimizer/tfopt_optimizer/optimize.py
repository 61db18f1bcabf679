"""SavedModel -> Plan: the tournament, run by a supervisor that imports no engine.

    plan = optimize(OptimizeJob(model_dir, plan_dir, ("serve",), flags, samples, "warmup"), print)

Steps: read the signatures; start one worker process per engine; for each signature prove row independence and hold one
contest per bucket (contest.py); pick the loader and the winners (choose.py); keep the winners' artifacts; write
plan.json. A candidate that fails costs itself. When everything fails the plan says plain TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from tfopt_optimizer import (
    allotment,
    choose,
    compression,
    contest,
    cpu,
    entry,
    measure,
    plan,
    report,
    saved_model,
    twins,
)
from tfopt_optimizer.allotment import Allotment
from tfopt_optimizer.buckets import Feeds
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.contest import BucketSpec, Contest, Entrant
from tfopt_optimizer.engines import calibration, split
from tfopt_optimizer.engines.base import Place
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.fingerprint import Samples, fingerprint
from tfopt_optimizer.flags import MEMORY, OptimizerFlags
from tfopt_optimizer.plan import BucketPlan, Candidate, Measured, Plan, SignatureInfo, SignaturePlan
from tfopt_optimizer.reference import Reference
from tfopt_optimizer.report import Log
from tfopt_optimizer.saved_model import SavedModelError, State
from tfopt_optimizer.split import worth
from tfopt_optimizer.study import Study, study
from tfopt_optimizer.tidy import tidy
from tfopt_optimizer.workers import Worker, WorkerFailed

TENSORFLOW = "tfopt_optimizer.engines.tensorflow:Worker"
SESSION = Entrant("tensorflow", "session", TENSORFLOW, spare=True)
INLINE = Entrant("tensorflow", "inline", TENSORFLOW, light=True)
LOADERS = ("function", "session")

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class OptimizeJob:
    """One SavedModel to optimize into `plan_dir` (made when missing). `records` says where `samples` came from:
    "warmup" or "synthesized". Samples are feeds as they came, of any batch size, per signature key."""

    model_dir: Path
    plan_dir: Path
    tags: tuple[str, ...]
    flags: OptimizerFlags
    samples: Samples
    records: str


def optimize(job: OptimizeJob, progress: Progress, entrants: Sequence[Entrant] | None = None) -> Plan:
    """Makes the plan and writes it. OptimizeError when the SavedModel cannot be read or TensorFlow cannot load it."""
    started, log = time.monotonic(), Log(progress)
    budget = Allotment.of(job.flags.budget_s())
    _clear(job.plan_dir)
    allowed = entry.installed(job.flags, log) if entrants is None else tuple(entrants)
    allowed = entry.lossy_by_terms(allowed, job.flags, job.records, log)
    try:
        signatures = saved_model.read_signatures(job.model_dir, job.tags)
        states = saved_model.states(job.model_dir, job.tags)
    except SavedModelError as error:
        raise OptimizeError(str(error)) from error
    allowed = _without_writers(allowed, states, log)
    splits = worth.worth_splitting(job.model_dir, job.tags, signatures)
    allowed = tuple(e for e in allowed if splits or not e.split)
    needed = [e for e in allowed if any(not e.refuses(s) for s in signatures)]
    with _workers(job, needed) as workers:
        loaders = _open_reference(workers[TENSORFLOW], job, log)
        broken = _open_others(workers, needed, log)
        able = tuple(e for e in allowed if e not in broken)
        tournament = _Tournament(job, log, workers, loaders, able, budget=budget, splits=splits)
        results = tournament.run(signatures, states)
    made = _settle(job, results, loaders, log, started)
    plan.write(made, job.plan_dir)
    return made


def _clear(plan_dir: Path) -> None:
    """An empty folder to write to. Only what is a plan is overwritten."""
    if plan_dir.is_dir() and any(plan_dir.iterdir()):
        if not (plan_dir / plan.FILE_NAME).exists():
            raise OptimizeError(f"{plan_dir} holds files that are no plan; name an empty folder")
        shutil.rmtree(plan_dir)
    plan_dir.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _workers(job: OptimizeJob, entrants: Sequence[Entrant]) -> Iterator[dict[str, Worker]]:
    """All workers, started side by side: importing an engine takes seconds."""
    flags, cores = job.flags, cpu.usable_cores()
    place = Place(
        job.model_dir, job.plan_dir, job.tags, flags.intra_op_threads or cores, flags.inter_op_threads or cores
    )
    paths = {TENSORFLOW: "tensorflow", **{e.worker: e.engine for e in entrants}}
    paths |= {e.converter: f"{e.engine} conversion" for e in entrants if e.converter}
    workers = {path: Worker(path, place, name) for path, name in paths.items()}
    large = saved_model.variables_bytes(job.model_dir) > contest.LARGE
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


@dataclasses.dataclass(frozen=True)
class Result:
    """A signature with the study and the trials of each bucket, in the order of `study.specs` (perhaps its twin's).

    None for a bucket that was not opened, () for one in which plain TensorFlow itself failed.
    """

    info: SignatureInfo
    study: Study
    trials: tuple[tuple[Trial, ...] | None, ...]


class _Tournament:
    def __init__(
        self,
        job: OptimizeJob,
        log: Log,
        workers: dict[str, Worker],
        loaders: tuple[str, ...],
        entrants: tuple[Entrant, ...],
        *,
        budget: Allotment,
        splits: Collection[str],
    ) -> None:
        self._job, self._log, self._entrants, self._budget, self._splits = job, log, entrants, budget, splits
        self._least_s = 0.0
        self._reference = Reference(workers[TENSORFLOW], loaders)
        self._others = (SESSION, INLINE) if loaders == LOADERS else (INLINE,) if loaders == ("session",) else ()
        self._weights_bytes = weights_bytes = saved_model.variables_bytes(job.model_dir)
        self._contest = Contest(self._reference, workers, job.flags, log, weights_bytes)

    def run(self, signatures: Sequence[SignatureInfo], states: Mapping[str, State]) -> list[Result]:
        """One contest per bucket of each signature; twins (twins.py) share the one of their eldest."""
        job, found = self._job, dict[str, Result]()
        elders = twins.elders(job.model_dir, job.tags, signatures)
        eldest = [s for s in signatures if elders[s.key] == s.key]
        self._least_s = allotment.SEARCH * job.flags.budget_s() / len(eldest)
        for number, info in enumerate(eldest):
            records = [
                sample for key, elder in elders.items() if elder == info.key for sample in job.samples.get(key, ())
            ]
            allotted = self._budget.share(len(eldest) - number)
            found[info.key] = self._signature(info, states[info.key], records, f"s{number}", allotted)
        for info in signatures:
            if elders[info.key] != info.key:
                self._log.say(f"{info.key}: computes the same as {elders[info.key]} and shares its plan")
                found[info.key] = Result(info, found[elders[info.key]].study, found[elders[info.key]].trials)
        return [found[info.key] for info in signatures]

    def _signature(
        self, info: SignatureInfo, state: State, samples: Sequence[Feeds], folder: str, allotted: Allotment
    ) -> Result:
        found = study(
            info,
            state,
            samples,
            self._job.flags,
            from_warmup=self._job.records == "warmup",
            reference=self._reference,
            folder=folder,
        )
        independent = "are" if found.proof.independent else "are not"
        self._log.say(f"{info.key}: rows {independent} independent: {found.proof.reason}")
        unfit = len(samples) - len(found.samples)
        if unfit and not found.stateful:
            self._log.say(f"{info.key}: {unfit} of {len(samples)} records do not have its inputs and types, left out")
        if found.no_contest:
            self._log.say(f"{info.key}: plain TF only: {found.no_contest}")
        self._keep_records(found, folder)
        trials = self._buckets(found, allotted.at_least(self._least_s))
        known = [t for t in trials if t]
        if self._job.flags.optimize_for == MEMORY and len(known) == len(trials):
            trials = tuple(choose.by_memory(known, self._weights_bytes))
            self._log.say(f"{info.key}: for memory: {choose.memory_line([t for t in trials if t])}")
        return Result(info, found, trials)

    def _keep_records(self, found: Study, folder: str) -> None:
        """For those who calibrate. Says so where they are also checked on them."""
        if found.split is None or not found.specs or not any(e.precision for e in self._entrants):
            return
        calibration.write(self._job.plan_dir / folder, found.calibration(), self._job.flags.lossy())
        if not found.split.apart:
            self._log.say(
                f"{found.info.key}: lossy candidates are calibrated and checked on the same {len(found.split.check)} "
                f"records; with {compression.ENOUGH} or more they are kept apart"
            )

    def _buckets(self, found: Study, allotted: Allotment) -> tuple[tuple[Trial, ...] | None, ...]:
        """The smallest bucket first, then the largest: an engine that loses both is not compiled for the rest."""
        order = sorted(range(len(found.specs)), key=lambda i: (i != 0, i != len(found.specs) - 1, i))
        trials: dict[int, tuple[Trial, ...]] = {}
        winners = set[tuple[str, str]]()
        there = [e for e in self._entrants if not e.split or found.info.key in self._splits]
        refused = {e: reason for e in there if (reason := e.refuses(found.info))}
        able = [e for e in there if e not in refused]
        for_memory = self._job.flags.optimize_for == MEMORY  # who is slow may be small
        for position, index in enumerate(order):
            spec = found.specs[index]
            if position and allotted.gone():
                self._log.say(f"{found.info.key}: no time left for {len(order) - position} of {len(order)} buckets")
                break
            place = report.where(found.info.key, spec.batch, dict(spec.shapes))
            hopeless = _hopeless(able, [trials[i] for i in order[:2]]) if position >= 2 and not for_memory else {}
            running = [e for e in able if e not in hopeless]
            self._log.note(
                f"{place} [{position + 1}/{len(order)}]: {', '.join(e.label for e in running) or 'plain TF'}"
            )
            try:
                share = allotted.share(allotment.parts(position, len(order)))
                entrants = [*self._others, *running]
                held = self._contest.hold(
                    place, found.info, spec, found.material(spec), entrants, allotted=share, winners=winners
                )
            except WorkerFailed as error:
                self._log.say(f"{place}: plain TF itself fails here: {error.reason}")
                held = []
            out = (
                [Trial(e.engine, e.variant, reason, precision=e.precision) for e, reason in refused.items()]
                if held
                else []
            )
            out += [
                Trial(e.engine, e.variant, reason, skipped=True, precision=e.precision)
                for e, reason in hopeless.items()
            ]
            trials[index] = tuple(choose.scored([*held, *out], self._job.flags.optimize_for))
            winners |= {best for best in [choose.fastest(trials[index])] if best}
            self._log.note(f"{place}: " + ", ".join(_measured(t) for t in trials[index]))
        return tuple(trials.get(i) for i in range(len(found.specs)))


def _without_writers(entrants: tuple[Entrant, ...], states: Mapping[str, State], log: Log) -> tuple[Entrant, ...]:
    """A compiled module holds the variables as they were: no model whose signatures write them can use one."""
    writers = [key for key, state in states.items() if state.writes and saved_model.is_callable(key)]
    if not writers or not entrants:
        return entrants
    log.say(
        f"only plain TF takes part: {writers[0]} writes state ({states[writers[0]].writes[0]}) that others may read"
    )
    return tuple(e for e in entrants if e.engine == "tensorflow")


def _hopeless(entrants: Sequence[Entrant], extremes: Sequence[Sequence[Trial]]) -> dict[Entrant, str]:
    """Those that lost badly, or failed, in both the smallest and the largest bucket, with the reason."""
    found: dict[Entrant, str] = {}
    for entrant in entrants:
        own = [t for trials in extremes for t in trials if (t.engine, t.variant) == (entrant.engine, entrant.variant)]
        if len(own) < len(extremes):
            continue  # plain TensorFlow itself failed in one of them: nothing is known
        best = [min(t.score_us for t in trials if t.eligible) for trials in extremes]
        if all(t.skipped for t in own):
            found[entrant] = own[0].reason
        elif all(t.reason for t in own):
            found[entrant] = f"failed in the smallest and in the largest bucket: {own[0].reason}"
        elif all(t.score_us > measure.HOPELESS * us for t, us in zip(own, best, strict=True)):
            found[entrant] = f"lost by more than {measure.HOPELESS:g}x in the smallest and in the largest bucket"
    return found


def _measured(trial: Trial) -> str:
    if trial.reason:
        return f"{trial.label} {'skipped' if trial.skipped else 'out'}: {trial.reason}"
    return f"{trial.label} {choose.microseconds(trial.median_us)}"


def _settle(job: OptimizeJob, results: Sequence[Result], loaders: Sequence[str], log: Log, started: float) -> Plan:
    contests = [trials for r in results for trials in r.trials if trials]
    loader = choose.loader(contests, ("tensorflow", loaders[0]), loaders)
    complete = all(r.study.specs and None not in r.trials for r in results)
    free = choose.without_tensorflow(contests) if complete else None
    if free:
        log.say(free)
    signatures = tuple(_settle_signature(job, r, loader, bool(free), log) for r in results)
    kept = {b.artifact for s in signatures for b in s.buckets if b.artifact}
    weights_bytes = tidy(job.plan_dir, kept)
    runners = choose.runners([b for s in signatures for b in s.buckets])
    if runners:
        log.say(f"when requests queue, {runners} run at a time")
    return Plan(
        fingerprint=fingerprint(job.model_dir, job.flags, job.tags, job.samples),
        device=job.flags.device,
        loader=loader,
        records=job.records,
        signatures=signatures,
        log=tuple(log.lines),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        optimize_s=round(time.monotonic() - started, 3),
        weights_bytes=weights_bytes,
        files=plan.checksums(job.plan_dir),
        runners=runners,
    )


def _settle_signature(job: OptimizeJob, result: Result, loader: str, free: bool, log: Log) -> SignaturePlan:
    found, planned, costs = result.study, list[BucketPlan](), list[tuple[int, float]]()
    told = result.info is found.info  # a twin's lines are its eldest's
    for spec, trials in zip(found.specs, result.trials, strict=True):
        if trials is None:
            planned.append(_not_opened(result, spec, loader))
            continue
        if not trials:
            continue
        chosen = choose.winner(trials, loader, without_tensorflow=free)
        line = report.decision(report.where(found.info.key, spec.batch, dict(spec.shapes)), chosen, trials, trials[0])
        if told:
            log.say(line)
        planned.append(_bucket(spec, chosen, trials, loader, line))
        if chosen is not None and spec.batch is not None:
            costs.append((spec.batch, chosen.median_us))
    merge, why = False, "rows are not independent"
    if found.proof.independent:
        merge, why = choose.merge(costs)
        if told:
            log.say(f"{found.info.key}: requests {'are' if merge else 'are not'} merged: {why}")
    if not planned:
        planned.append(any_shape(loader, found.no_contest or "nothing could be measured"))
    independent = found.proof.independent and planned[0].batch is not None
    segments = split.shown(job.plan_dir, Path(found.specs[0].folder).parent.as_posix()) if found.specs else ()
    return SignaturePlan(result.info, independent, found.proof.reason, merge, why, tuple(planned), segments)


def _bucket(spec: BucketSpec, chosen: Trial | None, trials: Sequence[Trial], loader: str, why: str) -> BucketPlan:
    engine, variant = (chosen.engine, chosen.variant) if chosen else ("tensorflow", loader)
    static = engine != "tensorflow"
    artifact = chosen.artifact if chosen else ""
    candidates = choose.candidates(trials, chosen)
    return BucketPlan(spec.batch, spec.shapes, engine, variant, static, artifact, candidates, why)


def _not_opened(result: Result, spec: BucketSpec, loader: str) -> BucketPlan:
    """Plain TensorFlow, at the time that its other sizes suggest: padding up to a size that was tried may cost more."""
    why = "no time left to try anything (--optimize_budget_s)"
    known = [(s.batch or 0, t[0].median_us) for s, t in zip(result.study.specs, result.trials, strict=True) if t]
    us = choose.between(known, spec.batch or 0)
    told = Candidate("tensorflow", loader, "chosen", why, Measured(us, us, 0)) if us else None
    return BucketPlan(spec.batch, spec.shapes, "tensorflow", loader, False, "", (told,) if told else (), why)


def any_shape(loader: str, why: str) -> BucketPlan:
    """Plain TensorFlow for whatever comes: no shapes, nothing padded."""
    return BucketPlan(None, {}, "tensorflow", loader, False, "", (), why)
