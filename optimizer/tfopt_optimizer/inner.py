"""Inner dimensions that differ from request to request, such as a sequence's length: their buckets, and padding.

Pure numpy. A request is padded at the end of each such dimension, with zeros (empty strings), up to the next bucket,
and its answer is cut back. That is allowed only where it was proven to change nothing (padding_proof.py): for models
that take a mask, or treat zeros as padding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tfopt_optimizer.buckets import Feeds, Rows, rows_of
from tfopt_optimizer.plan import Axis, InnerBucket, InnerDimension, InnerPlan, Shape, SignatureInfo

Sizes = tuple[int, ...]
MOST = 4  # inner buckets of a signature
NEAR = 1.25  # a bucket whose next one has less than this many times its elements is left out: padding costs that little


def alike(signature: SignatureInfo, samples: Sequence[Feeds]) -> tuple[Feeds, ...]:
    """The records that differ in rows and in what the signature leaves open alone; the most common kind of them."""
    shapes = {t.name: t.shape for t in signature.inputs}

    def kind(sample: Feeds) -> tuple[object, ...]:
        return tuple((name, _fixed(array.shape, shapes[name])) for name, array in sorted(sample.items()))

    usable = [s for s in samples if rows_of(s)]
    common = Counter(map(kind, usable)).most_common(1)
    return tuple(s for s in usable if kind(s) == common[0][0])


def _fixed(shape: tuple[int, ...], declared: Shape | None) -> tuple[int | None, ...]:
    if declared is None or len(declared) != len(shape):
        return shape[1:]
    return tuple(None if known is None else size for size, known in zip(shape[1:], declared[1:], strict=True))


def dimensions(signature: SignatureInfo, samples: Sequence[Feeds]) -> tuple[InnerDimension, ...]:
    """The inner dimensions that the signature leaves open; axes of one size in every record are one dimension."""
    open_axes = [
        Axis(t.name, axis)
        for t in signature.inputs
        if t.shape is not None
        for axis, size in enumerate(t.shape)
        if axis and size is None
    ]
    groups: dict[Sizes, list[Axis]] = {}
    for place in open_axes:
        if all(place.name in s and s[place.name].ndim > place.axis for s in samples):
            groups.setdefault(tuple(s[place.name].shape[place.axis] for s in samples), []).append(place)
    return tuple(InnerDimension(tuple(axes)) for axes in groups.values())


def sizes_of(found: Sequence[InnerDimension], feeds: Feeds) -> Sizes | None:
    """The size of each dimension in a request; None where the axes of one differ or are not there."""
    sizes = []
    for dimension in found:
        sizes.append(-1)
        for place in dimension.inputs:
            array = feeds.get(place.name)
            if array is None or array.ndim <= place.axis or sizes[-1] not in (-1, array.shape[place.axis]):
                return None
            sizes[-1] = array.shape[place.axis]
    return tuple(sizes)


def elements(sizes: Sizes) -> int:
    return math.prod(sizes)


def holds(larger: Sizes, sizes: Sizes) -> bool:
    return all(a >= b for a, b in zip(larger, sizes, strict=True))


def resized_to(found: Sequence[InnerDimension], feeds: Feeds, sizes: Sizes) -> dict[str, np.ndarray]:
    """The feeds with each dimension cut or filled up at its end; an array that needs neither is the one that came."""
    wanted: dict[str, list[int]] = {}
    for dimension, size in zip(found, sizes, strict=True):
        for place in dimension.inputs:
            wanted.setdefault(place.name, list(feeds[place.name].shape))[place.axis] = size
    out = dict(feeds)
    for name, shape in wanted.items():
        array = feeds[name]
        if list(array.shape) != shape:
            filled = np.full(shape, b"", object) if array.dtype == object else np.zeros(shape, array.dtype)
            common = tuple(slice(0, min(a, b)) for a, b in zip(array.shape, shape, strict=True))
            filled[common] = array[common]
            out[name] = filled
    return out


def cut(found: Sequence[InnerDimension], outputs: Mapping[str, np.ndarray], sizes: Sizes) -> dict[str, np.ndarray]:
    """The answer to a request of these sizes, out of that to the padded one: views."""
    out = dict(outputs)
    for dimension, size in zip(found, sizes, strict=True):
        for place in dimension.outputs:
            if place.name in out:
                out[place.name] = out[place.name][(slice(None),) * place.axis + (slice(0, size),)]
    return out


def choose(seen: Sequence[Sizes], pad: bool) -> tuple[Sizes, ...]:
    """The inner buckets for records of these sizes, MOST at most, the one that most records need first.

    Padded: the sizes that occur, or else those that divide the records into equal parts, each dimension by itself; the
    largest is among them. Not padded: the most common ones, as each request must find its own.
    """
    if not pad:
        return tuple(sizes for sizes, _ in Counter(seen).most_common(MOST))
    levels = sorted(set(seen), key=elements)
    if len(levels) > MOST:
        columns = [sorted(column) for column in zip(*seen, strict=True)]
        places = [math.ceil(len(seen) * part / MOST) - 1 for part in range(1, MOST + 1)]
        levels = [tuple(column[place] for column in columns) for place in places]
    kept: list[Sizes] = []
    for sizes in reversed(levels):
        if not kept or not holds(kept[-1], sizes) or elements(kept[-1]) >= NEAR * elements(sizes):
            kept.append(sizes)
    need = Counter(bucket for sizes in seen if (bucket := smallest(kept[::-1], sizes)))
    return tuple(sorted(kept, key=lambda sizes: -need[sizes]))


def smallest(rising: Sequence[Sizes], sizes: Sizes) -> Sizes | None:
    """The first of them that holds these sizes."""
    return next((level for level in rising if holds(level, sizes)), None)


def stack(
    found: Sequence[InnerDimension], samples: Sequence[Feeds], sizes: Sizes, below: Sequence[Sizes], limit: int
) -> Rows:
    """The first `limit` rows for a bucket of these sizes: of the records (`alike`) that fit into it and into none
    `below`, filled up. Where no record does, of all there is, cut or filled up."""
    own = [
        s
        for s in samples
        if (size := sizes_of(found, s)) is not None and holds(sizes, size) and smallest(below, size) is None
    ]
    resized = [resized_to(found, s, sizes) for s in own or samples]
    feeds = {name: np.concatenate([s[name] for s in resized])[:limit] for name in sorted(resized[0])}
    return Rows(feeds, len(next(iter(feeds.values()))), len(own), len(samples) - len(own))


def least(levels: Sequence[Sequence[tuple[int, float, float]]]) -> int:
    """From how many elements on padding up to a bucket is no slower than plain TensorFlow on what came.

    `levels`: per number of rows, the (elements, chosen us, plain us) of the bucket below (where there is one) and of
    this one. Plain TensorFlow is taken to lie on the line between the two, or between nothing and the one, which is
    less than it takes where calls have a fixed cost.
    """
    wanted = 0
    for points in levels:
        top, chosen_us, plain_us = points[-1]
        low, low_us = (points[0][0], points[0][2]) if len(points) > 1 else (0, 0.0)
        wanted = max(wanted, low + 1)
        if chosen_us > plain_us or not math.isfinite(chosen_us):
            wanted = max(wanted, top)
        elif chosen_us > low_us:
            wanted = max(wanted, low + math.ceil((chosen_us - low_us) * (top - low) / (plain_us - low_us)))
    return wanted


def bucket_of(plan: InnerPlan, sizes: Sizes) -> InnerBucket | None:
    """Where a request of these sizes goes; None: to plain TensorFlow."""
    for bucket in plan.buckets:
        if bucket.sizes == sizes:
            return bucket
    if not plan.padded or not holds(sizes, plan.floor):
        return None
    size = elements(sizes)
    return next((b for b in plan.buckets if holds(b.sizes, sizes) and size >= b.least), None)
