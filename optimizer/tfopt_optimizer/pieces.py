"""Into which buckets a number of rows goes: one, filled up, or several one after another that take less. Pure.

Nine rows and buckets of 1, 8 and 32: where a row takes as long in each, 8 and then 1 take a quarter of what 32 take
with 23 copies among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

from tfopt_optimizer.choose import TIE

PADDING_US = 10.0  # putting rows together or cutting them, and taking the answer apart or joining it
# What several calls must gain over one. Contests of two sizes are held at different moments, and calls in a row find
# their caches warm: tabular's 3 x 8 rows were to take 1.7 ms for 32's 1.9 and took 2.7 to 3.4 for 2.2 to 2.6 (0210).
GAIN = 0.20


class Bucket(Protocol):
    """As signature_runner.Bucket."""

    @property
    def batch(self) -> int | None: ...
    @property
    def static(self) -> bool: ...
    @property
    def cost_us(self) -> float: ...


Of = TypeVar("Of", bound=Bucket)


class Way(NamedTuple):
    """Positions of buckets, and the microseconds that they take one after another."""

    us: float
    at: tuple[int, ...]


def pieces(rows: int, buckets: Sequence[Of]) -> tuple[Of, ...]:
    """The buckets that `rows` go through in turn; all but the last are full, the last may be filled up.

    `buckets` rise in their rows. One bucket, the smallest that holds them, unless several are faster by GAIN; the
    largest alone where none holds them: whoever calls then cuts. Buckets that were not measured are not put together.
    No rows: the smallest.
    """
    one = next((i for i, bucket in enumerate(buckets) if _rows(bucket) >= rows), None)
    if one is None:
        return (buckets[-1],)
    if any(bucket.cost_us <= 0.0 for bucket in buckets[: one + 1]):
        return (buckets[one],)
    return tuple(buckets[i] for i in _least(rows, buckets, one + 1).at)


def us(rows: int, buckets: Sequence[Bucket]) -> float:
    """What `rows` take: as `pieces` has them, or in proportion where they are more than the largest bucket's."""
    largest = buckets[-1]
    if rows > _rows(largest):
        return largest.cost_us * rows / _rows(largest)
    return together_us(pieces(rows, buckets))


def together_us(way: Sequence[Bucket]) -> float:
    """What runs on these buckets take, one after another, cutting and joining included."""
    return sum(bucket.cost_us for bucket in way) + PADDING_US * (len(way) - 1)


def told(sizes: Sequence[int]) -> str:
    """ "2 x 8 and 1 x 4": of rows, for people."""
    return " and ".join(f"{sizes.count(size)} x {size}" for size in sorted(set(sizes), reverse=True))


def _parted(rows: int, buckets: Sequence[Bucket], most: int) -> Way:
    """The cheapest way that begins with as many full buckets of one size as there are rows for, among the first `most`
    buckets; the larger ones where it hardly matters."""
    best = Way(math.inf, ())
    for i in reversed(range(most)):
        full, left = divmod(rows, _rows(buckets[i]))
        rest = _least(left, buckets, i + 1) if left else Way(0.0, ())
        way = Way(full * buckets[i].cost_us + rest.us + PADDING_US * (full - (not left)), (i,) * full + rest.at)
        if way.us * (1 + TIE) < best.us:
            best = way
    return best


def _least(rows: int, buckets: Sequence[Bucket], most: int) -> Way:
    """The cheapest way for no more rows than the last of the first `most` buckets takes."""
    one = next(i for i in range(most) if _rows(buckets[i]) >= rows)
    whole = Way(_us(buckets, one, rows), (one,))
    if not one:
        return whole
    parted = _parted(rows, buckets, one)
    return parted if parted.us * (1 + GAIN) < whole.us else whole


def _us(buckets: Sequence[Bucket], at: int, rows: int) -> float:
    """Of one run. A bucket that is not static computes no filling: on the line to the next smaller one."""
    bucket = buckets[at]
    if bucket.static or not at or rows == _rows(bucket):
        return bucket.cost_us
    below = buckets[at - 1]
    share = (rows - _rows(below)) / (_rows(bucket) - _rows(below))
    return below.cost_us + max(0.0, bucket.cost_us - below.cost_us) * share


def _rows(bucket: Bucket) -> int:
    return bucket.batch or 0
