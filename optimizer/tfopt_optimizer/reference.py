"""Plain TensorFlow in a contest: its answers are the right ones, its times the ones to beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfopt_optimizer import measure
from tfopt_optimizer.engines.base import Arrays, Target
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.workers import Budget, Worker

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

    def budget(self) -> Budget:
        return Budget(REFERENCE_TIMEOUT_S)

    def run(self, signature: SignatureInfo, key: str, feeds: Arrays) -> Arrays:
        name = self.prepare(signature)
        return self.worker.run(self.budget(), name, key, feeds)

    def prepare(self, signature: SignatureInfo) -> str:
        name = f"{signature.key}/tensorflow/{self.variant}"
        self.worker.prepare(self.budget(), name, Target(signature, self.variant))
        return name

    def round(self, signature: SignatureInfo, key: str, feeds: Arrays) -> measure.Round:
        self.run(signature, key, feeds)
        name = self.prepare(signature)
        return lambda round_s, max_calls: self.worker.measure(
            self.budget(), name, key, feeds, round_s=round_s, max_calls=max_calls
        )

    def saturate(self, signature: SignatureInfo, batch: Batch) -> measure.Saturate:
        name = self.prepare(signature)
        return lambda callers, seconds: self.worker.saturate(
            self.budget(), name, batch.key, batch.feeds, callers=callers, seconds=seconds
        )
