"""Slices and look-ups that read a few positions of an axis, not of the first: x[:, 0], x[:, -1], gather(x, 0, 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfopt_optimizer.passes import constants, slices
from tfopt_optimizer.passes.dimensions import Array, Dimensions, Dims, sources
from tfopt_optimizer.passes.parts import Part, smallest


def picked(node: Any, known: Dimensions) -> Part | None:
    """What a node reads of its first input, if it reads little, and always the same."""
    find = _PICKS.get(node.op)
    if find is None:
        return None
    dims = known.of(sources(node)[0])
    values = [known.numbers(name) for name in sources(node)[1:]]
    if dims is None or any(value is None for value in values):
        return None
    return smallest(find(node, dims, [value or [] for value in values]))


def asks(node: Any, part: Part) -> list[tuple[str, Part | None]]:
    """What it reads for that (None: all of a tensor), without what it is told anew by `moved`."""
    name, *others = sources(node)
    return [(name, part), *((other, None) for other in others[1 if node.op == "GatherV2" else 2 :])]


def moved(node: Any, begin: int, known: Dimensions) -> dict[int, Array]:
    """What a node must be told, by the number of the input, where its first begins at `begin` of what it was."""
    own, dims = picked(node, known), known.of(sources(node)[0])
    assert own is not None
    assert dims is not None
    values = [np.array(known.value(name)) for name in sources(node)[1:]]
    kind = constants.told(node, "Tindices" if node.op == "GatherV2" else "Index").type
    numbers = [
        np.array([size.number for size in value.ravel()], np.int64 if kind == 9 else np.int32).reshape(value.shape)
        for value in values
    ]
    if node.op == "GatherV2":
        return {1: numbers[0] - begin}
    if node.op == "Slice":
        numbers[0][own.axis], numbers[1][own.axis] = own.begin - begin, own.count
        return {1: numbers[0], 2: numbers[1]}
    (place,) = (e.place for e in slices.entries(node, len(dims), numbers[2].tolist()) if e.axis == own.axis)
    numbers[0][place], numbers[1][place] = own.begin - begin, own.end - begin
    return {1: numbers[0], 2: numbers[1]}


def _strided(node: Any, dims: Dims, values: list[list[int]]) -> Iterator[Part]:
    (begin, end, strides), masks = values, slices.masks(node)
    for place, axis, taken in slices.entries(node, len(dims), strides):
        if axis < 1 or taken not in (slices.SOME, slices.ONE_OF) or strides[place] != 1:
            continue
        size, bit = dims[axis], 1 << place
        if taken == slices.ONE_OF:
            first = begin[place] + (size.number if begin[place] < 0 and size.known else 0)
            yield Part(axis, first, first + 1, size)
            continue
        first = 0 if masks["begin"] & bit else begin[place]
        last = None if masks["end"] & bit else end[place]
        if size.known:
            first, last, _ = slice(first, last).indices(size.number)
            yield Part(axis, first, last, size)
        elif (first, last) in ((0, 1), (-1, None)):  # of more it may be that some are not there
            yield Part(axis, first, last or 0, size)


def _sliced(node: Any, dims: Dims, values: list[list[int]]) -> Iterator[Part]:
    for axis, (begin, count, size) in enumerate(zip(*values, dims, strict=True)):
        if axis and size.known:
            yield Part(axis, begin, size.number if count < 0 else begin + count, size)


def _gathered(node: Any, dims: Dims, values: list[list[int]]) -> Iterator[Part]:
    places, (axis,) = values
    axis %= len(dims)
    if axis and places and not constants.told(node, "batch_dims").i:
        yield Part(axis, min(places), max(places) + 1, dims[axis])


_PICKS: Mapping[str, Callable[[Any, Dims, list[list[int]]], Iterator[Part]]] = {
    "StridedSlice": _strided,
    "Slice": _sliced,
    "GatherV2": _gathered,
}
