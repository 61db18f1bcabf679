"""Which static shapes a signature is compiled for, and feeds of exactly these shapes out of the records.

Pure numpy. A record is one request's feeds, of any number of rows. Only records of the most common inner shape are
used: one set of inner shapes per signature is compiled, requests of any other go to plain TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer.flags import DEFAULT_BUCKETS
from tfopt_optimizer.plan import Shape, SignatureInfo

Feeds = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
# The default sizes end where plain TensorFlow would take longer for a batch by what it takes for a row: images gain
# nothing from more rows (0210), and looking at 32 of ResNet50 (3 s a call) took the time for all other buckets.
LONGEST_S = 0.25
ALWAYS = 8  # rows that they go up to, however long
MAX_EXACT_SHAPES = 4  # static shapes compiled for a signature whose rows are not independent


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of all usable records, stacked: every array is [rows, *inner]."""

    feeds: Mapping[str, np.ndarray]
    count: int
    records: int  # records used
    skipped: int  # records of other inner shapes

    def pick(self, numbers: Sequence[int]) -> Rows:
        """These rows alone."""
        index = np.array(numbers, np.int64)
        return dataclasses.replace(self, feeds={n: a[index] for n, a in self.feeds.items()}, count=len(index))

    def take(self, start: int, batch: int) -> dict[str, np.ndarray]:
        """`batch` rows from `start` on, beginning again at the first row when they run out."""
        index = (start + np.arange(batch)) % self.count
        return {name: np.ascontiguousarray(array[index]) for name, array in self.feeds.items()}

    def batches(self, batch: int) -> Iterator[dict[str, np.ndarray]]:
        """All rows in batches of this size; the last one begins again at the first row."""
        for start in range(0, self.count, batch):
            yield self.take(start, batch)

    def inner(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape[1:] for name, array in self.feeds.items()}


def rows_of(feeds: Feeds) -> int | None:
    """The number of rows that all inputs share; None when one has no rows or they differ."""
    counts = {array.shape[0] if array.ndim else None for array in feeds.values()}
    return counts.pop() if len(counts) == 1 else None


def stack(samples: Sequence[Feeds], limit: int) -> Rows | None:
    """The first `limit` rows of the records with the most common inner shapes; None without a usable record."""
    usable = [s for s in samples if rows_of(s)]
    if not usable:
        return None
    common, _ = Counter(_inner(s) for s in usable).most_common(1)[0]
    chosen = [s for s in usable if _inner(s) == common]
    feeds = {name: np.concatenate([s[name] for s in chosen])[:limit] for name in sorted(chosen[0])}
    count = next(iter(feeds.values())).shape[0]
    return Rows(feeds, count, len(chosen), len(samples) - len(chosen))


def sizes(allowed: Sequence[int], samples: Sequence[Feeds], from_warmup: bool) -> tuple[int, ...]:
    """Buckets in rising order: as allowed, else as seen in warmup records, else the default.

    A record file whose requests all have one row says nothing about batching: then the default sizes. Batch 1 always
    belongs to the sizes seen: padding a lone row up to 32 would cost what 32 cost.
    """
    if allowed:
        return tuple(sorted(set(allowed)))
    seen = {r for s in samples if (r := rows_of(s))} if from_warmup else set()
    return tuple(sorted(seen | {1})) if seen - {1} else DEFAULT_BUCKETS


def within(default: Sequence[int], row_s: float) -> tuple[int, ...]:
    """Those of the default sizes that are worth looking at, where a row takes plain TensorFlow `row_s`."""
    return tuple(rows for rows in default if rows <= ALWAYS or rows * row_s <= LONGEST_S)


def exact_shapes(samples: Sequence[Feeds]) -> list[dict[str, tuple[int, ...]]]:
    """The full shapes that occur, the most common first, for signatures whose rows are not independent."""
    counted = Counter(tuple(sorted((n, a.shape) for n, a in s.items())) for s in samples)
    return [dict(shapes) for shapes, _ in counted.most_common(MAX_EXACT_SHAPES)]


def unknown_inner(signature: SignatureInfo, rows_first: bool) -> list[str]:
    """Inputs with a dimension that only records can tell (the row dimension aside)."""

    def known(shape: Shape | None) -> bool:
        return shape is not None and all(d is not None for d in (shape[1:] if rows_first else shape))

    return [t.name for t in signature.inputs if not known(t.shape)]


def fits(signature: SignatureInfo, feeds: Feeds) -> bool:
    """Whether a record has exactly the signature's inputs and types (inputs with defaults may be missing)."""
    types = {t.name: t.dtype for t in signature.inputs}
    complete = set(feeds) <= set(types) and set(types) - set(feeds) <= set(signature.defaults)
    return complete and all(a.dtype == dtypes.to_numpy(types[n]) for n, a in feeds.items())


def _inner(feeds: Feeds) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((name, array.shape[1:]) for name, array in feeds.items()))
