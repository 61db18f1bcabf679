"""The arithmetic of the benchmarks: percentiles, summaries, ratios between variants that ran in turn.

Rules: pure functions over plain numbers; a percentile is a value that was measured (nearest rank), never one made up
between two samples; a ratio is taken between medians, because one slow round on a shared machine must not decide.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

PERCENTS = (50.0, 90.0, 99.0, 99.9)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Times in microseconds. `count` is the number of samples."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest sample that at least `percent` per cent of all samples do not exceed.

    `ordered` rises and is not empty; percentile([1, 2, 3, 4], 50) == 2.
    """
    if not ordered:
        raise ValueError("no samples, no percentile")
    if not 0 < percent <= 100:
        raise ValueError(f"percent: expected 0 < percent <= 100, received {percent}")
    # 99.9 % of 1000 is 999.0000000000001 in binary; without rounding the rank would be one too high.
    rank = math.ceil(round(len(ordered) * percent / 100, 9))
    return ordered[rank - 1]


def summary(times_us: Sequence[float]) -> Summary:
    ordered = sorted(times_us)
    p50, p90, p99, p999 = (percentile(ordered, percent) for percent in PERCENTS)
    return Summary(len(ordered), statistics.fmean(ordered), p50, p90, p99, p999, ordered[-1])


@dataclasses.dataclass(frozen=True)
class Spread:
    """One quantity over several rounds: its median and the range it was seen in."""

    median: float
    lowest: float
    highest: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratio(rounds: Mapping[str, Sequence[float]], numerator: str, denominator: str) -> float:
    """Median over median of two variants that were measured in the same rounds.

    ratio({"ours": [8, 9, 1], "bare": [10, 10, 10]}, "ours", "bare") == 0.8
    """
    above, below = rounds[numerator], rounds[denominator]
    if len(above) != len(below):
        raise ValueError(f"{numerator} ran {len(above)} rounds, {denominator} ran {len(below)}: not measured in turn")
    return statistics.median(above) / statistics.median(below)
