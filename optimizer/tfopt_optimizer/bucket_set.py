"""Which numbers of rows deserve a bucket: one whose rows cost no less padded up to the next, or in pieces, is left out.
Pure.

Fewer buckets are fewer executables to compile, warm and hold, and more requests that share one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tfopt_optimizer.choose import TIE, microseconds
from tfopt_optimizer.pieces import PADDING_US, pieces, told


class Size(NamedTuple):
    """A bucket that was measured, as pieces.py takes it."""

    batch: int
    cost_us: float
    static: bool = True


def covered(costs: Mapping[int, float], rows: int) -> int | None:
    """The measured size that `rows` may be padded up to without looking at theirs; None where they must be measured.

    `costs`: microseconds by rows of what was measured, the smallest and the largest among them. Rows between two sizes
    that cost the same cost that too.
    """
    below, above = max((n for n in costs if n < rows), default=0), min((n for n in costs if n > rows), default=0)
    return above if below and above and _no_less(costs[below], costs[above]) else None


def needless(costs: Mapping[int, float]) -> dict[int, int]:
    """Rows -> the size that they are padded up to instead. The smallest and the largest size always stay."""
    found: dict[int, int] = {}
    rising = sorted(costs)
    kept = rising[-1] if rising else 0
    for rows in rising[-2:0:-1]:
        if _no_less(costs[rows], costs[kept]):
            found[rows] = kept
        else:
            kept = rows
    return found


def in_pieces(costs: Mapping[int, float], left_out: Collection[int]) -> dict[int, tuple[int, ...]]:
    """Rows -> the sizes that take them in turn, clearly faster than their own. The smallest and the largest stay."""
    kept = [rows for rows in sorted(costs) if rows not in left_out]
    there, found = [Size(rows, costs[rows]) for rows in kept[:1]], dict[int, tuple[int, ...]]()
    for rows in kept[1:-1]:
        own = Size(rows, costs[rows])
        way = pieces(rows, [*there, own])
        if len(way) > 1:
            found[rows] = tuple(size.batch for size in way)
        else:
            there.append(own)
    return found


def _no_less(cost_us: float, padded_us: float) -> bool:
    return padded_us + PADDING_US <= cost_us * (1 + TIE)


def settled(
    costs: Mapping[int, float], left_out: Mapping[int, int], untried: Sequence[int], named: Sequence[int]
) -> tuple[set[int], str]:
    """The sizes that get no bucket, and a line that says why for the log and the report.

    `left_out`: what was not measured because it is covered; `untried`: what is between the smallest and the largest and
    was not for want of time: its rows run in the others, not on plain TensorFlow.
    """
    if named or not costs:
        return set(), line(costs, {}, {}, [], named) if costs else ""
    left_out = {**left_out, **needless(costs)}
    parted = in_pieces(costs, left_out)
    unmeasured = [rows for rows in untried if rows not in left_out]
    return {*left_out, *parted, *unmeasured}, line(costs, left_out, parted, unmeasured, named)


def line(
    costs: Mapping[int, float],
    left_out: Mapping[int, int],
    parted: Mapping[int, Sequence[int]],
    unmeasured: Sequence[int],
    named: Sequence[int],
) -> str:
    """Why these are the buckets, for the log and the report."""
    if named:
        return f"{_rows(sorted(named))}, as --allowed_batch_sizes or the batching file name them"
    kept = [rows for rows in sorted(costs) if rows not in left_out and rows not in parted]
    why = []
    if left_out:
        targets = sorted(set(left_out.values()))
        times = ", ".join(f"{n} in {microseconds(costs[n])}" for n in targets if n in costs)
        why.append(f"{_listed(left_out)} left out: padded up they cost no more ({times})")
    for rows, way in sorted(parted.items()):
        why.append(f"{rows} left out: it took {microseconds(costs[rows])}, more than {told(way)} in turn")
    if unmeasured:
        why.append(f"no time left to measure {_listed(unmeasured)}")
    return "; ".join([_rows(kept), *why]) if why else f"{_rows(kept)}: each saves time over padding up to the next"


def _listed(sizes: Collection[int]) -> str:
    return ", ".join(map(str, sorted(sizes)))


def _rows(sizes: Sequence[int]) -> str:
    return f"{_listed(sizes)} row{'s' * (list(sizes) != [1])}"
