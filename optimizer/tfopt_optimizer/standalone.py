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
        if signature.shortening is not None and all(b.inner != (signature.shortening.size,) for b in kept):
            kept = ()  # whole rows come too
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
    """Why each engine was rejected, by the first bucket that says so; else what the bucket says."""
    reasons: dict[str, str] = {}
    for candidate in (c for b in buckets for c in b.candidates if c.reason and c.engine != "tensorflow"):
        reasons.setdefault(candidate.engine, candidate.reason)
    if not reasons:
        return buckets[0].why if buckets else "nothing was tried"
    return ", ".join(f"{engine}: {reason}" for engine, reason in reasons.items())
