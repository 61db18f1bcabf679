"""Values that an engine would compute with and TensorFlow refuses: a runner declines them, and TensorFlow answers."""

from __future__ import annotations

from collections.abc import Mapping

from tfopt_optimizer.engines.base import Feeds
from tfopt_optimizer.engines.indices import Limits
from tfopt_optimizer.errors import Declined


class Within:
    """Called with feeds, raises Declined for an input beyond its inclusive limits."""

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self._limits = tuple((name, *pair) for name, pair in limits.items())

    def __call__(self, feeds: Feeds) -> None:
        for name, low, high in self._limits:
            array = feeds[name]
            if array.size and not (array.min() >= low and array.max() <= high):  # NaN is neither
                raise Declined("INVALID_ARGUMENT", f"input {name!r} has values outside {low} to {high}")
