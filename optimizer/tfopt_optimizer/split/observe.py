"""The shapes of tensors inside a signature, as its records show them: a cut is made where they are the same in every
call of the same shapes.

TensorFlow's own shape inference stops at parsing, decoding and splitting: what comes of them has unknown dimensions,
although for most models only the number of rows is open. What is seen here is no proof: a runner declines what has
another shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tfopt_optimizer.engines.base import Arrays, Feeds, Place
from tfopt_optimizer.errors import Declined, NotLowerable
from tfopt_optimizer.plan import Shape, SignatureInfo
from tfopt_optimizer.split.graph import node_of
from tfopt_optimizer.split.program import key
from tfopt_optimizer.split.session import GraphWriter, HostSession
from tfopt_optimizer.split.source import Source

ROWS = (1, 2, 3)  # numbers of rows that are tried
CALLS = 3  # calls of each that are looked at, and of each shape where rows are not independent


@dataclasses.dataclass
class Seen:
    """`shapes` have None for what differed between calls, `rows` are tensors whose first dimension was always the
    call's rows, `unstable` those whose shape differed between calls of the same shapes: only values can tell it.
    `exact`: key of the inputs' shapes -> every tensor's, with None for the rows."""

    shapes: dict[str, Shape] = dataclasses.field(default_factory=dict)
    rows: set[str] = dataclasses.field(default_factory=set)
    unstable: set[str] = dataclasses.field(default_factory=set)
    exact: dict[str, dict[str, Shape]] = dataclasses.field(default_factory=dict)

    def add(self, other: Seen) -> None:
        self.shapes |= other.shapes
        self.rows |= other.rows
        self.unstable |= other.unstable
        for group, shapes in other.exact.items():
            self.exact.setdefault(group, {}).update(shapes)


def calls(samples: Sequence[Feeds], info: SignatureInfo, *, independent: bool) -> list[Arrays]:
    """What to look at: samples of independent rows in calls of different numbers of them, and each of the shapes once
    more with its unknown dimensions doubled."""
    if independent:
        found = [call for sample in samples for size in ROWS for call in _of_rows(sample, size)]
    else:
        kinds: dict[str, list[Arrays]] = {}
        for sample in samples:
            kinds.setdefault(key(sample), []).append({n: np.asarray(a) for n, a in sample.items()})
        found = [call for group in kinds.values() for call in group[:CALLS]]
    unknown = {
        t.name: [i for i, d in enumerate(t.shape or ()) if d is None and (i or not independent)] for t in info.inputs
    }
    if any(unknown.values()):
        found += [{n: _doubled(a, unknown[n]) for n, a in call.items()} for call in found]
    return found


def _of_rows(sample: Feeds, size: int) -> list[Arrays]:
    rows = next(iter(sample.values())).shape[0]
    starts = range(0, rows, size)[:CALLS]
    return [{n: a[[i % rows for i in range(start, start + size)]] for n, a in sample.items()} for start in starts]


def _doubled(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    for axis in axes:
        array = np.concatenate([array, array], axis)
    return array


class Observer:
    """Runs parts of a signature on calls of it. NotLowerable when no session can."""

    def __init__(
        self, place: Place, source: Source, info: SignatureInfo, samples: Sequence[Feeds], *, independent: bool
    ) -> None:
        self._calls, self._independent = calls(samples, info, independent=independent), independent
        self._place, self._source = place, source

    def look(self, tensors: Iterable[str]) -> Seen:
        wanted, found, store = list(tensors), Seen(), _Held()
        inside = [t for t in wanted if node_of(t) not in self._source.graph.fed]
        writer = GraphWriter(self._source, store)
        feeds = writer.add(list(self._source.graph.inputs.values()), inside)
        session = HostSession(self._place, writer.graph(), writer.resources, store.arrays.__getitem__)
        try:
            rows, groups, shapes = self._run(session.part(feeds, inside), inside)
        finally:
            session.close()
        for tensor in wanted:
            _note(found, tensor, groups, [each[tensor] for each in shapes], rows)
        return found

    def _run(
        self, run: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]], names: Sequence[str]
    ) -> tuple[list[int], list[str], list[dict[str, tuple[int, ...]]]]:
        """Of every call: its rows (-1 where they are not independent), the key of its shapes, the tensors' shapes."""
        rows, groups, shapes = list[int](), list[str](), list[dict[str, tuple[int, ...]]]()
        refusal = ""
        for call in self._calls:
            given = {tensor: call[name] for name, tensor in self._source.graph.inputs.items()}
            try:
                values = {**given, **dict(zip(names, run(given), strict=True))}
            except Declined as error:
                refusal = error.message  # what was made of the records need not be valid
                continue
            rows.append(next(iter(call.values())).shape[0] if self._independent else -1)
            groups.append(key(call, rows=self._independent))
            shapes.append({tensor: value.shape for tensor, value in values.items()})
        if not shapes:
            raise NotLowerable(f"TensorFlow refuses all records in a part of the graph: {refusal}")
        return rows, groups, shapes


class _Held:
    """A store of arrays in memory."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1


def _note(
    found: Seen, tensor: str, groups: Sequence[str], shapes: Sequence[tuple[int, ...]], rows: Sequence[int]
) -> None:
    """Adds one tensor's shapes in all calls."""
    by_row = all(shape and shape[0] == count for shape, count in zip(shapes, rows, strict=True))
    if by_row:
        found.rows.add(tensor)
    open_ = [(None, *shape[1:]) if by_row else shape for shape in shapes]
    for group, shape in zip(groups, open_, strict=True):
        if found.exact.setdefault(group, {}).setdefault(tensor, shape) != shape:
            found.unstable.add(tensor)
    if len({len(shape) for shape in open_}) > 1:
        found.unstable.add(tensor)
    else:
        found.shapes[tensor] = tuple(d[0] if len(set(d)) == 1 else None for d in zip(*open_, strict=True))
