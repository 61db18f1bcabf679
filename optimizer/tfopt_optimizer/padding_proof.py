"""Inner padding: may a request be filled up with zeros and its answer cut? Proven on the records, never assumed.

A model that takes a mask, or reads zeros as padding, answers the same; one that averages over everything does not. The
proof runs records as they are and padded, the beginnings of records (down to one element, where padding weighs most,
and all but the last few, which a stride tells apart), and altered rows, and compares the answers. It also finds which
axes of the outputs have the padded sizes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tfopt_optimizer import independence, inner, verify
from tfopt_optimizer.buckets import Feeds
from tfopt_optimizer.independence import Refused, Run
from tfopt_optimizer.inner import Sizes
from tfopt_optimizer.plan import Axis, InnerDimension

ROWS = 4  # of one size, looked at together
SHORTER = 3  # sizes of records that are padded up to the largest
LEAST = 2  # probes, however long they take
# Convolutions with strides begin elsewhere by what a size leaves when it is divided by them: 1, 31 and 63 elements are
# alike for a stride of 2, and 62 are not.
FEWER = (1, 2, 3)
PROVING_S = 5.0


@dataclasses.dataclass(frozen=True)
class Padding:
    """`dimensions` with the outputs' axes. `floor`: the smallest sizes that were tried."""

    sound: bool
    reason: str
    dimensions: tuple[InnerDimension, ...]
    floor: Sizes


@dataclasses.dataclass(frozen=True)
class _Probe:
    sizes: Sizes
    larger: Sizes
    short: Mapping[str, np.ndarray]
    long: Mapping[str, np.ndarray]


def prove(
    run: Run,
    found: Sequence[InnerDimension],
    samples: Sequence[Feeds],
    tolerance: verify.Tolerance,
    clock: Callable[[], float] = time.monotonic,
) -> Padding:
    """`samples` differ in these dimensions and in rows alone, and rows are independent."""
    end, probes = clock() + PROVING_S, list[_Probe]()
    for feeds, sizes, larger in _questions(run, found, samples):
        if len(probes) >= LEAST and clock() > end:
            break
        try:
            short = run(feeds)
        except Refused:
            continue  # what was cut or altered may be no request at all
        try:
            long = run(inner.resized_to(found, feeds, larger))
        except Refused as error:
            return _unsound(found, f"padded from {_text(sizes)} to {_text(larger)} it is refused: {error}")
        probes.append(_Probe(sizes, larger, short, long))
    if not probes:
        return _unsound(found, "the model takes no shorter request to try it on")
    placed = _outputs(found, probes)
    if isinstance(placed, str):
        return _unsound(found, placed)
    for probe in probes:
        reason = verify.check(probe.short, inner.cut(placed, probe.long, probe.sizes), tolerance).reason
        if reason:
            return _unsound(found, f"padded from {_text(probe.sizes)} to {_text(probe.larger)}: {reason}")
    floor = tuple(min(column) for column in zip(*(p.sizes for p in probes), strict=True))
    return Padding(True, f"{len(probes)} requests gave the same answer padded, from {_text(floor)} on", placed, floor)


def _questions(
    run: Run, found: Sequence[InnerDimension], samples: Sequence[Feeds]
) -> Iterator[tuple[dict[str, np.ndarray], Sizes, Sizes]]:
    """Feeds, their sizes, and those to pad them to: the strictest first."""
    seen = sorted({sizes for s in samples if (sizes := inner.sizes_of(found, s)) is not None}, key=inner.elements)
    largest = tuple(max(column) for column in zip(*seen, strict=True))
    rows = {sizes: inner.stack(found, _of(found, samples, sizes), sizes, (), ROWS) for sizes in seen}
    last = rows[seen[-1]]
    half = tuple(max(1, size // (2 + number)) for number, size in enumerate(seen[-1]))
    ones = (1,) * len(half)
    altered = independence.acceptable(run, last)
    less = [tuple(max(1, size - by) for size in seen[-1]) for by in FEWER]
    wanted = [(last.feeds, ones), (last.feeds, less[0]), (last.feeds, half), (altered, half), (altered, ones)]
    for feeds, sizes in (*wanted, *((last.feeds, each) for each in less[1:])):
        if feeds is not None and sizes != largest:
            yield inner.resized_to(found, feeds, sizes), sizes, largest
    for sizes in seen[: -1 if seen[-1] == largest else None][:: max(1, len(seen) // SHORTER)]:
        yield dict(rows[sizes].feeds), sizes, largest
        if sizes != ones:
            yield inner.resized_to(found, rows[sizes].feeds, ones), ones, sizes


def _of(found: Sequence[InnerDimension], samples: Sequence[Feeds], sizes: Sizes) -> list[Feeds]:
    return [s for s in samples if inner.sizes_of(found, s) == sizes]


def _outputs(found: Sequence[InnerDimension], probes: Sequence[_Probe]) -> tuple[InnerDimension, ...] | str:
    """The dimensions with the axes of outputs that follow them, or why there is no telling."""
    places: list[list[Axis]] = [[] for _ in found]
    for name, first in probes[0].short.items():
        for axis in range(1, first.ndim):
            pairs = [(p.short[name].shape[axis], p.long[name].shape[axis]) for p in probes]
            if all(short == long for short, long in pairs):
                continue
            able = [
                number for number in range(len(found)) if pairs == [(p.sizes[number], p.larger[number]) for p in probes]
            ]
            if len(able) != 1:
                return f"output {name!r} has {pairs[0][0]} and {pairs[0][1]} elements for {_text(probes[0].sizes)} " + (
                    f"and {_text(probes[0].larger)}: which is padding cannot be told"
                )
            places[able[0]].append(Axis(name, axis))
    return tuple(
        dataclasses.replace(dimension, outputs=tuple(axes)) for dimension, axes in zip(found, places, strict=True)
    )


def _unsound(found: Sequence[InnerDimension], reason: str) -> Padding:
    return Padding(False, reason, tuple(found), ())


def _text(sizes: Sizes) -> str:
    return " x ".join(map(str, sizes))
