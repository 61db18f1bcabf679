"""How many elements a pipeline should put together for one call: what the plans of a model say. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tfopt_optimizer.plan import BucketPlan, SignaturePlan


def best(plans: Iterable[SignaturePlan]) -> int | None:
    """The bucket with the cheapest rows, of several machines' plans the largest; None where there is no plan.

    1 where rows were not proven independent: they cannot share a call.
    """
    return max((_best(plan) for plan in plans), default=None)


def _best(plan: SignaturePlan) -> int:
    sizes = [(bucket.batch, _cost_us(bucket)) for bucket in plan.buckets if bucket.batch is not None]
    if not plan.row_independent or not sizes:
        return 1
    measured = [(cost / rows, -rows) for rows, cost in sizes if cost]
    return -min(measured)[1] if measured else max(rows for rows, _ in sizes)


def _cost_us(bucket: BucketPlan) -> float:
    """The measured median of the candidate that runs the bucket, 0.0 when it was not measured."""
    chosen = (bucket.engine, bucket.variant)
    found = (c.measured for c in bucket.candidates if (c.engine, c.variant) == chosen and c.measured is not None)
    return next((measured.median_us for measured in found), 0.0)
