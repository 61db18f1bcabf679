"""One bucket's contest: every candidate is prepared, checked against plain TensorFlow, and measured beside it.

Whatever happens to a candidate (an operation it cannot take, a wrong answer, a crash, a timeout) becomes the reason in
its Trial; only the reference's own failure ends the contest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfopt_optimizer import asked, cpu, hopeless, independence, likely, measure, report, verify
from tfopt_optimizer.allotment import Allotment
from tfopt_optimizer.asked import Asked, Here
from tfopt_optimizer.buckets import Shapes
from tfopt_optimizer.candidate import Candidate
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.device import CPU
from tfopt_optimizer.edges import Edge
from tfopt_optimizer.engines.base import Arrays, Prepared, Target
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.errors import NeedsConversion
from tfopt_optimizer.flags import THROUGHPUT, OptimizerFlags
from tfopt_optimizer.inner import Sizes
from tfopt_optimizer.plan import Measured, Shortening, SignatureInfo
from tfopt_optimizer.reference import Batch, Reference
from tfopt_optimizer.report import Log
from tfopt_optimizer.workers import Budget, Worker, WorkerFailed

CHECK_S = 3.0  # reference time spent on the rows of one bucket's check ...
CHECK_SHARE = 0.1  # ... and the share of the bucket's time that it may be
CHECK_BYTES = 256 << 20  # reference outputs held for it
BRIEF_S = 0.05
CLOSING_S = 60.0  # what a runner may take to let go of what it holds
WARM_S = 0.3  # a call that takes longer than this is what it seems
LIGHT_US = 10_000.0  # calls of plain TensorFlow above this are all computing
LARGE = 64 << 20  # bytes of variables from which on a heavy conversion must promise something
BEATEN = 1.3  # ... which it does not where another engine is this many times faster than plain TensorFlow
CONVERSIONS = 2  # a split signature is cut, and then its segments may have to be converted
SERVED = 1.8  # another engine this many times faster than plain TensorFlow leaves nothing to win for a `reserve`
SPARE_US = 100_000.0  # calls of plain TensorFlow above this are too long to try its other ways where it is beaten so


@dataclasses.dataclass(frozen=True)
class BucketSpec:
    """One set of static shapes; `batch` None when rows are not independent. `folder` is where its artifacts go.
    `inner`: the sizes of the inner dimensions that vary, () where none does. `source`, `given`: the graph that engines
    read instead of the model's own, and its signature. `short`: of rows that are cut, for which plain TensorFlow is
    given the whole. `near`: to another length, and only for runners that take any. `lengths`: how long its rows are."""

    batch: int | None
    shapes: Shapes
    folder: str
    inner: Sizes = ()
    source: str = ""
    given: SignatureInfo | None = None
    short: bool = False
    near: bool = False
    lengths: Shortening | None = None

    def place(self, signature: str) -> str:
        """How the log calls it: "serving_default x 8", "serving_default x 8 x 128" where the length is a bucket's."""
        return report.where(signature, self.batch, dict(self.shapes), self.inner)


@dataclasses.dataclass(frozen=True)
class Material:
    """Feeds of exactly a bucket's shapes; `altered` are rows to put beside a row whose answer must not change.

    The first `apart` of the feeds hold no record that anything was calibrated on; 0 where all may have been.
    `made_up`: feeds that no record has and clients may send. `edges`: rows of that kind, or such feeds.
    """

    feeds: Iterable[Arrays]
    altered: Arrays | None
    apart: int = 0
    made_up: Iterable[Arrays] = ()
    edges: Sequence[Edge] = ()


@dataclasses.dataclass(frozen=True)
class Checks:
    """What a candidate must answer as plain TensorFlow does."""

    records: Sequence[Batch]
    made_up: Sequence[Batch]
    altered: Arrays | None
    edges: Here


def _found(entered: Sequence[Candidate]) -> list[Candidate]:
    """The engines that were found right."""
    return [c for c in entered if not c.reason and c.entrant.engine != "tensorflow"]


def _constant(known: Measured) -> measure.Round:
    return lambda seconds, most: np.array([known.median_us])


class Contest:
    """Holds the contests of one model. `lossless`: by signature the gate of candidates that do not change precision."""

    def __init__(
        self,
        reference: Reference,
        workers: Mapping[str, Worker],
        flags: OptimizerFlags,
        lossless: Mapping[str, verify.Gate],
        log: Log,
        *,
        weights_bytes: int,
    ) -> None:
        self._reference, self._workers, self._flags, self._log = reference, workers, flags, log
        self._lossless, self._lossy = lossless, verify.Gate(flags.lossy())
        self._weights_bytes, self._asked = weights_bytes, Asked(reference)
        self._too_long: dict[tuple[str, str], float] = {}  # by signature and converter: seconds that were not enough

    def hold(
        self,
        place: str,
        signature: SignatureInfo,
        spec: BucketSpec,
        material: Material,
        entrants: Sequence[Entrant],
        *,
        allotted: Allotment,
        winners: Mapping[tuple[str, str], int],
        known: Measured | None = None,
    ) -> list[Trial]:
        """The reference's trial first, then one per entrant. WorkerFailed when the reference itself fails. `known`:
        what the reference takes, where that was measured: of rows that are cut it computes the whole.

        When the time is over, those that were not tried yet are left out, once one engine was found right.
        """
        batches, reference_us = self._batches(
            signature, spec, material.feeds, min(CHECK_S, CHECK_SHARE * allotted.left()), known
        )
        made_up = self._made_up(place, signature, spec, material.made_up)
        at_edges = self._asked.here(signature, spec.batch, spec.folder, material.edges)
        strings = any(t.dtype == "string" for t in signature.inputs)
        large = self._weights_bytes > LARGE
        fast = self._flags.device != CPU
        ordered = likely.order(
            entrants, strings=strings, reference_us=reference_us, large=large, accelerated=fast, winners=winners
        )
        candidates = [self._candidate(signature, spec, e) for e in ordered]
        entered: list[Candidate] = []
        for candidate in candidates:
            candidate.reason = self._left_out(candidate, batches[0], reference_us, entered, allotted)
            candidate.skipped = bool(candidate.reason)
            if not candidate.skipped:
                again_s = candidate.worker.opening_s
                candidate.budget = Budget(allotted.patience(self._flags.candidate_timeout_s, _found(entered), again_s))
                checked = (batches[: material.apart] or batches) if candidate.entrant.precision else batches
                self._enter(place, candidate, Checks(checked, made_up, material.altered, at_edges), entered)
                entered.append(candidate)
        first = batches[0]
        base = _constant(known) if known else self._reference.round(signature, first.key, first.feeds)
        for candidate in candidates:
            candidate.budget = Budget(allotted.patience(self._flags.candidate_timeout_s))
        rounds = {c.name: c.round(first) for c in candidates if not c.reason}
        base_times, times = measure.compare(base, rounds, allotted.left)
        for candidate in candidates:
            candidate.times = times.get(candidate.name)
        own_rate = (0.0, 0)
        if not spec.short or self._flags.optimize_for == THROUGHPUT:  # how many callers suit whole rows suits these
            own_rate = self._saturate(signature, first, float(np.median(base_times)), candidates, allotted)
        self._tidy(candidates)
        took = known or measure.summary(base_times, *own_rate)
        own = Trial("tensorflow", self._reference.variant, "", measured=took)
        return [own, *(c.trial() for c in candidates)]

    def _saturate(
        self,
        signature: SignatureInfo,
        batch: Batch,
        base_us: float,
        candidates: Sequence[Candidate],
        allotted: Allotment,
    ) -> tuple[float, int]:
        """Measures with all cores busy: for latency who is fastest, to know how many callers suit it; for throughput
        all that may win, plain TensorFlow too. Returns what plain TensorFlow reached."""
        cores = self._flags.intra_op_threads or cpu.usable_cores()
        medians = {c.name: float(np.median(c.times)) for c in candidates if c.times is not None and not c.reason}
        best = min([base_us, *medians.values()])
        # On one thread beside others a call takes at most `cores` times as long, and may still answer as many.
        limit = best * (1.2 * cores if self._flags.optimize_for == THROUGHPUT else 1.06)
        racing = {c.name: c for c in candidates if medians.get(c.name, np.inf) <= limit}
        runs = {name: c.saturate(batch) for name, c in racing.items()}
        if base_us <= limit:
            runs[""] = self._reference.saturate(signature, batch)
        rates = measure.saturate(runs, cores, allotted.left)
        for name, candidate in racing.items():
            candidate.rate = rates[name]
        return rates.get("", (0.0, 0))

    def _left_out(
        self, candidate: Candidate, batch: Batch, reference_us: float, entered: Sequence[Candidate], allotted: Allotment
    ) -> str:
        """Why a candidate is not tried; "" when it is."""
        entrant = candidate.entrant
        if entrant.light and reference_us > LIGHT_US and self._flags.optimize_for != THROUGHPUT:
            return f"for calls of less than {LIGHT_US / 1e3:g} ms"
        if why := entrant.unfit(candidate.target.rows or 1, alone=self._flags.optimize_for != THROUGHPUT):
            return why
        if likely.packs(entrant.engine, entrant.variant):
            if candidate.target.lengths is None:
                return "its rows have no filling that could be left out"
            if self._weights_bytes > LARGE and entrant.variant != likely.PACKED:
                return "the weights are there once, for single rows too"
            if self._weights_bytes <= LARGE and candidate.target.rows == 1:
                return "for batches of 2 rows or more"
        found = _found(entered)
        if found and allotted.over():
            return f"{hopeless.NO_TIME}, and {found[0].entrant.label} was found right"
        known_s = self._too_long.get((candidate.target.signature.key, entrant.converter), 0.0)
        if found and allotted.patience(self._flags.candidate_timeout_s, found) <= known_s:
            return f"converting it takes more than {known_s:.2g} s"
        if entrant.spare and reference_us > SPARE_US:
            return self._beaten(batch, found, BEATEN)
        return ""

    def _candidate(self, signature: SignatureInfo, spec: BucketSpec, entrant: Entrant) -> Candidate:
        static = entrant.engine != "tensorflow"
        target = Target(signature, entrant.variant, engine=entrant.engine)
        if static:
            target = dataclasses.replace(
                target,
                shapes=spec.shapes,
                folder=spec.folder,
                rows=spec.batch,
                varying=bool(spec.inner),
                open=spec.short and (spec.near or spec.batch != 1),
            )
        if static and not entrant.own_graph:
            lengths = spec.lengths if likely.packs(entrant.engine, entrant.variant) else None
            target = dataclasses.replace(target, signature=spec.given or signature, source=spec.source, lengths=lengths)
        name = f"{spec.folder if static else signature.key}/{entrant.engine}/{entrant.variant}"
        worker = self._workers[entrant.worker]
        return Candidate(entrant, worker, name, target, Budget(self._flags.candidate_timeout_s))

    def _enter(
        self,
        place: str,
        candidate: Candidate,
        checks: Checks,
        rivals: Sequence[Candidate],
    ) -> None:
        """Converts, compiles and checks. `rivals` are ready."""
        worker, batches = candidate.worker, checks.records
        worker.on_wait = lambda seconds: self._log.note(
            f"{place}: {candidate.entrant.label} is at it for {seconds:.0f} s"
        )
        try:
            candidate.prepared = self._prepare(candidate, batches[0], rivals)
            candidate.reason = (
                self._check(candidate, batches)
                or asked.misread(candidate, checks.made_up, self._gate(candidate).of_one_call)
                or self._leaks(candidate, batches[0], checks.altered)
                or checks.edges.mistake(candidate, batches[0], self._gate(candidate).of_one_call)
            )
        except WorkerFailed as error:
            candidate.reason = error.reason

    def _prepare(self, candidate: Candidate, batch: Batch, rivals: Sequence[Candidate]) -> Prepared:
        """Converts where the engine asks for it: a model for several buckets is there after the first."""
        worker, converter = candidate.worker, self._workers.get(candidate.entrant.converter)
        for _ in range(CONVERSIONS):
            try:
                return worker.prepare(candidate.budget, candidate.name, candidate.target)
            except WorkerFailed as error:
                if error.kind != NeedsConversion.__name__ or converter is None:
                    raise
            if why := self._not_worth_it(candidate, batch, rivals):
                candidate.skipped = True
                raise WorkerFailed(f"not converted: {why}")
            converter.on_wait = worker.on_wait
            self._convert(converter, candidate)
        return worker.prepare(candidate.budget, candidate.name, candidate.target)

    def _convert(self, converter: Worker, candidate: Candidate) -> None:
        try:
            converter.lower(candidate.budget, candidate.target)
        except WorkerFailed as error:
            if error.died and not candidate.budget.left():
                key = (candidate.target.signature.key, candidate.entrant.converter)
                self._too_long[key] = candidate.budget.seconds
            raise

    def _not_worth_it(self, candidate: Candidate, batch: Batch, rivals: Sequence[Candidate]) -> str:
        large = candidate.entrant.heavy and self._weights_bytes > LARGE
        if not (large or candidate.entrant.reserve):
            return ""
        why = self._beaten(batch, rivals, BEATEN if large else SERVED)
        if not why:
            return ""
        return f"{self._weights_bytes >> 20} MB would take long, and {why}" if large else why

    def _beaten(self, batch: Batch, rivals: Sequence[Candidate], least: float) -> str:
        """Which rival has left plain TensorFlow clearly behind; "" when none has."""
        able = [r for r in rivals if not r.reason and r.entrant.engine != "tensorflow"]
        if not able:
            return ""
        base_us = float(self._reference.round(able[0].target.signature, batch.key, batch.feeds)(BRIEF_S, 3).min())
        times = {r.entrant.label: float(r.round(batch)(BRIEF_S, 3).min()) for r in able}
        best = min(times, key=lambda name: times[name])
        gain = base_us / times[best]
        return f"{best} is {gain:.1f}x faster than plain TF already" if gain > least else ""

    def _check(self, candidate: Candidate, batches: Sequence[Batch]) -> str:
        calls = verify.Calls(self._gate(candidate))
        for batch in batches:
            found = candidate.worker.run(candidate.budget, candidate.name, batch.key, batch.feeds)
            if calls.add(batch.expected, found):
                break
        verdict = calls.verdict()
        candidate.agreement = verdict.agreement
        return verdict.reason

    def _gate(self, candidate: Candidate) -> verify.Gate:
        return self._lossy if candidate.entrant.precision else self._lossless[candidate.target.signature.key]

    def _leaks(self, candidate: Candidate, batch: Batch, altered: Arrays | None) -> str:
        """Whether what stands in the other rows of a static batch reaches the first one."""
        if altered is None or candidate.target.shapes is None:
            return ""
        size = next(iter(batch.feeds.values())).shape[0]
        if size < 2:
            return ""
        others = {n: np.resize(a, (size - 1, *a.shape[1:])) for n, a in altered.items()}
        feeds = {n: np.concatenate([a[:1], others[n]]) for n, a in batch.feeds.items()}
        found = candidate.worker.run(candidate.budget, candidate.name, f"{batch.key}/altered", feeds)
        alone = {n: a[:1] for n, a in batch.expected.items()}
        reason = independence.same_row(alone, found, 0, size, self._gate(candidate).of_one_call)
        return f"other rows change the first one: {reason}" if reason else ""

    def _batches(
        self,
        signature: SignatureInfo,
        spec: BucketSpec,
        material: Iterable[Arrays],
        seconds: float,
        known: Measured | None,
    ) -> tuple[list[Batch], float]:
        """As many different batches of this shape as fit into `seconds` of reference time, one at least.

        And about how long a call takes, in microseconds.
        """
        end, held, batches, shortest_s = time.monotonic() + seconds, 0, list[Batch](), float("inf")
        for number, feeds in enumerate(material):
            key, started = f"{spec.folder}/{number}", time.monotonic()
            expected = self._reference.run(signature, key, feeds)
            shortest_s = min(shortest_s, time.monotonic() - started)
            batches.append(Batch(key, feeds, expected))
            held += sum(a.nbytes for a in expected.values())
            if time.monotonic() > end or held > CHECK_BYTES:
                break
        if known:
            return batches, known.median_us
        if shortest_s < WARM_S:  # the first calls of a shape are slower, and arrays come through a pipe
            brief = self._reference.round(signature, batches[0].key, batches[0].feeds)(BRIEF_S, 3)
            return batches, float(brief.min())
        return batches, shortest_s * 1e6

    def _made_up(
        self, place: str, signature: SignatureInfo, spec: BucketSpec, made_up: Iterable[Arrays]
    ) -> list[Batch]:
        """With plain TensorFlow's answers, as many as fit into CHECK_S. What it refuses no candidate is asked."""
        end, found, left = time.monotonic() + CHECK_S, list[Batch](), iter(made_up)
        for number, feeds in enumerate(left):
            key = f"{spec.folder}/made-up/{number}"
            try:
                found.append(Batch(key, feeds, self._reference.run(signature, key, feeds)))
            except WorkerFailed as error:
                if error.died:
                    raise
            if time.monotonic() > end:
                if more := sum(1 for _ in left):
                    tried = f"{number + 1} of {number + 1 + more} calls"
                    self._log.say(f"{place}: made-up Examples: {tried} were made of plain TF in {CHECK_S:g} s")
                break
        return found

    def _tidy(self, candidates: Sequence[Candidate]) -> None:
        """Feeds are not needed any more; executables that lost are dropped by their worker."""
        for worker in {id(w): w for w in [self._reference.worker, *(c.worker for c in candidates)]}.values():
            with contextlib.suppress(WorkerFailed):  # a candidate's is out by then, or finds out when it is asked again
                if worker.alive():
                    worker.forget_feeds(Budget(CLOSING_S))
        for candidate in candidates:
            if candidate.target.shapes is None or not candidate.worker.alive():
                continue
            try:
                candidate.worker.drop(Budget(CLOSING_S), candidate.name)
            except WorkerFailed as error:  # as a server would over it, when the version is unloaded
                candidate.reason = candidate.reason or f"closing it: {error.reason}"
