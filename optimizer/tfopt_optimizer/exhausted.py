"""Buckets for which an accelerator had no memory while the plan was made: do smaller runs beat what replaced it.

Pure policy. A bucket that is left out costs nothing: whoever has more rows than the largest one is split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tfopt_optimizer.choose import label, microseconds
from tfopt_optimizer.errors import EXHAUSTED
from tfopt_optimizer.plan import BucketPlan
from tfopt_optimizer.report import where


def without(
    key: str, buckets: list[BucketPlan], costs: list[tuple[int, float]], say: Callable[[str], None]
) -> tuple[list[BucketPlan], list[tuple[int, float]]]:
    """A signature's buckets and (rows, microseconds) of the first inner one that stay; the others are told."""
    levels = dict.fromkeys(b.inner for b in buckets)
    out = {inner: left_out([b for b in buckets if b.inner == inner]) for inner in levels}
    for inner, found in out.items():
        for rows, why in found.items():
            say(f"{where(key, rows, inner=inner)}: {why}")
    first = next(iter(out.values()), {})
    return [b for b in buckets if b.batch not in out[b.inner]], [c for c in costs if c[0] not in first]


def left_out(buckets: Sequence[BucketPlan]) -> dict[int, str]:
    """Rows of the buckets to leave out, each with the line for the log. `buckets` in rising order."""
    found: dict[int, str] = {}
    for bucket in buckets:
        lost = {(c.engine, c.variant) for c in bucket.candidates if c.reason.startswith(EXHAUSTED)}
        if not lost or bucket.batch is None:
            continue
        smaller = [
            b
            for b in buckets
            if b.batch is not None and b.batch < bucket.batch and (b.engine, b.variant) in lost and b.batch not in found
        ]
        best = min(smaller, key=lambda b: _in_pieces_us(b, bucket.batch or 0), default=None)
        if best is None or not _in_pieces_us(best, bucket.batch) <= _cost_us(bucket):
            continue
        runs, name = math.ceil(bucket.batch / (best.batch or 1)), label(best.engine, best.variant)
        found[bucket.batch] = (
            f"left out: {name} has no memory for it, and {runs} runs of {best.batch} take "
            f"{microseconds(_in_pieces_us(best, bucket.batch))}, less than {label(bucket.engine, bucket.variant)} with "
            f"{microseconds(_cost_us(bucket))}"
        )
    return found


def _in_pieces_us(bucket: BucketPlan, rows: int) -> float:
    return math.ceil(rows / (bucket.batch or 1)) * _cost_us(bucket)


def _cost_us(bucket: BucketPlan) -> float:
    """Of the chosen runner; infinite where nothing was measured."""
    return next((c.measured.median_us for c in bucket.candidates if c.status == "chosen" and c.measured), math.inf)
