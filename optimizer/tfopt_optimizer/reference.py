"""Plain TensorFlow in a contest: its answers are the right ones, its times the ones to beat."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence

from tfopt_optimizer import measure, shortening
from tfopt_optimizer.engines.base import Arrays, Target
from tfopt_optimizer.plan import Shortening, SignatureInfo
from tfopt_optimizer.workers import Budget, Worker, WorkerFailed

REFERENCE_TIMEOUT_S = 900.0


@dataclasses.dataclass(frozen=True)
class Batch:
    """Feeds of one check with what plain TensorFlow answers."""

    key: str
    feeds: Arrays
    expected: Arrays


class Reference:
    """Plain TensorFlow in its worker: what every candidate is compared with, and its other ways to run."""

    def __init__(self, worker: Worker, variants: Sequence[str]) -> None:
        self.worker, self.variant, self.others = worker, variants[0], tuple(variants[1:])
        self.shortenings: dict[str, Shortening] = {}  # by signature: rows that are cut are made whole for TensorFlow

        self._numbers = itertools.count()

    def budget(self) -> Budget:
        return Budget(REFERENCE_TIMEOUT_S)

    def run(self, signature: SignatureInfo, key: str, feeds: Arrays) -> Arrays:
        name = self.prepare(signature)
        return self.worker.run(self.budget(), name, key, self._whole(signature, feeds))

    def _whole(self, signature: SignatureInfo, feeds: Arrays) -> Arrays:
        lengths = self.shortenings.get(signature.key)
        return feeds if lengths is None else shortening.whole(lengths, feeds)

    def prepare(self, signature: SignatureInfo) -> str:
        name = f"{signature.key}/tensorflow/{self.variant}"
        self.worker.prepare(self.budget(), name, Target(signature, self.variant))
        return name

    def rewrite(self, target: Target) -> None:
        """Makes the graph in the target's source. WorkerFailed where there is nothing to rewrite, or it cannot be."""
        self.worker.prepare(self.budget(), _rewritten(target), target)

    def run_rewritten(self, target: Target, feeds: Arrays) -> Arrays:
        name, number = _rewritten(target), next(self._numbers)
        self.worker.prepare(self.budget(), name, target)
        return self.worker.run(self.budget(), name, f"{name}/{number}", feeds)

    def let_go(self, target: Target) -> None:
        """Frees what `rewrite` loaded; the graph stays in its folder."""
        with contextlib.suppress(WorkerFailed):
            self.worker.drop(self.budget(), _rewritten(target))

    def round(self, signature: SignatureInfo, key: str, feeds: Arrays) -> measure.Round:
        self.run(signature, key, feeds)
        name, whole = self.prepare(signature), self._whole(signature, feeds)
        return lambda round_s, max_calls: self.worker.measure(
            self.budget(), name, key, whole, round_s=round_s, max_calls=max_calls
        )

    def saturate(self, signature: SignatureInfo, batch: Batch) -> measure.Saturate:
        name, whole = self.prepare(signature), self._whole(signature, batch.feeds)
        return lambda callers, seconds: self.worker.saturate(
            self.budget(), name, batch.key, whole, callers=callers, seconds=seconds
        )


def _rewritten(target: Target) -> str:
    return f"{target.source}/{'x'.join(str(t.shape) for t in target.signature.inputs)}"
