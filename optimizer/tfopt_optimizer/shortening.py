"""Inputs of a fixed length that are filled up behind what they say: how long each row is, and which run computes it.

Pure numpy. A text model is often exported for 128 tokens, and a text of 30 is sent with 98 zeros in ids and mask. The
engines are given a graph whose length is open (passes/lengths.py) and compute such a row at the next shorter length
that has buckets; plain TensorFlow and the model's own routes see the whole of it. That is done only where it was proven
to change nothing (shortening_proof.py).

A row's length ends where all inputs are filling from there on. A row in which an input is nothing but filling is
computed in full, for a mask without a single token means something else to a softmax; but where it is so in all records
(segments), or was proven not to matter.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer import choose
from tfopt_optimizer.buckets import Feeds, Rows
from tfopt_optimizer.plan import Filled, Shortening, SignatureInfo

Lengths = np.ndarray[Any, np.dtype[np.int64]]
SHORTEST = 8  # of a fixed length that is worth it
ROUND = 8  # lengths of buckets are multiples: vector units have eight or sixteen lanes
MOST = 6  # lengths
APART = 1.2  # a length whose next one has less than this many times its positions is left out
MOST_BETWEEN = 8  # more lengths between those, for runners that take any
NEAR = 1.1  # ... each about so many times the next shorter one, or more where they would become too many
SAVED = 0.125  # the share of all positions that must be filling, in the records
EXACT = 1 << 53  # below it whole numbers are floats as well
SMOOTHED = 3  # lengths from which on their times say more together
TAIL = 2  # equal elements at a row's end that may be filling


class Cost(NamedTuple):
    """What a bucket of `rows` takes. `static`: fewer rows are filled up to them; else they take what lies on the line
    to the next smaller bucket."""

    rows: int
    us: float
    static: bool


Costs = Mapping[int, Sequence[Cost]]  # by length


def find(signature: SignatureInfo, rows: Rows) -> Shortening | str:
    """What the records say: which inputs are filled up with what. Or why nothing is to be won; "" where the signature
    has no fixed length at all. `lengths` are those that buckets are to be made for."""
    reason = ""
    for size, names in sorted(_sizes(signature).items(), reverse=True):
        found = _of_size(size, names, rows)
        if isinstance(found, Shortening):
            return found
        reason = reason or found
    return reason


def _sizes(signature: SignatureInfo) -> dict[int, list[str]]:
    """The lengths that inputs have on their first axis behind the rows, with their names."""
    found: dict[int, list[str]] = {}
    for tensor in signature.inputs:
        size = tensor.shape[1] if tensor.shape is not None and len(tensor.shape) > 1 else None
        if size is not None and size >= SHORTEST and dtypes.to_numpy(tensor.dtype) != np.object_:
            found.setdefault(size, []).append(tensor.name)
    return found


def _of_size(size: int, names: Sequence[str], rows: Rows) -> Shortening | str:
    arrays = {name: rows.feeds[name] for name in names if name in rows.feeds}
    if len(arrays) < len(names):
        return f"the records leave input {sorted(set(names) - set(arrays))[0]!r} to its default"
    if any(array[:, -1].size and _uneven(array[:, -1]) for array in arrays.values()):
        return f"what stands at place {size} is more than one value"
    last = np.stack(
        [array[:, -1].reshape(rows.count, -1)[:, 0].astype(np.float64) for array in arrays.values()], axis=1
    )
    tails = [tuple(values) for values, run in zip(last.tolist(), _runs(arrays), strict=True) if run >= TAIL]
    if not tails:
        return f"no record is filled up to {size}"
    values = dict(zip(arrays, Counter(tails).most_common(1)[0][0], strict=True))
    if any(abs(value) >= EXACT for value in values.values()):
        return f"it is filled up to {size} with numbers of 2^53 and more"
    filled = tuple(Filled(n, 1, v, _never_all(arrays[n], v)) for n, v in values.items())
    there = lengths(Shortening(filled, size, (), ""), arrays)
    share = 1.0 - float(there.mean()) / size
    if share < SAVED:
        return f"the records are filled up to {size} by {share:.0%} alone"
    return Shortening(filled, size, levels(there, size), f"{share:.0%} of the records' {size} positions are filling")


def _uneven(last: np.ndarray) -> bool:
    """Whether what stands at one place (a vector, say) is not one value."""
    flat = last.reshape(len(last), -1)
    return bool((flat != flat[:, :1]).any())


def _runs(arrays: Mapping[str, np.ndarray]) -> Lengths:
    """Per row, how many places at its end are equal to the last one in every input."""
    runs = [array.shape[1] - _ends(array != array[:, -1:]) for array in arrays.values()]
    found: Lengths = np.min(runs, axis=0)
    return found


def _never_all(array: np.ndarray, value: float) -> bool:
    return bool((_ends(array != value) > 0).all())


def sometimes_empty(plan: Shortening, feeds: Feeds) -> list[str]:
    """Inputs that are nothing but filling in some rows, not in all, and may be so where a row is shortened."""
    says = {f.name: _ends(feeds[f.name] != f.value) > 0 for f in plan.inputs if not f.needed}
    return [name for name, rows in says.items() if rows.any() and not rows.all()]


def needing(plan: Shortening, names: Sequence[str]) -> Shortening:
    """Rows in which one of these inputs is nothing but filling are computed in full too."""
    inputs = tuple(dataclasses.replace(f, needed=f.needed or f.name in names) for f in plan.inputs)
    return dataclasses.replace(plan, inputs=inputs)


def full_first(plan: Shortening, rows: Rows) -> Rows:
    """The rows that have something in every input that needs it before the others."""
    empty = [_ends(rows.feeds[f.name] != f.value) == 0 for f in plan.inputs if f.needed]
    return rows.pick(np.argsort(np.any(empty, axis=0), kind="stable").tolist()) if empty else rows


def emptied(plan: Shortening, feeds: Feeds, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows in which these inputs are nothing but filling."""
    values = {f.name: f.value for f in plan.inputs}
    return dict(feeds) | {name: np.full_like(feeds[name], values[name]) for name in names}


def _ends(says: np.ndarray[Any, np.dtype[np.bool_]]) -> Lengths:
    """Per row, the place behind the last one that is True; 0 where none is."""
    flat = np.asarray(says if says.ndim == 2 else says.reshape(*says.shape[:2], -1).any(axis=2))
    ends: Lengths = np.where(flat.any(axis=1), flat.shape[1] - flat[:, ::-1].argmax(axis=1), 0)
    return ends


def levels(there: Lengths, size: int) -> tuple[int, ...]:
    """The lengths below `size` to make buckets for: quantiles of those that the records have, rounded up."""
    rounded = sorted(min(size, max(ROUND, math.ceil(int(n) / ROUND) * ROUND)) for n in there)
    wanted = {rounded[math.ceil(len(rounded) * part / MOST) - 1] for part in range(1, MOST + 1)}
    kept, above = list[int](), size
    for length in sorted(wanted, reverse=True):
        if length * APART <= above:
            above = length
            kept.append(length)
    return tuple(reversed(kept))


def between(plan: Shortening) -> tuple[int, ...]:
    """Lengths from the shortest of the plan's on, which lie evenly between them and the signature's own."""
    found, edges = list[int](), (*plan.lengths, plan.size)
    factor = max(NEAR, (plan.size / plan.lengths[0]) ** (1 / (MOST_BETWEEN + 1)))
    for below, above in itertools.pairwise(edges):
        steps = round(math.log(above / below) / math.log(factor))
        inner = (below * (above / below) ** (step / steps) for step in range(1, steps))
        found += dict.fromkeys(n for each in inner if below < (n := math.ceil(each / ROUND) * ROUND) < above)
    return tuple(found)


def by_gain(plan: Shortening, there: Lengths) -> tuple[int, ...]:
    """The lengths, the one first that saves the records most."""
    level = np.searchsorted(plan.lengths, there)
    saved = {n: int((level == i).sum()) * (plan.size - n) for i, n in enumerate(plan.lengths)}
    return tuple(sorted(plan.lengths, key=lambda n: (-saved[n], n)))


def lengths(plan: Shortening, feeds: Feeds) -> Lengths:
    """How long each row is: from 1 to the signature's length."""
    longest: Lengths | None = None
    whole = np.False_
    for filled in plan.inputs:
        ends = _ends(feeds[filled.name] != filled.value)
        longest = ends if longest is None else np.maximum(longest, ends)
        if filled.needed:
            whole = whole | (ends == 0)
    assert longest is not None
    found: Lengths = np.where(whole, plan.size, np.maximum(longest, 1))
    return found


def cut(plan: Shortening, feeds: Feeds, size: int) -> dict[str, np.ndarray]:
    """The first `size` places of every input that has the length."""
    return dict(feeds) | {f.name: np.ascontiguousarray(feeds[f.name][:, :size]) for f in plan.inputs}


def whole(plan: Shortening, feeds: Feeds) -> dict[str, np.ndarray]:
    """Filled up to the signature's length, as a client sends them."""
    out = dict(feeds)
    for filled in plan.inputs:
        array = feeds[filled.name]
        if array.shape[1] < plan.size:
            shape = (array.shape[0], plan.size, *array.shape[2:])
            out[filled.name] = np.full(shape, filled.value, array.dtype)
            out[filled.name][:, : array.shape[1]] = array
    return out


def shares(there: Lengths, number: int) -> list[Lengths]:
    """The rows of each of so many parts, or fewer, which have about as many positions."""
    parts: list[list[int]] = [[] for _ in range(min(number, len(there)))]
    held = [0] * len(parts)
    for row in np.argsort(-there, kind="stable").tolist():
        least = held.index(min(held))
        parts[least].append(row)
        held[least] += int(there[row])
    return [np.array(part) for part in parts]


def rows_of_level(plan: Shortening, rows: Rows, size: int, below: int) -> Rows:
    """Rows to check and measure a length with: those of the records that are longer than `below`, the next shorter one,
    then beginnings of any, down to one place, where filling would weigh most. None where all are nothing but filling
    so far, as those that are filled up in front."""
    there = lengths(plan, rows.feeds)
    own = np.flatnonzero((there <= size) & (there > below))
    parts = [cut(plan, rows.pick(own.tolist()).feeds, size)] if len(own) else []
    begun = lengths(plan, whole(plan, cut(plan, rows.feeds, size))) <= size
    first = rows.take(int(begun.argmax()), 1)
    for end in dict.fromkeys((size, size - 1, max(1, size // 2), 1)):
        parts.append(cut(plan, whole(plan, cut(plan, first, end)), size))
    feeds = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept = np.flatnonzero(lengths(plan, whole(plan, feeds)) <= size)  # a beginning may be nothing but filling
    return Rows({n: np.ascontiguousarray(a[kept]) for n, a in feeds.items()}, len(kept), rows.records, rows.skipped)


def opened(signature: SignatureInfo, plan: Shortening) -> SignatureInfo:
    """The signature of the graph whose length is open."""
    axes = {filled.name: filled.axis for filled in plan.inputs}
    inputs = tuple(
        dataclasses.replace(t, shape=tuple(None if i == axes[t.name] else d for i, d in enumerate(t.shape)))
        if t.name in axes and t.shape is not None
        else t
        for t in signature.inputs
    )
    return dataclasses.replace(signature, inputs=inputs)


class Schedule:
    """Which rows run together, and at which length: what costs least by the buckets' measured times. Thread-safe."""

    def __init__(self, costs: Costs) -> None:
        """`costs` has the signature's own length, with a bucket at least, and the shorter ones."""
        self._lengths = sorted(costs)
        self._costs = [sorted(costs[length]) for length in self._lengths]
        self._at = dict(zip(self._lengths, self._costs, strict=True))
        self._largest = max(cost.rows for costs in self._costs for cost in costs)
        self._parts = functools.lru_cache(1024)(self._of_counts)
        self._run = functools.cache(self._of_run)  # as many entries as lengths times rows

    def us(self, parts: Sequence[tuple[int, Lengths]]) -> float:
        """What such runs take."""
        return sum(_took(self._at[length], len(rows)) for length, rows in parts)

    def parts(self, there: Lengths) -> list[tuple[int, Lengths]]:
        """(length, numbers of rows) of each run, together all rows once."""
        level = np.searchsorted(self._lengths, there)
        order = np.argsort(-level, kind="stable")
        counts = tuple(np.bincount(level, minlength=len(self._lengths)).tolist())
        found, start = [], 0
        for length, count in self._parts(counts):
            found.append((length, order[start : start + count]))
            start += count
        return found

    def _of_counts(self, counts: tuple[int, ...]) -> list[tuple[int, int]]:
        """(length, rows) of each run: the cheapest way to part the rows, the longest first."""
        levels = [i for i in reversed(range(len(counts))) for _ in range(counts[i])]
        cheapest: list[tuple[float, int, int]] = [(0.0, 0, 0)] * (len(levels) + 1)  # us, end of the run, its length
        for start in reversed(range(len(levels))):
            ends = range(start + 1, min(len(levels), start + self._largest) + 1)
            runs = [(*self._run(levels[start], end - start), end) for end in ends]
            cheapest[start] = min((us + cheapest[end][0], -end, length) for us, length, end in runs)
        parts, start = [], 0
        while start < len(levels):
            _, end, length = cheapest[start]
            parts.append((length, -end - start))
            start = -end
        return parts

    def _of_run(self, level: int, rows: int) -> tuple[float, int]:
        """Microseconds, and the length, of the cheapest run of so many rows: at their own length or a longer one.
        Infinite where none takes them together."""
        above = zip(self._lengths[level:], self._costs[level:], strict=True)
        return min((_took(costs, rows), length) for length, costs in above)


def smoothed(costs: Costs) -> dict[int, list[Cost]]:
    """With times of one runner at many lengths freed of what a busy neighbour added to single ones: none is more than
    the median of its own and those of the next lengths (at the ends, of what lies on the line through the next two)."""
    found = {length: list(buckets) for length, buckets in costs.items()}
    for rows in {cost.rows for buckets in costs.values() for cost in buckets if not cost.static}:
        points = [(n, c.us) for n in sorted(costs) for c in costs[n] if c.rows == rows and not c.static]
        if len(points) < SMOOTHED:
            continue
        wide = [_beyond(points[0][0], *points[1:3]), *points, _beyond(points[-1][0], *points[-3:-1])]
        for place, (length, _) in enumerate(points):
            most = sorted(us for _, us in wide[place : place + 3])[1]
            changed = [c._replace(us=min(c.us, most)) if c.rows == rows and not c.static else c for c in found[length]]
            found[length] = changed
    return found


def _beyond(length: int, left: tuple[int, float], right: tuple[int, float]) -> tuple[int, float]:
    slope = (right[1] - left[1]) / (right[0] - left[0])
    return length, left[1] + slope * (length - left[0])


def _took(costs: Sequence[Cost], rows: int) -> float:
    """Microseconds of so many rows in the smallest bucket that holds them; infinite where none does."""
    bucket = next((cost for cost in costs if cost.rows >= rows), None)
    if bucket is None:
        return math.inf
    return bucket.us if bucket.static else choose.between([(0, 0.0), *((cost.rows, cost.us) for cost in costs)], rows)
