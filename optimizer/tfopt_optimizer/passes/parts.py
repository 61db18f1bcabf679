"""Positions of one axis of a tensor, and which positions of what an operation reads they are computed from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tfopt_optimizer.passes import axes, constants, slices
from tfopt_optimizer.passes.dimensions import ONE, Array, Dimensions, Dims, Size, product, sources, target

_FEW = 4  # positions of an axis of unknown length: what is read of them is there, and likely little
LAST = (-1, 0)  # of an axis of unknown length
_INT64 = 9  # DataType


@dataclasses.dataclass(frozen=True)
class Part:
    """Positions `begin` to `end` (without it) of `size`. They are an axis of their own, or one that was merged of
    [more, size, inner]: of [rows*128, 64] the first of 128 positions is Part(0, 0, 1, size=128, inner=1)."""

    axis: int
    begin: int
    end: int
    size: Size
    inner: Size = ONE

    @property
    def count(self) -> int:
        return self.end - self.begin

    @property
    def few(self) -> bool:
        """Whether it is worth while to have these alone."""
        if self.size.known:
            return 0 <= self.begin < self.end <= self.size.number and 2 * self.count <= self.size.number
        return 0 <= self.begin < self.end <= _FEW or (self.begin, self.end) == LAST

    def within(self, other: Part) -> Part:
        """What it is of a tensor that has no more than `other`."""
        return dataclasses.replace(
            self, begin=self.begin - other.begin, end=self.end - other.begin, size=Size(other.count)
        )

    def alone(self, dims: Dims) -> bool:
        """Whether the positions are an axis of their own."""
        return dims[self.axis] == self.size

    def left(self, dims: Dims) -> Dims:
        """The lengths of a tensor that has these positions alone."""
        more = dims[self.axis].over(self.size)
        assert more is not None, "the axis is a multiple of the positions"
        return (*dims[: self.axis], more * Size(self.count), *dims[self.axis + 1 :])

    def apart(self, dims: Dims) -> Dims:
        """The lengths with the positions as an axis of their own, axis + 1."""
        more = dims[self.axis].over(self.size * self.inner)
        assert more is not None, "the axis is a multiple of the positions and of what is inside"
        return (*dims[: self.axis], more, self.size, self.inner, *dims[self.axis + 1 :])

    def cuttable(self, dims: Dims) -> bool:
        """Whether a tensor of these lengths can be cut to it."""
        return self.alone(dims) or (target(self.apart(dims)) is not None and target(self.left(dims)) is not None)


def union(parts: Iterable[Part]) -> Part | None:
    """One that holds all of them; None where that is no axis' short range."""
    first, *others = parts
    begin, end = first.begin, first.end
    for part in others:
        if dataclasses.replace(part, begin=first.begin, end=first.end) != first:
            return None
        begin, end = min(begin, part.begin), max(end, part.end)
    whole = dataclasses.replace(first, begin=begin, end=end)
    return whole if whole.few else None


def cut(array: Array, part: Part) -> Array:
    """These positions of a constant."""
    dims = tuple(map(Size, array.shape))
    apart = array.reshape([size.number for size in part.apart(dims)])
    left = apart[(slice(None),) * (part.axis + 1) + (slice(part.begin, part.end),)]
    return np.ascontiguousarray(left.reshape([size.number for size in part.left(dims)]))


# Of each input: a part of it, what to write instead of it, or None for all of it.
Needs = tuple[Part | Array | None, ...]


def needs(node: Any, part: Part, known: Dimensions, nodes: Mapping[str, Any]) -> Needs | None:
    """What a part of a node's first result is computed from; None where that takes everything, or is not known."""
    dims = known.of(f"{node.name}:0")
    if dims is None:
        return None
    special = _SPECIAL.get(node.op)
    return special(node, part, known, nodes) if special else _linked(node, part, known)


def _linked(node: Any, part: Part, known: Dimensions) -> Needs | None:
    links, dims = axes.links(node, known), known.of(f"{node.name}:0")
    if links is None or dims is None:
        return None
    label, found = links.output[part.axis], list[Part | Array | None]()
    if label == slices.NEW or label.startswith(axes.SAME):
        return None
    for name, labels in zip(sources(node), links.inputs, strict=True):
        given = known.of(name)
        if labels is None or label not in labels or given is None:
            found.append(None)
            continue
        place = labels.index(label)
        if given[place] not in (dims[part.axis], ONE):
            return None  # it may be broadcast
        found.append(None if given[place] == ONE else dataclasses.replace(part, axis=place))
    return tuple(found) if any(found) else None


def _reshaped(node: Any, part: Part, known: Dimensions, nodes: Mapping[str, Any]) -> Needs | None:
    """The positions are those that come round in the same order: every `stride` elements the next of `size`."""
    given, dims = known.of(sources(node)[0]), known.of(f"{node.name}:0")
    if given is None or dims is None:
        return None
    shape = target(part.left(dims))
    stride = product(dims[part.axis + 1 :]) * part.inner
    for axis, length in enumerate(given):
        after = product(given[axis + 1 :])
        inner = stride.over(after)
        if inner is not None and shape is not None and (after * length).over(stride * part.size) is not None:
            return dataclasses.replace(part, axis=axis, inner=inner), _lengths(node, "Tshape", shape)
    return None


def _filled(node: Any, part: Part, known: Dimensions, nodes: Mapping[str, Any]) -> Needs | None:
    asked = _asked(node, part, known, nodes)
    return None if asked is None else (asked, None)


def _broadcast_to(node: Any, part: Part, known: Dimensions, nodes: Mapping[str, Any]) -> Needs | None:
    given, dims = known.of(sources(node)[0]), known.of(f"{node.name}:0")
    asked = _asked(node, part, known, nodes)
    if given is None or dims is None or asked is None:
        return None
    axis = part.axis - (len(dims) - len(given))
    if axis < 0 or given[axis] == ONE:
        return None, asked
    return (dataclasses.replace(part, axis=axis), asked) if given[axis] == dims[part.axis] else None


def _asked(node: Any, part: Part, known: Dimensions, nodes: Mapping[str, Any]) -> Part | Array | None:
    """The lengths that a node is asked for: those of a tensor's part, or numbers."""
    place, kind = (0, "index_type") if node.op == "Fill" else (1, "Tidx")
    maker, dims = nodes[sources(node)[place].partition(":")[0]], known.of(f"{node.name}:0")
    if dims is None:
        return None
    if maker.op == "Shape" and known.of(sources(maker)[0]) == dims and part.cuttable(dims):
        return part
    left = part.left(dims)
    return _lengths(node, kind, [size.number for size in left]) if all(size.known for size in left) else None


def _lengths(node: Any, kind: str, numbers: list[int]) -> Array:
    return np.array(numbers, np.int64 if constants.told(node, kind).type == _INT64 else np.int32)


def _constant(node: Any, part: Part, known: Dimensions, nodes: Mapping[str, Any]) -> Needs | None:
    return ()


_SPECIAL: Mapping[str, Callable[[Any, Part, Dimensions, Mapping[str, Any]], Needs | None]] = {
    "Reshape": _reshaped,
    "Fill": _filled,
    "BroadcastTo": _broadcast_to,
    "Const": _constant,
}


def smallest(parts: Iterable[Part]) -> Part | None:
    """The one that leaves least of its axis."""
    worth = [part for part in parts if part.few]
    return min(worth, key=lambda part: part.count / (part.size.number if part.size.known else math.inf), default=None)
