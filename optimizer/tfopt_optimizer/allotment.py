"""How long the search may take: a budget in seconds, shared out over signatures and buckets. Pure; the clock is given.

whole = Allotment.of(30.0)
for left, bucket in zip(range(3, 0, -1), buckets):
    hold(bucket, whole.share(left))   # a third, then half of what is left, then the rest
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sized

GRACE_S = 20.0  # what a candidate gets, however late it is, while nobody else has been found right
SHORTEST_S = 2.0
DECIDING = 2  # the smallest and the largest bucket
SEARCH = 0.5  # this share of the budget is for trying candidates, however long loading and proving took
OVERTIME = 1.0  # buckets are opened, for one candidate each, until the budget is used up this many times more
WITHOUT_FLAGS_S = 30.0
WITH_FLAGS_S = 300.0  # compiling and compressing are what takes long


@dataclasses.dataclass(frozen=True)
class Allotment:
    """Until `end` everything is tried, after it one candidate alone; after `last` nothing new begins."""

    end: float
    last: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Allotment:
        now = clock()
        return cls(now + seconds, now + seconds * (1 + OVERTIME), clock)

    def share(self, parts: int) -> Allotment:
        """An equal part of what is left; what it does not use is there for the others."""
        now = self.clock()
        return dataclasses.replace(self, end=now + max(0.0, self.end - now) / max(1, parts))

    def at_least(self, seconds: float) -> Allotment:
        """With no less than this left from now on, and as much again after it."""
        now = self.clock()
        end = max(self.end, now + seconds)
        return dataclasses.replace(self, end=end, last=max(self.last, end + seconds))

    def left(self) -> float:
        return max(0.0, self.end - self.clock())

    def over(self) -> bool:
        return self.clock() >= self.end

    def gone(self) -> bool:
        return self.clock() >= self.last

    def patience(self, timeout_s: float, found: Sized = (), killing_s: float = 0.0) -> float:
        """Seconds for one candidate: what is left, and never more than `timeout_s`.

        Never less than GRACE_S as long as none was `found` right, nor than SHORTEST_S afterwards, nor than `killing_s`,
        which it takes to start the process again in which others run too.
        """
        return min(timeout_s, max(self.left(), SHORTEST_S if found else GRACE_S, killing_s))


def parts(position: int, buckets: int, *, shorter: bool = False) -> int:
    """Into how many parts what is left is shared for the next bucket.

    The first two get half of it each: models are converted in the first, and the two decide who is tried in the others.
    A third each where buckets of shorter lengths come after them, which are what most requests will run in.
    """
    if position >= DECIDING:
        return buckets - position
    return min(3 if shorter else 2, buckets - position)


def default_s(allow_precompilation: bool, allow_compression: bool) -> float:
    """The budget where the operator names none."""
    return WITH_FLAGS_S if allow_precompilation or allow_compression else WITHOUT_FLAGS_S
