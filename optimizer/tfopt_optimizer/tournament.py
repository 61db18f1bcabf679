"""The contests of a model, one per signature and bucket: who takes part, in which order, for how long."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from tfopt_optimizer import (
    allotment,
    bucket_set,
    choose,
    compression,
    contest,
    declared,
    example_rows,
    graphs,
    inner,
    likely,
    own_precision,
    report,
    rewriting,
    saved_model,
    twins,
    verify,
)
from tfopt_optimizer.allotment import Allotment
from tfopt_optimizer.buckets import Feeds, Rows
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.contest import BucketSpec, Contest
from tfopt_optimizer.declared import NOTHING, Declared
from tfopt_optimizer.engines import calibration
from tfopt_optimizer.engines.unchecked import Reasons
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.flags import MEMORY, THROUGHPUT
from tfopt_optimizer.hopeless import behind, hopeless, inflexible
from tfopt_optimizer.independence import Run
from tfopt_optimizer.job import OptimizeJob
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.reference import Reference
from tfopt_optimizer.report import Log
from tfopt_optimizer.rewriting import Rewriting
from tfopt_optimizer.saved_model import State
from tfopt_optimizer.study import Study, study
from tfopt_optimizer.workers import Worker, WorkerFailed

TENSORFLOW = "tfopt_optimizer.engines.tensorflow:Worker"
SESSION = Entrant("tensorflow", "session", TENSORFLOW, spare=True)
INLINE = Entrant("tensorflow", "inline", TENSORFLOW, light=True)
LOADERS = ("function", "session")


@dataclasses.dataclass(frozen=True)
class Result:
    """A signature with the study and the trials of each bucket, in the order of `study.specs` (perhaps its twin's).

    None for a bucket that was not opened, () for one in which plain TensorFlow itself failed.
    """

    info: SignatureInfo
    study: Study
    trials: tuple[tuple[Trial, ...] | None, ...]
    bucket_reason: str = ""


def _out(reasons: Mapping[Entrant, str], *, skipped: bool = False) -> list[Trial]:
    return [Trial(e.engine, e.variant, reason, skipped, precision=e.precision) for e, reason in reasons.items()]


class Tournament:
    def __init__(
        self,
        job: OptimizeJob,
        log: Log,
        workers: dict[str, Worker],
        loaders: tuple[str, ...],
        entrants: tuple[Entrant, ...],
        *,
        signatures: Sequence[SignatureInfo],
        budget: Allotment,
        splits: Collection[str],
        unchecked: Reasons,
    ) -> None:
        self._job, self._log, self._entrants, self._budget, self._splits = job, log, entrants, budget, splits
        self._least_s, self._unchecked = 0.0, unchecked
        self._reference, self._loaders = Reference(workers[TENSORFLOW], loaders), loaders
        self._others = (SESSION, INLINE) if loaders == LOADERS else (INLINE,) if loaders == ("session",) else ()
        self._weights_bytes = weights_bytes = saved_model.variables_bytes(job.model_dir)
        meta, asked = saved_model.meta_graph(job.model_dir, job.tags), job.flags.lossless_max_rel_error
        self._graph = graphs.Graph(meta)
        gates = own_precision.lossless(self._graph, signatures, job.model_dir, asked, log.say)
        self._contest = Contest(self._reference, workers, job.flags, gates, log, weights_bytes=weights_bytes)

    def run(self, signatures: Sequence[SignatureInfo], states: Mapping[str, State]) -> list[Result]:
        """One contest per bucket of each signature; twins (twins.py) share the one of their eldest."""
        job, found = self._job, dict[str, Result]()
        elders = twins.elders(job.model_dir, job.tags, signatures)
        eldest = [s for s in signatures if elders[s.key] == s.key]
        self._least_s = allotment.SEARCH * job.flags.budget_s() / len(eldest)
        for number, info in enumerate(eldest):
            shared = [key for key, elder in elders.items() if elder == info.key]
            recorded = [key for key in shared if key not in job.made_up] or shared
            records = [sample for key in recorded for sample in job.samples.get(key, ())]
            allotted = self._budget.share(len(eldest) - number)
            found[info.key] = self._signature(info, states[info.key], records, f"s{number}", allotted)
        for info in signatures:
            if elders[info.key] != info.key:
                self._log.say(f"{info.key}: computes the same as {elders[info.key]} and shares its plan")
                found[info.key] = dataclasses.replace(found[elders[info.key]], info=info)
        return [found[info.key] for info in signatures]

    def _signature(
        self, info: SignatureInfo, state: State, samples: Sequence[Feeds], folder: str, allotted: Allotment
    ) -> Result:
        read = self._declared(info)
        found = study(
            info,
            state,
            samples,
            self._job.flags,
            from_warmup=self._job.records == "warmup",
            reference=self._reference,
            folder=folder,
            declared=read,
            rewrite=functools.partial(self._rewrite, folder),
        )
        independent = "are" if found.proof.independent else "are not"
        self._log.say(f"{info.key}: rows {independent} independent: {found.proof.reason}")
        unfit = len(samples) - len(found.samples)
        if unfit and not found.stateful:
            self._log.say(f"{info.key}: {unfit} of {len(samples)} records do not have its inputs and types, left out")
        if found.no_contest:
            self._log.say(f"{info.key}: plain TF only: {found.no_contest}")
        self._tell_examples(found, read)
        self._tell_inner(found)
        if found.rewriting is not None:
            self._log.say(f"{info.key}: {found.rewriting.told}")
        if found.ends:
            self._log.say(f"{info.key}: {found.ends}")
        self._keep_records(found, folder)
        found, trials, why = self._buckets(found, allotted.at_least(self._least_s))
        known = [t for t in trials if t]
        if self._job.flags.optimize_for == MEMORY and len(known) == len(trials):
            trials = tuple(choose.by_memory(known, self._weights_bytes))
            self._log.say(f"{info.key}: for memory: {choose.memory_line([t for t in trials if t])}")
        elif self._job.flags.optimize_for == MEMORY and known:
            left = f"{len(trials) - len(known)} of {len(trials)} buckets were not opened"
            self._log.say(f"{info.key}: chosen by latency, not for memory: {left} (--optimize_budget_s)")
        return Result(info, found, trials, why)

    def _rewrite(self, folder: str, info: SignatureInfo, rows: Rows, run: Run) -> Rewriting | None:
        """The graph that engines are given, where any can be given one."""
        # What engines do not check must be there to be found: a rewritten graph has lost its assertions.
        if self._unchecked[info.key] or any(t.dtype == "string" for t in info.inputs):
            return None
        if all(e.own_graph for e in self._entrants) or "function" not in self._loaders:
            return None
        tolerance = verify.lossless(self._job.flags.lossless_max_rel_error)
        rewriter = rewriting.Rewriter(self._reference, self._job.plan_dir, tolerance, self._log.say)
        promising = rewriting.promising(self._operations(info))
        return rewriter.look(info, rows, run, folder=folder, slices=promising)

    def _operations(self, info: SignatureInfo) -> frozenset[str]:
        outputs, fed = [t.tensor for t in info.outputs], [t.tensor for t in info.inputs]
        return frozenset(placed.node.op for placed in self._graph.reached(outputs, fed))

    def _declared(self, info: SignatureInfo) -> Declared:
        if not any(t.dtype == "string" for t in info.inputs):
            return NOTHING
        outputs, fed = [t.tensor for t in info.outputs], [t.tensor for t in info.inputs]
        return declared.declared(self._graph, outputs, fed, self._job.model_dir / "assets")

    def _tell_examples(self, found: Study, read: Declared) -> None:
        for parser in read.unread:
            self._log.say(f"{found.info.key}: {parser}: the names of its features are no constants: none is made up")
        if found.untried:
            self._log.say(f"{found.info.key}: looking for made-up Examples that plain TF takes: {found.untried}")
        if not found.variations:
            return
        names = example_rows.inputs(found.samples, read)
        absent = {f.name[1] for name in names for f in example_rows.lacking(found.samples, name, read)}
        told = f"; no record has {report.some(sorted(absent))}" if absent else ""
        self._log.say(
            f"{found.info.key}: candidates are also asked about {len(found.variations)} made-up Examples{told}"
        )

    def _tell_inner(self, found: Study) -> None:
        if found.padding is None:
            return
        sizes = sorted({s.inner for s in found.specs}, key=inner.elements)
        text = ", ".join(" x ".join(map(str, s)) for s in sizes)
        allowed = "requests between them are padded" if found.padding.sound else "requests are not padded to them"
        self._log.say(f"{found.info.key}: inner sizes {text}; {allowed}: {found.padding.reason}")

    def _keep_records(self, found: Study, folder: str) -> None:
        """For those who cut, and for those who calibrate. Says so where they are also checked on them."""
        if found.specs and found.info.key in self._splits:
            calibration.write_samples(self._job.plan_dir / folder, found.few())
        if found.split is None or not found.specs or not any(e.precision for e in self._entrants):
            return
        calibration.write(self._job.plan_dir / folder, found.calibration(), self._job.flags.lossy())
        if not found.split.apart:
            self._log.say(
                f"{found.info.key}: lossy candidates are calibrated and checked on the same {len(found.split.check)} "
                f"records; with {compression.ENOUGH} or more they are kept apart"
            )

    def _buckets(self, found: Study, allotted: Allotment) -> tuple[Study, tuple[tuple[Trial, ...] | None, ...], str]:
        """The smallest bucket first, then the largest: an engine that loses both is not compiled for the rest.

        Of several inner buckets the one that most records need comes first. Returns the study without the buckets that
        do not pay, the trials of the others, and why it is these."""
        home = sum(s.inner == found.specs[0].inner for s in found.specs) if found.specs else 0
        order = sorted(range(len(found.specs)), key=lambda i: (i != 0, i != home - 1, i))
        trials: dict[int, tuple[Trial, ...]] = {}
        winners = Counter[tuple[str, str]]()
        there = [e for e in self._entrants if not e.split or found.info.key in self._splits]
        refused = {e: reason for e in there if (reason := e.refuses(found.info, self._unchecked[found.info.key]))}
        able = [e for e in there if e not in refused]
        for_memory = self._job.flags.optimize_for == MEMORY  # who is slow may be small
        # Of the first inner bucket: what holds there holds for all.
        costs, left_out = dict[int, float](), dict[int, int]()
        named = self._job.flags.allowed_batch_sizes
        for position, index in enumerate(order):
            spec = found.specs[index]
            if position == home and not named:
                left_out |= bucket_set.needless(costs)
            if position < home and not named and spec.batch and (up := bucket_set.covered(costs, spec.batch)):
                left_out[spec.batch] = up
            if spec.batch in left_out or self._packed(found, trials, spec):
                continue
            if position and allotted.gone():
                self._log.say(f"{found.info.key}: no time left for {len(order) - position} of {len(order)} buckets")
                break
            place = spec.place(found.info.key)
            beyond = hopeless(able, [trials[i] for i in order[:2]]) if position >= 2 and not for_memory else {}
            whole = self._whole(found, trials, spec) if spec.short else ()
            beyond |= self._behind(able, whole, spec)
            if spec.near and (for_memory or len(beyond) == len(able)):
                continue
            running = [e for e in able if e not in beyond]
            self._log.note(f"{place} [{position + 1}/{len(order)}]: {report.candidates([e.label for e in running])}")
            try:
                share = allotted.share(allotment.parts(position, len(order), shorter=found.specs[-1].short))
                entrants = [e for e in (*self._others, *running) if not (spec.short and e.own_graph)]
                held = self._contest.hold(
                    place,
                    found.info,
                    spec,
                    found.material(spec),
                    entrants,
                    allotted=share,
                    winners=self._first(whole, winners),
                    known=whole[0].measured if whole and self._job.flags.optimize_for != THROUGHPUT else None,
                )
            except WorkerFailed as error:
                self._log.say(f"{place}: plain TF itself fails here: {error.reason}")
                held = []
            out = [*_out(refused if held else {}), *_out(beyond, skipped=True)]
            trials[index] = tuple(choose.scored([*held, *out], self._job.flags.optimize_for))
            winners.update(best for best in [choose.fastest(trials[index])] if best)
            if position < home and spec.batch and (best := [t.median_us for t in trials[index] if t.eligible]):
                costs[spec.batch] = min(best)
            self._log.note(f"{place}: {report.times(trials[index])}")
        untried = [found.specs[i].batch or 0 for i in order[2:home] if i not in trials]
        gone, why = bucket_set.settled(costs, left_out, untried, named)
        kept = [i for i, spec in enumerate(found.specs) if (i in trials or not spec.near) and spec.batch not in gone]
        if why:
            self._log.say(f"{found.info.key}: buckets of {why}")
        specs = tuple(found.specs[i] for i in kept)
        return dataclasses.replace(found, specs=specs), tuple(trials.get(i) for i in kept), why

    def _behind(self, able: Sequence[Entrant], whole: Sequence[Trial], spec: BucketSpec) -> dict[Entrant, str]:
        """Who is not tried at a shorter length, by what came of the full one."""
        if self._job.flags.optimize_for == MEMORY:
            return {}
        like = choose.winner(whole, self._reference.variant)
        out = behind(able, whole, like if self._weights_bytes > contest.LARGE else None)
        if spec.short:
            out |= {e: "it runs rows of all lengths together" for e in able if likely.packs(e.engine, e.variant)}
        if spec.near or (spec.short and spec.batch != 1):
            out |= inflexible([e for e in able if e not in out], near=spec.near)
        return out

    def _packed(self, found: Study, trials: Mapping[int, Sequence[Trial]], spec: BucketSpec) -> bool:
        """Whether the full length's winner computes shorter rows for what they have: several, or where its weights are
        so large that they are there once any."""
        if not spec.short or (spec.batch == 1 and self._weights_bytes <= contest.LARGE):
            return False
        whole = (t for i, t in trials.items() if not found.specs[i].short)
        won = [choose.winner(t, self._reference.variant) for t in whole]
        return any(w is not None and likely.packs(w.engine, w.variant) for w in won)

    def _first(self, whole: Sequence[Trial], winners: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
        """With who was chosen at the full length before all others, for he is tried first at a shorter one."""
        like = choose.winner(whole, self._reference.variant)
        return winners + Counter({(like.engine, like.variant): winners.total()}) if like else winners

    @staticmethod
    def _whole(found: Study, trials: Mapping[int, Sequence[Trial]], spec: BucketSpec) -> Sequence[Trial]:
        """Of the same number of rows at the signature's own length."""
        return next((trials[i] for i in trials if found.specs[i].batch == spec.batch and not found.specs[i].short), ())
