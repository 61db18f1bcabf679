"""What is known about a signature before any contest: its rows, whether they are independent, its buckets."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tfopt_optimizer import (
    buckets,
    compression,
    edges,
    example_rows,
    independence,
    inner,
    padding_proof,
    shortening,
    verify,
)
from tfopt_optimizer.buckets import Feeds, Rows
from tfopt_optimizer.choose import microseconds
from tfopt_optimizer.compression import Split
from tfopt_optimizer.contest import BucketSpec, Material
from tfopt_optimizer.declared import NOTHING, Declared
from tfopt_optimizer.device import CPU
from tfopt_optimizer.edges import Edge
from tfopt_optimizer.engines.base import Arrays
from tfopt_optimizer.example_rows import Variation
from tfopt_optimizer.flags import DEFAULT_BUCKETS, THROUGHPUT, OptimizerFlags
from tfopt_optimizer.independence import Proof, Run
from tfopt_optimizer.inner import Sizes
from tfopt_optimizer.padding_proof import Padding
from tfopt_optimizer.plan import Shortening, SignatureInfo
from tfopt_optimizer.reference import Reference
from tfopt_optimizer.rewriting import Rewriting
from tfopt_optimizer.saved_model import State
from tfopt_optimizer.workers import WorkerFailed

Rewrite = Callable[[SignatureInfo, Rows, Run], Rewriting | None]
CALIBRATION_BATCH = 4  # rows of a calibration call
FEW = 8  # rows or records that tell the shapes inside a signature
ROW_LIMIT = 1024  # rows used for checks: as many as TensorFlow Serving accepts records


@dataclasses.dataclass(frozen=True)
class Study:
    """`specs` is empty, with `no_contest` saying why, when nothing but plain TensorFlow can serve the signature.

    `rows` are those of the first inner bucket, `others` those of further ones; `altered`: made-up rows of each that
    plain TensorFlow takes; `padding` is None where no inner dimension is open. `variations`: what clients may send in
    serialized Examples and no record has; `untried` tells where the search for them ended early. `rewriting`: the graph
    that engines are given instead of the model's own. `edges`: rows like no record that plain TensorFlow takes. `ends`:
    why there are none of the larger default sizes.
    """

    info: SignatureInfo
    state: State
    proof: Proof
    specs: tuple[BucketSpec, ...]
    no_contest: str
    rows: Rows | None = None
    samples: tuple[Feeds, ...] = ()
    split: Split | None = None
    padding: Padding | None = None
    others: Mapping[Sizes, Rows] = dataclasses.field(default_factory=dict)
    altered: Mapping[Sizes, Arrays | None] = dataclasses.field(default_factory=dict)
    variations: tuple[Variation, ...] = ()
    untried: str = ""
    rewriting: Rewriting | None = None
    edges: tuple[Edge, ...] = ()
    ends: str = ""

    @property
    def stateful(self) -> bool:
        return bool(self.state.writes or self.state.random)

    def material(self, spec: BucketSpec) -> Material:
        return dataclasses.replace(self._recorded(spec), made_up=self._made_up(spec), edges=self._edges(spec))

    def _edges(self, spec: BucketSpec) -> Sequence[Edge]:
        """For the first inner shape: rows of another would be cut, or padded to it."""
        if spec.batch is None:
            first = next(iter(_of_shapes(self.samples, spec)), None)
            return edges.edges(first, self.samples) if first is not None else ()
        return self.edges if spec.inner == self.specs[0].inner else ()

    def _made_up(self, spec: BucketSpec) -> Iterable[Arrays]:
        """Each variation once: as a row among others like it, or of a whole record where rows are not independent."""
        if not self.variations:
            return ()
        if spec.batch is None:
            return (
                v.of(feeds) for feeds in itertools.islice(_of_shapes(self.samples, spec), 1) for v in self.variations
            )
        rows = self.others.get(spec.inner, self.rows)
        assert rows is not None
        made = [v.of(rows.take(number, 1)) for number, v in enumerate(self.variations)]
        return Rows(_stacked(made), len(made), 0, 0).batches(spec.batch)

    def _recorded(self, spec: BucketSpec) -> Material:
        if spec.batch is not None and spec.inner in self.others:
            rows = self.others[spec.inner]  # none of them was calibrated on
            return Material(rows.batches(spec.batch), self.altered.get(spec.inner))
        if spec.batch is not None and self.rows is not None:
            altered = self.altered.get(spec.inner)
            if self.split is None or not self.split.apart:
                return Material(self.rows.batches(spec.batch), altered)
            check, rest = self.rows.pick(self.split.check), self.rows.pick(self.split.calibration)
            apart = math.ceil(check.count / spec.batch)
            return Material(itertools.chain(check.batches(spec.batch), rest.batches(spec.batch)), altered, apart)
        if self.split is None or not self.split.apart:
            return Material(_of_shapes(self.samples, spec), None)
        checked = list(_of_shapes([self.samples[i] for i in self.split.check], spec))
        seen = _of_shapes([self.samples[i] for i in self.split.calibration], spec)
        return Material(itertools.chain(checked, seen), None, len(checked))

    def few(self) -> list[Feeds]:
        """A few calls, to look at the shapes inside: one of independent rows, else records as they are; and what they
        look like with features that no record has, which would else leave the plan for the shapes that they give."""
        adding = [v for v in self.variations if v.adds][:FEW]
        if not self.proof.independent or self.rows is None:
            return [*self.samples[:FEW], *(v.of(self.samples[0]) for v in adding)]
        rows = list(itertools.islice(self.rows.batches(FEW), 1))
        return [*rows, *([_stacked([v.of(self.rows.take(0, 1)) for v in adding])] if adding else [])]

    def calibration(self) -> list[Feeds]:
        """Calls to calibrate on: a few rows each where rows are independent, else the records as they are."""
        if self.split is None:
            return []
        if self.proof.independent and self.rows is not None:
            return list(self.rows.pick(self.split.calibration).batches(CALIBRATION_BATCH))
        return [self.samples[i] for i in self.split.calibration]


def study(
    info: SignatureInfo,
    state: State,
    samples: Sequence[Feeds],
    flags: OptimizerFlags,
    *,
    from_warmup: bool,
    reference: Reference,
    folder: str,
    declared: Declared = NOTHING,
    rewrite: Rewrite = lambda info, rows, run: None,
) -> Study:
    """Looks at the records and runs the proof of row independence on plain TensorFlow. `declared`: what its parsers of
    Examples read. `rewrite` says which graph engines are given; None: the model's own."""
    usable = tuple(s for s in samples if buckets.fits(info, s))
    ruled_out = independence.static_reason(info, state)
    if state.writes or state.random:
        return Study(info, state, Proof(False, ruled_out), (), ruled_out)
    if not usable:
        return Study(info, state, Proof(False, ruled_out or "there is no record to prove it on"), (), _no_records(info))
    rows = buckets.stack(usable, ROW_LIMIT)
    run = _runs(info, reference)
    proof = Proof(False, ruled_out) if ruled_out else _prove(rows, flags, run, declared)
    base = rows.take(0, 1) if rows is not None and proof.independent else usable[0]
    search = example_rows.Search(functools.partial(independence.takes_all, run))
    variations = tuple(example_rows.made_up(search, base, usable, declared))
    if not proof.independent or rows is None:
        split = compression.split(len(usable)) if flags.allow_compression else None
        exact = enumerate(buckets.exact_shapes(usable))
        specs = tuple(BucketSpec(None, shapes, f"{folder}/x{i}") for i, shapes in exact)
        left = search.told()
        return Study(info, state, proof, specs, "", rows, usable, split, variations=variations, untried=left)
    padding, levels = _levels(info, usable, rows, flags, run)
    near: tuple[int, ...] = ()
    rewriting = rewrite(info, rows, run) if padding is None else None
    split = compression.split(rows.count) if flags.allow_compression else None
    if rewriting is not None and rewriting.lengths is not None:
        checked = rows.pick(split.check) if split is not None and split.apart else rows
        reference.shortenings[info.key] = rewriting.lengths
        near = shortening.between(rewriting.lengths)
        levels = _shorter(rewriting.lengths, near, rows, checked)
        rewriting = rewriting.with_lengths(near)
    sizes = buckets.sizes(flags.allowed_batch_sizes, usable, from_warmup)
    ends = ""
    if sizes is DEFAULT_BUCKETS and flags.device == CPU and flags.optimize_for != THROUGHPUT:
        sizes, ends = _worth_looking_at(sizes, rows, run)
    specs = tuple(_spec(b, level, found, folder, rewriting) for level, found in levels.items() for b in sizes)
    specs = tuple(dataclasses.replace(s, near=bool(s.inner) and s.inner[0] in near) for s in specs)
    specs = tuple(sorted(specs, key=_few_rows_first))
    rows, *_ = levels.values()
    altered = {level: independence.acceptable(run, found) for level, found in levels.items()}
    split = compression.split(rows.count) if flags.allow_compression else None
    others, left = dict(list(levels.items())[1:]), search.told()
    looked_at = edges.within(edges.edges(rows.take(0, 1), [rows.feeds]))
    taken = tuple(edge for edge in looked_at if independence.takes_all(run, edge.feeds))
    known = Study(info, state, proof, specs, "", rows, usable, split, padding, others, altered, variations, left)
    return dataclasses.replace(known, rewriting=rewriting, edges=taken, ends=ends)


def _worth_looking_at(default: tuple[int, ...], rows: Rows, run: Run) -> tuple[tuple[int, ...], str]:
    """The default sizes that are, and why there are no larger ones."""
    row_s = math.inf
    for _ in range(2):
        began = time.perf_counter()
        if not independence.takes_all(run, rows.take(0, 1)):
            return default, ""  # it did before: the contests will say what is wrong
        row_s = min(row_s, time.perf_counter() - began)
    sizes = buckets.within(default, row_s)
    if sizes == default:
        return default, ""
    return sizes, f"a row takes plain TF {microseconds(row_s * 1e6)}: default buckets end at {sizes[-1]} rows"


def _stacked(rows: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _shorter(lengths: Shortening, near: Sequence[int], rows: Rows, checked: Rows) -> dict[Sizes, Rows]:
    """The signature's own length first, for what loses there is not tried at the shorter ones; of these the one first
    that saves most, and those that are `near` to others last. `checked`: the rows that nothing is calibrated on."""
    there, every = shortening.lengths(lengths, rows.feeds), sorted((*lengths.lengths, *near))
    below = dict(zip(every, (0, *every), strict=False))
    more = shortening.by_gain(dataclasses.replace(lengths, lengths=tuple(every)), there)
    levels: dict[Sizes, Rows] = {(lengths.size,): rows}
    for size in (*shortening.by_gain(lengths, there), *(n for n in more if n in near)):
        found = shortening.rows_of_level(lengths, checked, size, below[size])
        if found.count:
            levels[size,] = found
    return levels


def _few_rows_first(spec: BucketSpec) -> tuple[bool, int]:
    """Of shorter lengths: they take the least time, and any rows can run one by one."""
    return spec.short, (spec.batch or 0) if spec.short else 0


def _spec(batch: int, level: Sizes, rows: Rows, folder: str, rewriting: Rewriting | None) -> BucketSpec:
    shapes = {n: (batch, *inner_shape) for n, inner_shape in rows.inner().items()}
    name = "x".join(map(str, (f"b{batch}", *level)))
    spec = BucketSpec(batch, shapes, f"{folder}/{name}", level)
    if rewriting is None:
        return spec
    short = rewriting.lengths is not None and level != (rewriting.lengths.size,)
    given = dataclasses.replace(spec, source=rewriting.source, given=rewriting.given, short=short)
    return given if short else dataclasses.replace(given, lengths=rewriting.lengths)


def _levels(
    info: SignatureInfo, usable: Sequence[Feeds], rows: Rows, flags: OptimizerFlags, run: Run
) -> tuple[Padding | None, dict[Sizes, Rows]]:
    """The inner buckets with their rows, the most needed first; one called () where no inner dimension is open."""
    samples = inner.alike(info, usable)
    found = inner.dimensions(info, samples)
    if not found:
        return None, {(): rows}
    try:
        padding = padding_proof.prove(run, found, samples, verify.lossless(flags.lossless_max_rel_error))
    except independence.Refused as error:
        padding = Padding(False, f"plain TensorFlow fails on a batch made of the records: {error}", found, ())
    seen = [sizes for s in samples if (sizes := inner.sizes_of(found, s)) is not None]
    chosen = inner.choose(seen, padding.sound)
    rising = sorted(chosen, key=inner.elements)
    levels = {}
    for sizes in chosen:
        below = rising[: rising.index(sizes)] if padding.sound else ()
        own = samples if padding.sound else [s for s in samples if inner.sizes_of(found, s) == sizes]
        levels[sizes] = inner.stack(found, own, sizes, below, ROW_LIMIT)
    return padding, levels


def _runs(info: SignatureInfo, reference: Reference) -> Run:
    """Plain TensorFlow for proofs; Refused for what it does not take."""
    count = 0

    def run(feeds: Arrays) -> Arrays:
        nonlocal count
        count += 1
        try:
            return reference.run(info, f"{info.key}/proof/{count}", feeds)
        except WorkerFailed as error:
            raise independence.Refused(error.reason) from error

    return run


def _prove(rows: Rows | None, flags: OptimizerFlags, run: Run, declared: Declared) -> Proof:
    if rows is None:
        return Proof(False, "the inputs of the records do not share one number of rows")
    try:
        return independence.prove(run, rows, verify.lossless(flags.lossless_max_rel_error), declared=declared)
    except independence.Refused as error:
        return Proof(False, f"plain TensorFlow fails on a batch made of the records: {error}")


def _no_records(info: SignatureInfo) -> str:
    unknown = buckets.unknown_inner(info, rows_first=True)
    if unknown:
        return f"input {unknown[0]!r} has dimensions that only a record can tell: add warmup records"
    return "there are no records for it: add warmup records"


def _of_shapes(samples: Iterable[Feeds], spec: BucketSpec) -> Iterable[Arrays]:
    for sample in samples:
        if {n: a.shape for n, a in sample.items()} == dict(spec.shapes):
            yield {n: np.asarray(a, order="C") for n, a in sample.items()}
