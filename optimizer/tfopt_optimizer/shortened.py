"""Runs the rows of a signature of fixed length at the shorter lengths that they have (shortening.py says which).

A bucket for which the device has no memory is dropped, and its rows are planned again with those that are left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tfopt_optimizer import shortening
from tfopt_optimizer.buckets import Feeds
from tfopt_optimizer.engines.base import Arrays
from tfopt_optimizer.errors import OutOfMemory
from tfopt_optimizer.plan import Shortening

UNMEASURED_US = 1.0  # per row and place: in proportion
STANDS_IN = 10.0  # what plain TensorFlow for a dropped bucket is taken for, in times of the slowest that was measured
log = logging.getLogger(__name__)


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

    def run_in_bucket(self, bucket: Any, feeds: Feeds, rows: int, outputs: Sequence[str] | None) -> Arrays: ...

    def drop(self, bucket: Any) -> bool: ...


Runner = TypeVar("Runner", bound=OfLength)


class Shortened(Generic[Runner]):
    """Thread-safe. `runners`: by length, the signature's own among them."""

    def __init__(self, plan: Shortening, runners: Mapping[int, Runner]) -> None:
        self.plan, self.runners = plan, dict(runners)
        self.ran: Callable[[int, int], object] = _unheard  # told the length and the rows of each run
        self.lost: Callable[[Any, str], object] = self._lose  # drops a bucket for which there is no memory, and says so
        self._schedule = self._planned()

    def _planned(self) -> shortening.Schedule:
        return shortening.Schedule(shortening.smoothed(_costs(self.runners)))

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        """Whole rows in, answers in their order out. Declined where an engine does not take a row's values."""
        there = shortening.lengths(self.plan, feeds)
        parts = self._schedule.parts(there)
        if len(parts) == 1:
            return self._run(parts[0][0], len(there), feeds, outputs)
        answers: Arrays = {}
        for length, rows in parts:
            part = {name: array[rows] for name, array in feeds.items()}
            for name, found in self._run(length, len(rows), part, outputs).items():
                if name not in answers:
                    answers[name] = np.empty((len(there), *found.shape[1:]), found.dtype)
                answers[name][rows] = found
        return answers

    def _run(self, length: int, rows: int, feeds: Feeds, outputs: Sequence[str] | None) -> Arrays:
        runner = self.runners[length]
        bucket = runner.bucket_for(rows)
        if bucket.static and (bucket.batch or 0) < rows:  # one was dropped since this was planned
            return self.run(feeds, outputs)
        try:
            found = runner.run_in_bucket(bucket, shortening.cut(self.plan, feeds, length), rows, outputs)
        except OutOfMemory as error:
            self.lost(bucket, error.message)
            return self.run(feeds, outputs)  # ends: there is one bucket less
        self.ran(length, rows)
        return found

    def drop(self, bucket: Any) -> bool:
        """Takes a bucket out for good. False: somebody did already."""
        if not any(runner.drop(bucket) for runner in self.runners.values()):
            return False
        self._schedule = self._planned()
        return True

    def left(self) -> str:
        """The buckets, rows x places each."""
        there = ((length, rows) for length in sorted(self.runners) for rows in self.runners[length].buckets)
        return ", ".join(f"{rows} x {length}" for length, rows in there)

    def _lose(self, bucket: Any, why: str) -> None:
        if self.drop(bucket):
            log.warning("a bucket of %s rows is dropped: %s; left: %s", bucket.batch, why, self.left())

    def feeds_for(self, samples: Sequence[Feeds], length: int) -> list[Feeds]:
        """Samples as the buckets of this length take them, for warming up: cut to it, however long they are."""
        return [shortening.cut(self.plan, sample, length) for sample in samples]


def _unheard(length: int, rows: int) -> None:
    """Where nobody counts."""


def _costs(runners: Mapping[int, OfLength]) -> dict[int, list[shortening.Cost]]:
    """By length. Where others were measured, what was not is plain TensorFlow in the place of a dropped bucket."""
    found = {length: [one.bucket_for(rows) for rows in one.buckets] for length, one in runners.items()}
    slowest = max(b.cost_us / (length * (b.batch or 1)) for length, buckets in found.items() for b in buckets)
    us = slowest * STANDS_IN or UNMEASURED_US
    return {
        length: [shortening.Cost(b.batch or 1, b.cost_us or us * length * (b.batch or 1), b.static) for b in buckets]
        for length, buckets in found.items()
    }
