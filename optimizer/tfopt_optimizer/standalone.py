"""A plan for servers where TensorFlow is not installed (--without_tensorflow): what only it can run is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tfopt_optimizer import report
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.plan import BucketPlan, SignaturePlan, runs_tensorflow


def without_tensorflow(signatures: Sequence[SignaturePlan], say: Callable[[str], None]) -> tuple[SignaturePlan, ...]:
    """The signatures without the buckets that plain TensorFlow would run; `say` names each of those.

    Requests of a size that is left out go to the next larger bucket, or in pieces to the largest. OptimizeError when
    a signature has nothing left.
    """
    found, bare = [], list[str]()
    for signature in signatures:
        key = signature.signature.key
        kept = tuple(b for b in signature.buckets if not runs_tensorflow(signature, b))
        if not kept:
            bare.append(f"{key} ({_reason(signature.buckets)})")
        for bucket in signature.buckets:
            if bucket not in kept:
                say(f"{report.where(key, bucket.batch, dict(bucket.shapes))}: left out, only TensorFlow can run it")
        found.append(dataclasses.replace(signature, buckets=kept))
    if bare:
        raise OptimizeError(f"--without_tensorflow: no engine takes {'; '.join(bare)}")
    return tuple(found)


def _reason(buckets: Sequence[BucketPlan]) -> str:
    """The first rejection of a candidate, else what the bucket says."""
    rejected = (
        f"{c.engine}: {c.reason}" for b in buckets for c in b.candidates if c.reason and c.engine != "tensorflow"
    )
    return next(rejected, buckets[0].why if buckets else "nothing was tried")
