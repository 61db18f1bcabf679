"""Which numbers of rows deserve a bucket: one whose rows cost no less than padded up to the next is left out. Pure.

Fewer buckets are fewer executables to compile, warm and hold, and more requests that share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfopt_optimizer.choose import TIE, microseconds

PADDING_US = 10.0  # putting the rows together and taking the answer apart, where an exact fit does neither


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


def _no_less(cost_us: float, padded_us: float) -> bool:
    return padded_us + PADDING_US <= cost_us * (1 + TIE)


def line(costs: Mapping[int, float], left_out: Mapping[int, int], named: Sequence[int]) -> str:
    """Why these are the buckets, for the log and the report."""
    if named:
        return f"{_rows(sorted(named))}, as --allowed_batch_sizes or the batching file name them"
    kept = [rows for rows in sorted(costs) if rows not in left_out]
    if not left_out:
        return f"{_rows(kept)}: each saves time over padding up to the next"
    targets = sorted({left_out[rows] for rows in left_out})
    told = ", ".join(f"{n} in {microseconds(costs[n])}" for n in targets if n in costs)
    return f"{_rows(kept)}; {', '.join(map(str, sorted(left_out)))} left out: padded up they cost no more ({told})"


def _rows(sizes: Sequence[int]) -> str:
    return f"{', '.join(map(str, sizes))} row{'s' * (list(sizes) != [1])}"
