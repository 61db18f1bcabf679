"""What a StridedSlice takes of each axis of what it reads: all of it, some positions, or one, which is no axis then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfopt_optimizer.passes.constants import told

MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
WHOLE, SOME, ONE_OF, NEW = "whole", "some", "one of", "new"


def masks(node: Any) -> dict[str, int]:
    return {name: int(told(node, f"{name}_mask").i) for name in MASKS}


class Entry(NamedTuple):
    """Of a StridedSlice: its place among them, the axis that it is about, and what is taken of that."""

    place: int
    axis: int
    taken: str


def entries(node: Any, rank: int, strides: Sequence[int]) -> list[Entry]:
    """Of all axes that a StridedSlice reads or adds, in the order of its result."""
    bits = masks(node)
    all_taken = [_taken(bits, 1 << place, stride) for place, stride in enumerate(strides)]
    dots = bits["ellipsis"].bit_length() - 1
    more = rank - sum(taken != NEW for taken in all_taken)  # axes that no entry is about
    axis, found = 0, list[Entry]()
    for place, taken in enumerate(all_taken):
        if taken == NEW:
            found.append(Entry(place, -1, NEW))
            continue
        count = more + 1 if place == dots else 1
        found += [Entry(place, axis + number, taken) for number in range(count)]
        axis += count
    return found + [Entry(len(strides), number, WHOLE) for number in range(axis, rank)]


def _taken(bits: Mapping[str, int], bit: int, stride: int) -> str:
    if bits["ellipsis"] & bit:
        return WHOLE
    if bits["new_axis"] & bit:
        return NEW
    if bits["shrink_axis"] & bit:
        return ONE_OF
    return WHOLE if bits["begin"] & bits["end"] & bit and stride == 1 else SOME
