"""Requests whose inner dimensions are not those of a signature's first inner bucket: which one takes them, and how.

fitted = inner_buckets.fit(feeds)           # None: plain TensorFlow answers
fitted.cut(fitted.runner.run(fitted.feeds))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from tfopt_optimizer import inner
from tfopt_optimizer.buckets import Feeds
from tfopt_optimizer.inner import Sizes
from tfopt_optimizer.plan import InnerPlan


class Route(Protocol):
    @property
    def reference(self) -> bool: ...


class Routes(Protocol):
    def route(self, feeds: Feeds) -> Route: ...


Runner = TypeVar("Runner", bound=Routes)


@dataclasses.dataclass(frozen=True)
class Fitted(Generic[Runner]):
    """A request as its inner bucket takes it. `sizes`: what it came with, () where nothing was padded."""

    runner: Runner
    feeds: Feeds
    sizes: Sizes
    plan: InnerPlan

    def cut(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The answer without what answers padding."""
        return inner.cut(self.plan.dimensions, outputs, self.sizes) if self.sizes else dict(outputs)


class InnerBuckets(Generic[Runner]):
    """The runners of a signature, one per inner bucket. Thread-safe."""

    def __init__(self, plan: InnerPlan, runners: Mapping[Sizes, Runner]) -> None:
        self.plan, self.runners = plan, dict(runners)

    def fit(self, feeds: Feeds) -> Fitted[Runner] | None:
        sizes = inner.sizes_of(self.plan.dimensions, feeds)
        bucket = inner.bucket_of(self.plan, sizes) if sizes is not None else None
        if sizes is None or bucket is None:
            return None
        runner, same = self.runners[bucket.sizes], bucket.sizes == sizes
        found = feeds if same else inner.resized_to(self.plan.dimensions, feeds, bucket.sizes)
        if runner.route(found).reference:
            return None
        return Fitted(runner, found, () if same else sizes, self.plan)

    def feeds_for(self, samples: Sequence[Feeds], sizes: Sizes) -> list[Feeds]:
        """Samples as a bucket of these sizes takes them; where nothing may be padded those that have them."""
        able = [
            s
            for s in samples
            if (own := inner.sizes_of(self.plan.dimensions, s)) is not None
            and (own == sizes or (self.plan.padded and inner.holds(sizes, own)))
        ]
        return [inner.resized_to(self.plan.dimensions, s, sizes) for s in able]
