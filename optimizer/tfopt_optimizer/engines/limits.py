"""Values that an engine would compute with and TensorFlow refuses: a runner declines them, TensorFlow answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfopt_optimizer.errors import Declined

Limits = tuple[int, int]  # both inclusive
ANY: Limits = (-(1 << 63), (1 << 63) - 1)


class Part(NamedTuple):
    """An input, or those of its columns that are between `start` and `stop` (as Python counts) on `axis`."""

    name: str
    axis: int | None = None
    start: int = 0
    stop: int | None = None

    def of(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.axis is None:
            return array
        return array[(slice(None),) * (self.axis % array.ndim) + (slice(self.start, self.stop),)]

    def __str__(self) -> str:
        if self.axis is None:
            return f"input {self.name!r}"
        return f"input {self.name!r} (axis {self.axis}, {self.start}:{'' if self.stop is None else self.stop})"


Bounds = Mapping[Part, Limits]


def narrow(bounds: dict[Part, Limits], part: Part, limit: Limits) -> None:
    low, high = bounds.get(part, ANY)
    bounds[part] = (max(low, limit[0]), min(high, limit[1]))


def impossible(bounds: Bounds) -> bool:
    """Whether some input may have no value at all."""
    return any(low > high for low, high in bounds.values())


class Within:
    """Called with feeds, raises Declined for an input beyond its limits."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = tuple(bounds.items())

    def __call__(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> None:
        for part, (low, high) in self._bounds:
            array = part.of(feeds[part.name])
            if array.size and not (array.min() >= low and array.max() <= high):  # NaN is neither
                raise Declined("INVALID_ARGUMENT", f"{part} has values outside {low} to {high}")


def written(bounds: Bounds) -> list[list[Any]]:
    """For JSON."""
    return [[list(part), list(limit)] for part, limit in bounds.items()]


def read(rows: Iterable[Sequence[Any]]) -> dict[Part, Limits]:
    return {Part(*part): (int(low), int(high)) for part, (low, high) in rows}
