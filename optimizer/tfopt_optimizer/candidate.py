"""One entrant in one bucket while its contest runs: what is known of it so far, and its calls for the measuring."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfopt_optimizer import measure
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.engines.base import Prepared, Target
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.plan import Agreement
from tfopt_optimizer.reference import Batch
from tfopt_optimizer.workers import Budget, Times, Worker, WorkerFailed


@dataclasses.dataclass
class Candidate:
    """`reason` is set once and takes it out."""

    entrant: Entrant
    worker: Worker
    name: str
    target: Target
    budget: Budget
    reason: str = ""
    skipped: bool = False
    prepared: Prepared = dataclasses.field(default_factory=Prepared)
    agreement: Agreement | None = None
    times: Times | None = None
    rate: tuple[float, int] = (0.0, 0)

    def trial(self) -> Trial:
        return Trial(
            self.entrant.engine,
            self.entrant.variant,
            self.reason,
            self.skipped,
            measure.summary(self.times, *self.rate)
            if self.times is not None and np.isfinite(self.times).all()
            else None,
            self.agreement,
            self.prepared.compile_s,
            self.prepared.memory_bytes,
            self.prepared.artifact,
            precision=self.entrant.precision,
            artifact_bytes=self.prepared.artifact_bytes,
            tensorflow=self.prepared.tensorflow,
            any_rows=self.prepared.any_rows,
        )

    def saturate(self, batch: Batch) -> measure.Saturate:
        """No calls at all once the candidate has failed."""

        def run(callers: int, seconds: float) -> float:
            if self.reason:
                return 0.0
            try:
                return self.worker.saturate(
                    self.budget, self.name, batch.key, batch.feeds, callers=callers, seconds=seconds
                )
            except WorkerFailed as error:
                self.reason = error.reason
                return 0.0

        return run

    def round(self, batch: Batch) -> measure.Round:
        """Infinite times once the candidate has failed: the race goes on without it."""

        def run(round_s: float, max_calls: int) -> Times:
            if self.reason:
                return np.array([np.inf])
            try:
                return self.worker.measure(
                    self.budget, self.name, batch.key, batch.feeds, round_s=round_s, max_calls=max_calls
                )
            except WorkerFailed as error:
                self.reason = error.reason
                return np.array([np.inf])

        return run
