"""Runs the rows of a signature of fixed length at the shorter lengths that they have (shortening.py says which).

A bucket for which the device has no memory is dropped, and its rows are planned again with those that are left.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from tfopt_optimizer import shortening
from tfopt_optimizer.buckets import Feeds
from tfopt_optimizer.engines.base import Arrays, SideBySide
from tfopt_optimizer.errors import OutOfMemory
from tfopt_optimizer.plan import Shortening
from tfopt_optimizer.shortening import Lengths

UNMEASURED_US = 1.0  # per row and place: in proportion
STANDS_IN = 10.0  # what plain TensorFlow for a dropped bucket is taken for, in times of the slowest that was measured
FIXED = 0.05  # of what a packed bucket's call takes, whatever its rows have (BERT-small: 1 ms of 21)
log = logging.getLogger(__name__)


class Bucket(Protocol):
    @property
    def batch(self) -> int | None: ...
    @property
    def cost_us(self) -> float: ...
    @property
    def static(self) -> bool: ...
    @property
    def positions(self) -> int: ...
    @property
    def run(self) -> Any: ...


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
        self._planned = self._plans()

    def _plans(self) -> tuple[shortening.Schedule, Beside | None, Packs | None]:
        costs = shortening.smoothed(_costs(self.runners))
        whole = self.runners[self.plan.size]
        packing = [b for rows in whole.buckets if (b := whole.bucket_for(rows)).positions]
        packs = Packs(self.plan.size, packing[-1]) if packing else None
        return shortening.Schedule(costs), _beside(self.runners, costs), packs

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        """Whole rows in, answers in their order out. Declined where an engine does not take a row's values."""
        there = shortening.lengths(self.plan, feeds)
        (schedule, side, packs), answers = self._planned, Arrays()
        parts = schedule.parts(there)
        if packs is not None and len(there) > 1:
            together = packs.parts(there)
            if packs.us(there, together) < schedule.us(parts):
                return self._run_parts(together, feeds, outputs, answers, packs.bucket)
        aside = side.of(there) if side is not None and len(there) > 1 else None
        if side is not None and aside is not None:
            rest = np.flatnonzero(aside.lengths == 0)
            others = [(length, rest[rows]) for length, rows in schedule.parts(there[rest])] if len(rest) else []
            if aside.us + schedule.us(others) < schedule.us(parts):
                parts = others
                self._run_beside(side, aside.lengths, feeds, outputs, answers)
        return self._run_parts(parts, feeds, outputs, answers)

    def _run_parts(
        self,
        parts: Sequence[tuple[int, Lengths]],
        feeds: Feeds,
        outputs: Sequence[str] | None,
        answers: Arrays,
        bucket: Bucket | None = None,
    ) -> Arrays:
        """Adds those of these parts to `answers`. `bucket`: theirs, where it is not that of so many rows."""
        count = len(next(iter(feeds.values())))
        if len(parts) == 1 and not answers:
            return self._run(parts[0][0], count, feeds, outputs, bucket)
        for length, rows in parts:
            part = {name: array[rows] for name, array in feeds.items()}
            _put(answers, self._run(length, len(rows), part, outputs, bucket), rows, count)
        return answers

    def _run_beside(
        self, side: Beside, lengths: Lengths, feeds: Feeds, outputs: Sequence[str] | None, answers: Arrays
    ) -> None:
        rows = np.flatnonzero(lengths)
        rows = rows[np.argsort(-lengths[rows], kind="stable")]  # the longest first: nobody waits for it at the end
        calls = [
            shortening.cut(self.plan, {name: array[row : row + 1] for name, array in feeds.items()}, int(lengths[row]))
            for row in rows
        ]
        for row, found in zip(rows, side.each(calls, outputs), strict=True):
            self.ran(int(lengths[row]), 1)
            _put(answers, found, slice(row, row + 1), len(lengths))

    def _run(
        self, length: int, rows: int, feeds: Feeds, outputs: Sequence[str] | None, bucket: Bucket | None = None
    ) -> Arrays:
        runner = self.runners[length]
        bucket = bucket or runner.bucket_for(rows)
        if bucket.static and (bucket.batch or 0) < rows:  # one was dropped since this was planned
            return self.run(feeds, outputs)
        try:
            found = runner.run_in_bucket(bucket, shortening.cut(self.plan, feeds, length), rows, outputs)
        except OutOfMemory as error:
            self.lost(bucket, error.message)
            return self.run(feeds, outputs)  # ends: there is one bucket less
        self._count(length, bucket, feeds, rows)
        return found

    def _count(self, length: int, bucket: Bucket, feeds: Feeds, rows: int) -> None:
        if not bucket.positions:
            self.ran(length, rows)
            return
        for own, count in Counter(shortening.lengths(self.plan, feeds).tolist()).items():
            self.ran(min(length, -(-own // shortening.ROUND) * shortening.ROUND), count)

    def drop(self, bucket: Any) -> bool:
        """Takes a bucket out for good. False: somebody did already."""
        if not any(runner.drop(bucket) for runner in self.runners.values()):
            return False
        self._planned = self._plans()
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


class Packs:
    """A bucket whose runner takes rows of all lengths together, and as long as they have positions."""

    def __init__(self, size: int, bucket: Bucket) -> None:
        self.bucket, self._size, self._streams = bucket, size, int(getattr(bucket.run, "streams", 1))
        self._us, self._positions = bucket.cost_us, bucket.positions

    def parts(self, there: Lengths) -> list[tuple[int, Lengths]]:
        """As Schedule's: equally many rows at once, no more than the bucket's, those of about a length together."""
        order, number = np.argsort(-there, kind="stable"), -(-len(there) // (self.bucket.batch or 1))
        return [(self._size, rows) for rows in np.array_split(order, number)]

    def us(self, there: Lengths, parts: Sequence[tuple[int, Lengths]]) -> float:
        """What such runs take."""
        each = (1 - FIXED) * self._us / self._positions
        return sum(FIXED * self._us + each * self._longest(there[rows]) for _, rows in parts)

    def _longest(self, there: Lengths) -> int:
        """How many positions are computed, or could be until the last stream is done."""
        if self._streams == 1:
            return int(there.sum())
        return self._streams * max(int(there[rows].sum()) for rows in shortening.shares(there, self._streams))


class Aside(NamedTuple):
    """Rows that run side by side: at which length each, 0 for those that do not, and how long they take together."""

    lengths: Lengths
    us: float


class Beside:
    """A runner that answers rows of all shorter lengths side by side. `us`: by length, of a row among others."""

    def __init__(self, runner: SideBySide, us: Mapping[int, float]) -> None:
        self.each, self._streams = runner.each, runner.streams
        self._lengths = np.array(sorted(us))
        self._us = np.array([us[length] for length in sorted(us)])

    def of(self, there: Lengths) -> Aside | None:
        """None where it is not for two rows at least."""
        level = np.searchsorted(self._lengths, there)
        short = level < len(self._lengths)
        if short.sum() < 2:
            return None
        us = self._us[level[short]]
        lengths = np.zeros(len(there), np.int64)
        lengths[short] = self._lengths[level[short]]
        return Aside(lengths, max(float(us.sum()), self._streams * float(us.max())))


def _beside(runners: Mapping[int, OfLength], costs: shortening.Costs) -> Beside | None:
    """Of those lengths whose buckets of several rows run so, all in the same model."""
    found, us = None, {}
    for length, one in runners.items():
        bucket = one.bucket_for(one.buckets[-1])
        if not bucket.static and hasattr(bucket.run, "each") and found in (None, bucket.run):
            found = bucket.run
            us[length] = costs[length][-1].us / costs[length][-1].rows
    return Beside(found, us) if found is not None else None


def _put(answers: Arrays, found: Arrays, rows: Any, count: int) -> None:
    for name, array in found.items():
        if name not in answers:
            answers[name] = np.empty((count, *array.shape[1:]), array.dtype)
        answers[name][rows] = array


def _unheard(length: int, rows: int) -> None:
    """Where nobody counts."""


def _costs(runners: Mapping[int, OfLength]) -> dict[int, list[shortening.Cost]]:
    """By length. Where others were measured, what was not is plain TensorFlow in the place of a dropped bucket."""
    found = {length: [one.bucket_for(rows) for rows in one.buckets] for length, one in runners.items()}
    slowest = max(b.cost_us / (length * (b.batch or 1)) for length, buckets in found.items() for b in buckets)
    us = slowest * STANDS_IN or UNMEASURED_US
    return {
        length: [
            shortening.Cost(b.batch or 1, _us(b, length) or us * length * (b.batch or 1), b.static) for b in buckets
        ]
        for length, buckets in found.items()
    }


def _us(bucket: Bucket, length: int) -> float:
    """Of rows of that length, also where others were measured."""
    return bucket.cost_us * ((bucket.batch or 1) * length / bucket.positions if bucket.positions else 1.0)
