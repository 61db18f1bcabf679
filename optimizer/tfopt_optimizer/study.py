"""What is known about a signature before any contest: its rows, whether they are independent, its buckets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from tfopt_optimizer import buckets, independence, verify
from tfopt_optimizer.buckets import Feeds, Rows
from tfopt_optimizer.contest import BucketSpec, Material, Reference
from tfopt_optimizer.engines.base import Arrays
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.independence import Proof
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.saved_model import State
from tfopt_optimizer.workers import WorkerFailed

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

    @property
    def stateful(self) -> bool:
        return bool(self.state.writes or self.state.random)

    def material(self, spec: BucketSpec) -> Material:
        if spec.batch is not None and self.rows is not None:
            return Material(self.rows.batches(spec.batch), independence.alter(self.rows))
        return Material(_of_shapes(self.samples, spec), None)


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
    return Study(info, state, proof, specs, "", rows, usable)


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
