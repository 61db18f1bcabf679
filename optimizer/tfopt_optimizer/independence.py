"""Row independence: may requests be padded and merged? Proven on the records, never assumed.

A signature's rows are independent when every row of the answer depends on the same row of the question alone. Batch
statistics, ranking across rows, a shared sum break that silently. First what the signature itself rules out, then
a proof by running: a row alone, in a batch filled up with copies of itself, mixed with other and with altered rows, and
before rows that lie far from all records must give the same answer; so must one before serialized Examples with
features of other lengths and values, and with those that no record has (example_rows.py). What only other values, or
more rows, would show stays unseen.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tfopt_optimizer import example_rows, verify
from tfopt_optimizer.buckets import Rows
from tfopt_optimizer.declared import NOTHING, Declared
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.saved_model import State

Run = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]
PROBES = 3  # rows that are looked at one by one
PROBING_S = 5.0
MIXED = 8  # records in the mixed batch
FAR = 1e4  # how many times a float's size a row far away has


class Refused(Exception):
    """What `run` raises for inputs that the model does not take."""


@dataclasses.dataclass(frozen=True)
class Proof:
    independent: bool
    reason: str


def static_reason(signature: SignatureInfo, state: State) -> str:
    """Why rows cannot be independent by what the signature declares; "" when nothing speaks against it."""
    if state.writes:
        return f"it writes state ({', '.join(state.writes[:3])})"
    if state.random:
        return f"its result is random ({', '.join(state.random[:3])})"
    if state.decided:
        return f"the values of a batch decide which branch all of it takes ({', '.join(state.decided[:3])})"
    if not signature.inputs:
        return "it has no inputs"
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if tensor.shape is not None and not tensor.shape:
                return f"{kind} {tensor.name!r} is a scalar"
            if tensor.shape is not None and tensor.shape[0] is not None:
                return f"{kind} {tensor.name!r} has a fixed first dimension of {tensor.shape[0]}"
    return ""


def prove(
    run: Run,
    rows: Rows,
    tolerance: verify.Tolerance,
    clock: Callable[[], float] = time.monotonic,
    *,
    declared: Declared = NOTHING,
) -> Proof:
    """Runs the proof on the reference, with fewer probes than PROBES when they take longer than PROBING_S."""
    end = clock() + PROBING_S
    near = near_sides(run, rows)
    distant = [accepted(run, side) for side in far(rows)]
    search = example_rows.Search(functools.partial(takes_all, run))
    changed = example_rows.beside(search, rows.take(0, 1), [rows.feeds], declared)
    inside = [accepted(run, side) for side in changed]
    sides = [*near, *distant, *inside]
    altered = _joined(near) or _joined(distant)
    if altered is None and rows.count < 2:
        return Proof(False, "there is only one row to try, and none like it can be made up: add warmup records")
    mixed_with = _join(rows, altered)
    for probe in range(min(PROBES, rows.count)):
        reason = _probe(run, rows, mixed_with, probe, tolerance) or _one_sided(run, rows, sides, probe, tolerance)
        if reason:
            return Proof(False, reason)
        if clock() > end:
            break
    count = probe + 1
    found = f"{count} row{'s' * (count > 1)} gave the same answer alone, padded, and among others"
    return Proof(True, f"{found}; of made-up Examples beside them {told}" if (told := search.told()) else found)


def accepted(run: Run, altered: dict[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    """Those of the altered rows that the model takes (it may refuse a made-up tf.Example, or assert a range)."""
    if altered is None:
        return None
    kept = [row for row in range(_count(altered)) if takes_all(run, {n: a[row : row + 1] for n, a in altered.items()})]
    return {n: a[kept] for n, a in altered.items()} if kept else None


def takes_all(run: Run, feeds: dict[str, np.ndarray]) -> bool:
    """Whether the model answers at all."""
    try:
        run(feeds)
    except Refused:
        return False
    return True


def _count(feeds: Mapping[str, np.ndarray]) -> int:
    return int(next(iter(feeds.values())).shape[0])


def _probe(run: Run, rows: Rows, others: dict[str, np.ndarray], probe: int, tolerance: verify.Tolerance) -> str:
    alone_feeds = rows.take(probe, 1)
    alone = run(alone_feeds)
    for name, array in alone.items():
        if array.ndim == 0 or array.shape[0] != 1:
            return f"output {name!r} has shape {array.shape} for one row"
    size = _count(others)
    copies = {n: np.repeat(a, size + 1, axis=0) for n, a in alone_feeds.items()}
    first = {n: np.concatenate([a, others[n]]) for n, a in alone_feeds.items()}
    last = {n: np.concatenate([others[n], a]) for n, a in alone_feeds.items()}
    for how, feeds, place in (
        ("padded with copies", copies, 0),
        ("before others", first, 0),
        ("after others", last, size),
    ):
        reason = same_row(alone, run(feeds), place, size + 1, tolerance)
        if reason:
            return f"row {probe} {how}: {reason}"
    return ""


def _one_sided(
    run: Run, rows: Rows, sides: list[dict[str, np.ndarray] | None], probe: int, tolerance: verify.Tolerance
) -> str:
    """The row among others that all lie above zero, or below, or far away on one side: sums of both together may be
    none at all, and a maximum may be the row's own."""
    alone_feeds = rows.take(probe, 1)
    alone = run(alone_feeds)
    for side in sides:
        if side is None:
            continue
        others = {n: np.repeat(a, 4, axis=0) for n, a in side.items()}
        batch = {n: np.concatenate([a, others[n]]) for n, a in alone_feeds.items()}
        reason = same_row(alone, run(batch), 0, _count(batch), tolerance)
        if reason:
            return f"row {probe} before others on one side of it: {reason}"
    return ""


def near_sides(run: Run, rows: Rows) -> list[dict[str, np.ndarray] | None]:
    """What `alter` makes, above and below zero, as far as the model takes it. Where it does not take all of it (columns
    of ids for tables of different sizes, say), integers and strings are those of other records as they are."""
    made = _sides(alter(rows))
    found = [accepted(run, side) for side in made]
    if any(side is None or _count(side) < _count(each) for side, each in zip(found, made, strict=True)):
        recorded = [accepted(run, side) for side in _sides(alter(rows, as_recorded=True))]
        return recorded if any(side is not None for side in recorded) else found
    return found


def acceptable(run: Run, rows: Rows) -> dict[str, np.ndarray] | None:
    """Rows unlike any record that the model takes; None when there are none."""
    return _joined(near_sides(run, rows))


def _sides(altered: dict[str, np.ndarray] | None) -> list[dict[str, np.ndarray]]:
    """The two halves of what `alter` made: above and below zero."""
    if altered is None:
        return []
    half = _count(altered) // 2
    return [{n: a[:half] for n, a in altered.items()}, {n: a[half:] for n, a in altered.items()}]


def _joined(sides: Sequence[dict[str, np.ndarray] | None]) -> dict[str, np.ndarray] | None:
    parts = [side for side in sides if side is not None]
    return {n: np.concatenate([part[n] for part in parts]) for n in parts[0]} if parts else None


def same_row(
    alone: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    place: int,
    size: int,
    tolerance: verify.Tolerance | verify.Gate,
) -> str:
    """ "" when row `place` of a batch of `size` rows equals the row that was run alone."""
    for name, array in batch.items():
        if array.ndim == 0 or array.shape[0] != size:
            return f"output {name!r} has shape {array.shape} for {size} rows"
    return verify.check(alone, {n: a[place : place + 1] for n, a in batch.items()}, tolerance).reason


def alter(rows: Rows, as_recorded: bool = False) -> dict[str, np.ndarray] | None:
    """Rows unlike any record but of plausible values, so that batch statistics move; None when nothing can be altered.

    Floats are scaled, shifted and turned round, once above and once below zero (a mask that all records pass must meet
    a row that does not). Integers and strings change places with those that occur: an index out of range would fail for
    reasons of its own. A string that is the only one is turned round; a model may refuse that. `as_recorded`: they are
    another record's, each in its place.
    """
    base = rows.take(0, min(rows.count, 2))
    change = _of_another if as_recorded else _altered
    above = {n: change(a, rows.feeds[n], 1.0) for n, a in base.items()}
    if all(np.array_equal(above[n], a) for n, a in base.items()):
        return None
    below = {n: change(a, rows.feeds[n], -1.0) for n, a in base.items()}
    return {n: np.concatenate([above[n], below[n]]) for n in base}


def _of_another(array: np.ndarray, values: np.ndarray, sign: float) -> np.ndarray:
    if verify.is_inexact(array):
        return _altered(array, values, sign)
    return values[(np.arange(len(array)) + (1 if sign > 0 else 2)) % len(values)]


def _altered(array: np.ndarray, values: np.ndarray, sign: float) -> np.ndarray:
    if verify.is_inexact(array):
        wide = array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
        turned = wide[..., ::-1] if array.ndim > 1 else wide
        return (sign * (np.abs(turned) * 3.0 + np.maximum(np.abs(wide), 1.0))).astype(array.dtype)
    if array.dtype == np.bool_:
        return ~array
    pool = np.unique(values) if array.dtype != object else np.array(sorted(set(values.ravel())), dtype=object)
    if len(pool) == 1 and array.dtype == object:
        return np.array([value[::-1] for value in array.ravel()], dtype=object).reshape(array.shape)
    place = np.searchsorted(pool, array) if array.dtype != object else _places(pool, array)
    return pool[(place + (1 if sign > 0 else 2)) % len(pool)].reshape(array.shape)


def far(rows: Rows) -> Iterator[dict[str, np.ndarray]]:
    """Single rows far from all records, in one kind of value at a time, for a model may refuse those of another: floats
    FAR times as large, integers twice and half, strings of more and of fewer words. They meet what records that are
    alike in size, length or number of words cannot: a threshold, padding to the longest."""
    base = rows.take(0, 1)
    for kinds, moved in (("fc", far_floats), ("iu", _far_integers), ("O", _far_strings)):
        names = [n for n, a in base.items() if ("f" if verify.is_inexact(a) else a.dtype.kind) in kinds]
        for up in (True, False) if names else ():
            yield {n: moved(a, up) if n in names else a for n, a in base.items()}


def far_floats(array: np.ndarray, up: bool) -> np.ndarray:
    wide = np.abs(array.astype(np.complex128 if np.iscomplexobj(array) else np.float64))
    limit = {1: 200.0, 2: 6e4}.get(array.dtype.itemsize, 1e30)  # what 8 bits, float16 and the others surely hold
    return ((1 if up else -1) * np.maximum(wide, np.minimum((wide + 1) * FAR, limit))).astype(array.dtype)


def _far_integers(array: np.ndarray, up: bool) -> np.ndarray:
    if not up:
        return array // 2
    limit = np.iinfo(array.dtype).max
    return np.where(array > limit // 2, limit, array * 2 + 1).astype(array.dtype)


def _far_strings(array: np.ndarray, up: bool) -> np.ndarray:
    found = [value + b" " + value if up else value[: len(value) // 2] for value in array.ravel()]
    return np.array(found, dtype=object).reshape(array.shape)


def _places(pool: np.ndarray, array: np.ndarray) -> np.ndarray:
    index = {value: i for i, value in enumerate(pool)}
    return np.array([index[value] for value in array.ravel()]).reshape(array.shape)


def _join(rows: Rows, altered: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """The rows that a probe is mixed with: records between altered ones, so that both neighbours differ from it."""
    records = rows.take(1, min(MIXED, max(rows.count - 1, 1)))
    if altered is None:
        return records
    return {n: np.concatenate([altered[n], records[n], altered[n]]) for n in records}
