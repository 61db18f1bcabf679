"""Runs the rows of a signature of fixed length at the shorter lengths that they have (shortening.py says which)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from tfopt_optimizer import shortening
from tfopt_optimizer.buckets import Feeds
from tfopt_optimizer.engines.base import Arrays
from tfopt_optimizer.plan import Shortening

UNMEASURED_US = 1.0  # per row and place: in proportion


class Bucket(Protocol):
    @property
    def batch(self) -> int | None: ...
    @property
    def cost_us(self) -> float: ...
    @property
    def static(self) -> bool: ...


class OfLength(Protocol):
    """The runner of one length (signature_runner.SignatureRunner)."""

    buckets: tuple[int, ...]

    def bucket_for(self, rows: int) -> Bucket: ...

    def run_in_bucket(self, feeds: Feeds, rows: int, outputs: Sequence[str] | None) -> Arrays: ...


Runner = TypeVar("Runner", bound=OfLength)


class Shortened(Generic[Runner]):
    """Thread-safe. `runners`: by length, the signature's own among them."""

    def __init__(self, plan: Shortening, runners: Mapping[int, Runner]) -> None:
        self.plan, self.runners = plan, dict(runners)
        self.ran: Callable[[int, int], object] = _unheard  # told the length and the rows of each run
        costs = {length: _costs(length, runner) for length, runner in runners.items()}
        self._schedule = shortening.Schedule(shortening.smoothed(costs))

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        """Whole rows in, answers in their order out. Declined where an engine does not take a row's values."""
        there = shortening.lengths(self.plan, feeds)
        parts = self._schedule.parts(there)
        for length, rows in parts:
            self.ran(length, len(rows))
        if len(parts) == 1:
            length, rows = parts[0]
            return self.runners[length].run_in_bucket(shortening.cut(self.plan, feeds, length), len(rows), outputs)
        answers: Arrays = {}
        for length, rows in parts:
            part = shortening.cut(self.plan, {name: array[rows] for name, array in feeds.items()}, length)
            for name, found in self.runners[length].run_in_bucket(part, len(rows), outputs).items():
                if name not in answers:
                    answers[name] = np.empty((len(there), *found.shape[1:]), found.dtype)
                answers[name][rows] = found
        return answers

    def feeds_for(self, samples: Sequence[Feeds], length: int) -> list[Feeds]:
        """Samples as the buckets of this length take them, for warming up: cut to it, however long they are."""
        return [shortening.cut(self.plan, sample, length) for sample in samples]


def _unheard(length: int, rows: int) -> None:
    """Where nobody counts."""


def _costs(length: int, runner: OfLength) -> list[shortening.Cost]:
    buckets = [runner.bucket_for(rows) for rows in runner.buckets]
    return [
        shortening.Cost(b.batch or 1, b.cost_us or UNMEASURED_US * length * (b.batch or 1), b.static) for b in buckets
    ]
