"""The openvino engine's variant f32-packed: rows of all lengths in one call, their filling left out.

The graph (passes/packing.py) has inputs more, which tell the positions that there are; they are computed here from
what clients send. Any other model takes rows that are equally long: texts of 30 and 120 tokens run one by one, or the
short one is computed at 120.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer import shortening
from tfopt_optimizer.engines.base import Arrays, Feeds
from tfopt_optimizer.engines.openvino_requests import OpenvinoRunner, Request, Shapes, Team
from tfopt_optimizer.engines.pool import Pool
from tfopt_optimizer.passes.packing import OF_ROW, PLACES, POSITION, TOKENS
from tfopt_optimizer.plan import Shortening, TensorInfo

# Other shapes need other kernels (3 ms a text classifier): so there are few. A position more costs 30 us there.
COUNTS, LENGTHS = 16, 8
INPUTS = (
    *(TensorInfo(name, "int32", (None,)) for name in (TOKENS, OF_ROW, POSITION)),
    TensorInfo(PLACES, "int32", (None, None)),
)
NAMES = {tensor.name: f"{tensor.name}:0" for tensor in INPUTS}


def shapes(whole: Shapes, size: int) -> Shapes:
    """With those of the inputs that are added, of `size` positions in all."""
    rows = next(iter(whole.values()))[0]
    return dict(whole) | dict.fromkeys((TOKENS, OF_ROW, POSITION), (rows * size,)) | {PLACES: (rows, size)}


def packed(plan: Shortening, feeds: Feeds) -> dict[str, np.ndarray]:
    """The feeds as the graph takes them, for rows as clients send them."""
    there = shortening.lengths(plan, feeds)
    length = min(plan.size, _up(int(there.max()), LENGTHS))
    tokens, places = _places(there, length)
    of_row, position = np.divmod(tokens, np.int32(length))
    added = {TOKENS: tokens, OF_ROW: of_row, POSITION: position, PLACES: places}
    return shortening.cut(plan, feeds, length) | added


def _places(there: shortening.Lengths, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions behind a row's end are those of the first one that is: of its own row, for what filling becomes may
    depend on it (sums up to each position: their maximum is not another text's)."""
    places = np.arange(length)
    tokens = np.flatnonzero(places <= there[:, None])
    of = np.zeros(_up(len(tokens), COUNTS), np.int32)
    of[: len(tokens)] = tokens
    counts = np.minimum(there + 1, length)
    starts = np.cumsum(counts) - counts
    return of, (starts[:, None] + np.minimum(places, there[:, None])).astype(np.int32)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


class PackedRequest:
    """For one call at a time, of any rows, whose positions the streams share."""

    def __init__(self, plan: Shortening, make: Callable[[], Request], streams: int) -> None:
        self._plan, self._streams, self._team = plan, streams, Team(make, streams)

    def run(self, feeds: Feeds, outputs: Sequence[str] | None) -> Arrays:
        parts = shortening.shares(shortening.lengths(self._plan, feeds), self._streams)
        calls = [packed(self._plan, {name: array[rows] for name, array in feeds.items()}) for rows in parts]
        back = np.argsort(np.concatenate(parts))
        found = self._team.each(calls, outputs)
        return {name: np.concatenate([part[name] for part in found])[back] for name in found[0]}


class PackedRunner(OpenvinoRunner):
    """Runs rows of any lengths; each of the `streams` computes a part of them."""

    def __init__(self, plan: Shortening, make: Callable[[], Request], streams: int, limit: int) -> None:
        pool: Pool[Any] = Pool(lambda: PackedRequest(plan, make, streams), limit)
        super().__init__(pool)
        self.streams = streams
