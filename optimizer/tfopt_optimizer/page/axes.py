"""Logarithmic axes: where a value stands, and which ticks to draw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

_TICKS = 8


@dataclasses.dataclass(frozen=True)
class LogAxis:
    """Maps values from `low` to `high` (both positive) to pixels from `start` to `end`; values outside are clamped."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Powers of ten, at most _TICKS of them; 1, 2 and 5 times those where there would be fewer than three."""
        tens = self._multiples((1,))
        return tens[:: math.ceil(len(tens) / _TICKS)] if len(tens) >= 3 else self._multiples((1, 2, 5))

    def _multiples(self, digits: Sequence[int]) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        found = [d * 10.0**e for e in range(first, last + 1) for d in digits]
        return [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]


def around(values: Sequence[float], start: float, end: float) -> LogAxis:
    """An axis with a little air around positive values, at least half a decade long."""
    low, high = min(values) / 1.25, max(values) * 1.25
    middle = math.sqrt(low * high)
    return LogAxis(min(low, middle / 1.8), max(high, middle * 1.8), start, end)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves labels apart until they are `gap` from each other, in their order, within low..high where there is room."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = list(places)
    at = low - gap
    for i in order:
        at = found[i] = max(found[i], at + gap)
    at = high + gap
    for i in reversed(order):
        at = found[i] = min(found[i], at - gap)
    return found
