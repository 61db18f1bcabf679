"""From what was measured to the plan: the loader, the winners, the files that stay."""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
from collections.abc import Sequence
from pathlib import Path

from tfopt_optimizer import choose, exhausted, inner, likely, plan_files, report, saved_model, shortening, standalone
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.contest import LARGE, BucketSpec
from tfopt_optimizer.engines import split
from tfopt_optimizer.fingerprint import fingerprint
from tfopt_optimizer.job import OptimizeJob
from tfopt_optimizer.padding_proof import Padding
from tfopt_optimizer.plan import (
    BucketPlan,
    Candidate,
    InnerBucket,
    InnerPlan,
    Measured,
    Plan,
    Shortening,
    SignaturePlan,
)
from tfopt_optimizer.report import Log
from tfopt_optimizer.study import Study
from tfopt_optimizer.tidy import tidy
from tfopt_optimizer.tournament import Result

SHORTER_PAYS = 0.95  # of the time of the next longer length


def settle(job: OptimizeJob, results: Sequence[Result], loaders: Sequence[str], log: Log, started: float) -> Plan:
    contests = [
        trials
        for r in results
        for spec, trials in zip(r.study.specs, r.trials, strict=True)
        if trials and not spec.short
    ]
    loader = choose.loader(contests, ("tensorflow", loaders[0]), loaders)
    complete = all(r.study.specs and not _unopened(r) for r in results)
    free = choose.without_tensorflow(contests) if complete else None
    if free:
        log.say(free)
    wanted = job.flags.without_tensorflow
    signatures = tuple(_settle_signature(job, r, loader, wanted or bool(free), log) for r in results)
    if wanted:
        signatures = standalone.without_tensorflow(signatures, log.say)
    kept = {b.artifact for s in signatures for b in s.buckets if b.artifact}
    split.trim(job.plan_dir, [b for s in signatures for b in s.buckets])
    weights_bytes = tidy(job.plan_dir, kept)
    runners = choose.runners([b for s in signatures for b in s.buckets])
    if runners:
        log.say(f"when requests queue, {runners} run at a time")
    return Plan(
        fingerprint=fingerprint(job.model_dir, job.flags, job.tags, job.samples),
        device=job.flags.device,
        device_kind=job.flags.device_kind,
        loader=loader,
        records=job.records,
        signatures=signatures,
        log=tuple(log.lines),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        optimize_s=round(time.monotonic() - started, 3),
        weights_bytes=weights_bytes,
        files=plan_files.checksums(job.plan_dir),
        runners=runners,
    )


def _settle_signature(job: OptimizeJob, result: Result, loader: str, free: bool, log: Log) -> SignaturePlan:
    found, planned, costs = result.study, list[BucketPlan](), list[tuple[int, float]]()
    whole = dict[int | None, Trial]()  # who won at the signature's own length, by rows
    told = result.info is found.info  # a twin's lines are its eldest's
    packing = _packing(job, result, loader)
    for spec, trials in zip(found.specs, result.trials, strict=True):
        if trials is None and spec.short:
            continue
        if trials is None:
            planned.append(_not_opened(result, spec, loader))
            continue
        if not trials:
            continue
        like = (choose.side_by_side(trials) or whole.get(spec.batch)) if spec.short else packing
        chosen = choose.winner(trials, loader, without_tensorflow=free, like=like)
        if not spec.short and chosen is not None:
            whole[spec.batch] = chosen
        line = report.decision(spec.place(found.info.key), chosen, trials, trials[0])
        if told:
            log.say(line)
        positions = _positions(found, spec, chosen)
        planned.append(dataclasses.replace(_bucket(spec, chosen, trials, loader, line), positions=positions))
        if chosen is not None and spec.batch is not None and spec.inner == found.specs[0].inner:
            filled = spec.batch * spec.inner[0] / positions if positions else 1.0  # what rows without filling take
            costs.append((spec.batch, chosen.median_us * filled))
    planned, costs = exhausted.without(found.info.key, planned, costs, log.say if told else _unsaid)
    rewriting, asked = found.rewriting, _asked(result)
    lengths, planned = _lengths(asked, planned)
    if asked is not None and told:
        log.say(f"{found.info.key}: {report.lengths(asked, lengths)}")
    merge, why = False, "rows are not independent"
    if found.proof.independent:
        merge, why = choose.merge(costs)
        if told:
            log.say(f"{found.info.key}: requests {'are' if merge else 'are not'} merged: {why}")
    if not planned:
        planned.append(any_shape(loader, found.no_contest or "nothing could be measured"))
    independent = found.proof.independent and planned[0].batch is not None
    segments = split.shown(job.plan_dir, Path(found.specs[0].folder).parent.as_posix()) if found.specs else ()
    varying = _inner(found.padding, planned) if found.padding is not None and independent else None
    return SignaturePlan(
        *(result.info, independent, found.proof.reason, merge, why, tuple(planned), segments),
        inner=varying,
        bucket_reason=result.bucket_reason,
        shortening=lengths,
        rewritten=rewriting.told if rewriting else "",
    )


def _packing(job: OptimizeJob, result: Result, loader: str) -> Trial | None:
    """Who leaves filling out in the full length's largest bucket, where weights are so large that another runner, which
    keeps its own, would cost more memory than it saves time."""
    if saved_model.variables_bytes(job.model_dir) <= LARGE:
        return None
    whole = [t for spec, t in zip(result.study.specs, result.trials, strict=True) if t and spec.lengths is not None]
    won = choose.winner(whole[-1], loader) if whole else None
    return won if won is not None and likely.packs(won.engine, won.variant) else None


def _unopened(result: Result) -> bool:
    specs = zip(result.study.specs, result.trials, strict=True)
    return any(trials is None and not spec.short for spec, trials in specs)


def _asked(result: Result) -> Shortening | None:
    """With the lengths that were meant to have buckets: those near to others only where a runner took any."""
    rewriting, there = result.study.rewriting, {spec.inner for spec in result.study.specs}
    if rewriting is None or rewriting.lengths is None:
        return None
    kept = tuple(length for length in rewriting.lengths.lengths if (length,) in there)
    return dataclasses.replace(rewriting.lengths, lengths=kept)


def _lengths(asked: Shortening | None, planned: list[BucketPlan]) -> tuple[Shortening | None, list[BucketPlan]]:
    """The shorter lengths that pay, and the buckets that stay: of a shorter length those that an engine runs, faster
    than what the next longer one would take for as many rows. One more length of a runner that takes any costs nothing:
    where one of them is faster than the full length all stay, for what lies between may be noise."""
    if asked is None:
        return None, planned
    whole = [b for b in planned if b.inner == (asked.size,)]
    open_ = [b for b in planned if b.inner != (asked.size,) and b.engine != "tensorflow" and not b.static]
    paying = {b.batch for b in open_ if _us(b) <= SHORTER_PAYS * _us_of(whole, b.batch or 0)}
    stay, above, kept = list(whole), whole, list[int]()
    for size in reversed(asked.lengths):
        alone = [b for b in planned if b.inner == (size,) and b.engine != "tensorflow" and b.static]
        alone = [b for b in alone if _us(b) <= SHORTER_PAYS * _us_of(above, b.batch or 0)]
        own = [*alone, *(b for b in open_ if b.inner == (size,) and b.batch in paying)]
        if own:
            stay, above, kept = [*stay, *sorted(own, key=lambda b: b.batch or 0)], own, [size, *kept]
    if not kept and not any(b.positions for b in whole):
        return None, [dataclasses.replace(b, inner=()) for b in whole]
    return dataclasses.replace(asked, lengths=tuple(kept)), stay


def _us(bucket: BucketPlan) -> float:
    """Microseconds of the chosen runner; infinite where it was not measured."""
    return next((c.measured.median_us for c in bucket.candidates if c.status == "chosen" and c.measured), math.inf)


def _us_of(buckets: Sequence[BucketPlan], rows: int) -> float:
    """What so many rows take in the smallest bucket that holds them."""
    able = [b for b in buckets if (b.batch or 0) >= rows]
    return _us(min(able, key=lambda b: b.batch or 0)) if able else math.inf


def _inner(padding: Padding, planned: Sequence[BucketPlan]) -> InnerPlan:
    """From which size on padding up to an inner bucket pays, for any number of rows."""
    levels = sorted({b.inner for b in planned}, key=inner.elements)
    buckets, below = [], dict[int | None, tuple[int, float, float]]()
    for sizes in levels:
        points = {b.batch: _point(b) for b in planned if b.inner == sizes}
        lines = [[*([below[batch]] if batch in below else []), point] for batch, point in points.items()]
        buckets.append(InnerBucket(sizes, inner.least(lines)))
        below = {batch: point for batch, point in points.items() if math.isfinite(point[2])}
    return InnerPlan(padding.dimensions, tuple(buckets), padding.sound, padding.reason, padding.floor)


def _point(bucket: BucketPlan) -> tuple[int, float, float]:
    """Elements, chosen and plain microseconds. Nothing is padded for a runner that takes any number of rows."""
    times = [c.measured.median_us if c.measured else math.inf for c in bucket.candidates]
    chosen = [us for us, c in zip(times, bucket.candidates, strict=True) if c.status == "chosen"]
    plain = times[0] if times else math.inf
    return inner.elements(bucket.inner), chosen[0] if chosen and bucket.static else math.inf, plain


def _unsaid(_line: str) -> None:
    """For a twin, whose lines are its eldest's."""


def _positions(found: Study, spec: BucketSpec, chosen: Trial | None) -> int:
    """What the rows have together on which a runner was measured that leaves filling out; 0 of any other."""
    if chosen is None or spec.lengths is None or not likely.packs(chosen.engine, chosen.variant):
        return 0
    measured = next(iter(found.material(spec).feeds))
    return int(shortening.lengths(spec.lengths, measured).sum())


def _bucket(spec: BucketSpec, chosen: Trial | None, trials: Sequence[Trial], loader: str, why: str) -> BucketPlan:
    engine, variant = (chosen.engine, chosen.variant) if chosen else ("tensorflow", loader)
    static = engine != "tensorflow" and not (chosen and chosen.any_rows)
    artifact = chosen.artifact if chosen else ""
    candidates = choose.candidates(trials, chosen)
    return BucketPlan(spec.batch, spec.shapes, engine, variant, static, artifact, candidates, why, spec.inner)


def _not_opened(result: Result, spec: BucketSpec, loader: str) -> BucketPlan:
    """Plain TensorFlow, at the time that its other sizes suggest: padding up to a size that was tried may cost more."""
    why = "no time left to try anything (--optimize_budget_s)"
    opened = [(s, t) for s, t in zip(result.study.specs, result.trials, strict=True) if t and s.inner == spec.inner]
    known = [(s.batch or 0, t[0].median_us) for s, t in opened]
    us = choose.between(known, spec.batch or 0)
    told = Candidate("tensorflow", loader, "chosen", why, Measured(us, us, 0)) if us else None
    return BucketPlan(
        spec.batch, spec.shapes, "tensorflow", loader, False, "", (told,) if told else (), why, spec.inner
    )


def any_shape(loader: str, why: str) -> BucketPlan:
    """Plain TensorFlow for whatever comes: no shapes, nothing padded."""
    return BucketPlan(None, {}, "tensorflow", loader, False, "", (), why)
