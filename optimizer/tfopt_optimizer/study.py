"""What is known about a signature before any contest: its rows, whether they are independent, its buckets."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from tfopt_optimizer import buckets, compression, independence, verify
from tfopt_optimizer.buckets import Feeds, Rows
from tfopt_optimizer.compression import Split
from tfopt_optimizer.contest import BucketSpec, Material
from tfopt_optimizer.engines.base import Arrays
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.independence import Proof
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.reference import Reference
from tfopt_optimizer.saved_model import State
from tfopt_optimizer.workers import WorkerFailed

CALIBRATION_BATCH = 4  # rows of a calibration call
FEW = 8  # rows or records that tell the shapes inside a signature
ROW_LIMIT = 1024  # rows used for checks: as many as TensorFlow Serving accepts records


@dataclasses.dataclass(frozen=True)
class Study:
    """`specs` is empty, with `no_contest` saying why, when nothing but plain TensorFlow can serve the signature."""

    info: SignatureInfo
    state: State
    proof: Proof
    specs: tuple[BucketSpec, ...]
    no_contest: str
    rows: Rows | None = None
    samples: tuple[Feeds, ...] = ()
    split: Split | None = None

    @property
    def stateful(self) -> bool:
        return bool(self.state.writes or self.state.random)

    def material(self, spec: BucketSpec) -> Material:
        if spec.batch is not None and self.rows is not None:
            altered = independence.alter(self.rows)
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
        """A few calls, to look at the shapes inside: one of independent rows, else records as they are."""
        if self.proof.independent and self.rows is not None:
            return list(itertools.islice(self.rows.batches(FEW), 1))
        return list(self.samples[:FEW])

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
) -> Study:
    """Looks at the records and runs the proof of row independence on plain TensorFlow."""
    usable = tuple(s for s in samples if buckets.fits(info, s))
    ruled_out = independence.static_reason(info, state)
    if state.writes or state.random:
        return Study(info, state, Proof(False, ruled_out), (), ruled_out)
    if not usable:
        return Study(info, state, Proof(False, ruled_out or "there is no record to prove it on"), (), _no_records(info))
    rows = buckets.stack(usable, ROW_LIMIT)
    proof = Proof(False, ruled_out) if ruled_out else _prove(info, rows, flags, reference)
    if proof.independent and rows is not None:
        sizes = buckets.sizes(flags.allowed_batch_sizes, usable, from_warmup)
        specs = tuple(
            BucketSpec(b, {n: (b, *inner) for n, inner in rows.inner().items()}, f"{folder}/b{b}") for b in sizes
        )
    else:
        specs = tuple(
            BucketSpec(None, shapes, f"{folder}/x{i}") for i, shapes in enumerate(buckets.exact_shapes(usable))
        )
    count = rows.count if proof.independent and rows is not None else len(usable)
    split = compression.split(count) if flags.allow_compression else None
    return Study(info, state, proof, specs, "", rows, usable, split)


def _prove(info: SignatureInfo, rows: Rows | None, flags: OptimizerFlags, reference: Reference) -> Proof:
    if rows is None:
        return Proof(False, "the inputs of the records do not share one number of rows")
    count = 0

    def run(feeds: Arrays) -> Arrays:
        nonlocal count
        count += 1
        try:
            return reference.run(info, f"{info.key}/proof/{count}", feeds)
        except WorkerFailed as error:
            raise independence.Refused(error.reason) from error

    try:
        return independence.prove(run, rows, verify.lossless(flags.lossless_max_rel_error))
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
