"""How long the axes of a graph's tensors are, as far as is known without running it: a number, or a number times
unknown lengths with names, so that the same unknown length is recognised elsewhere.

    Keras' Dense on [rows, 128, 64]: Reshape to [rows*128, 64], MatMul, and Reshape to what was computed from the
    shape of its input. TensorFlow says [None, None, 64] of that; here it is [rows, 128, 64].
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tfopt_protos import tensors

from tfopt_optimizer.passes import axes, constants, slices

Array = np.ndarray[Any, Any]
Shape = tuple[int | None, ...]
_WHOLE = frozenset({3, 9})  # DataType: int32, int64
_FEW = 64  # values of a constant that may be a shape
_COMPUTED = "?"  # begins the name of a value that may be no length: -1, say


@dataclasses.dataclass(frozen=True)
class Size:
    """A number times unknown ones."""

    number: int
    unknown: tuple[str, ...] = ()

    def __mul__(self, other: Size) -> Size:
        return Size(self.number * other.number, tuple(sorted(self.unknown + other.unknown)))

    def over(self, other: Size) -> Size | None:
        """The quotient, if it is known to be whole."""
        rest = Counter(self.unknown)
        rest.subtract(other.unknown)
        if not other.number or self.number % other.number or min(rest.values(), default=0) < 0:
            return None
        return Size(self.number // other.number, tuple(sorted(rest.elements())))

    @property
    def known(self) -> bool:
        return not self.unknown


ONE = Size(1)
ROWS = Size(1, ("rows",))
Dims = tuple[Size, ...]


def product(sizes: Iterable[Size]) -> Size:
    return math.prod(sizes, start=ONE)


def target(dims: Dims) -> list[int] | None:
    """What a Reshape to these lengths asks for: -1 stands for what is unknown. None where that is more than one."""
    if sum(not size.known for size in dims) > 1:
        return None
    return [size.number if size.known else -1 for size in dims]


def together(sizes: Sequence[Size]) -> Size | None:
    """The length that axes have when they are broadcast; None where it is not one of theirs for certain."""
    longer = {size for size in sizes if size != ONE}
    certain = {size for size in longer if size.known} or longer
    return next(iter(certain or {ONE})) if len(certain) < 2 else None


def tensor(name: str) -> str:
    """ "x" is "x:0"."""
    return name if ":" in name else f"{name}:0"


def sources(node: Any) -> list[str]:
    return [tensor(name) for name in node.input if not name.startswith("^")]


class Dimensions:
    """Of all tensors. `nodes`: each after what it reads; `shapes`: tensor -> what TensorFlow infers. Of inputs, the
    first length is the number of rows where it is not known: the same for all, as in whatever an engine is given."""

    def __init__(self, nodes: Iterable[Any], shapes: Mapping[str, Shape | None]) -> None:
        self._shapes = shapes
        self._dims: dict[str, Dims | None] = {}
        self._values: dict[str, Array] = {}
        for node in nodes:
            name = f"{node.name}:0"
            found = self._value(node, name)
            if found is not None:
                self._values[name] = found
            inferred = self._inferred(node)
            for number in range(axes.results(node)):
                result = f"{node.name}:{number}"
                self._dims[result] = self._refined(result, inferred)

    def of(self, name: str) -> Dims | None:
        """None for a tensor of unknown rank."""
        return self._dims[name] if name in self._dims else self._refined(name, None)

    def value(self, name: str) -> Array | None:
        """The values (each a Size) of a tensor that tells lengths or places."""
        return self._values.get(name)

    def numbers(self, name: str) -> list[int] | None:
        """The same in one row, where all are known."""
        found = self.value(name)
        if found is None or not all(size.known for size in found.ravel()):
            return None
        return [size.number for size in found.ravel()]

    def _refined(self, name: str, inferred: Sequence[Size | None] | None) -> Dims | None:
        shape = self._shapes.get(name)
        if shape is None and inferred is None:
            return None
        if shape is not None and inferred is not None and len(shape) != len(inferred):
            inferred = None
        told = shape if shape is not None else (None,) * len(inferred or ())
        found = inferred if inferred is not None else (None,) * len(told)
        return tuple(
            Size(number) if number is not None else size or Size(1, (f"{name}/{axis}",))
            for axis, (number, size) in enumerate(zip(told, found, strict=True))
        )

    def _inferred(self, node: Any) -> Sequence[Size | None] | None:
        given = sources(node)
        if node.op == "Placeholder":
            shape = self._shapes.get(f"{node.name}:0")
            return None if shape is None else [None if axis else ROWS for axis in range(len(shape))]
        if node.op == "Const":
            return [Size(int(dim.size)) for dim in node.attr["value"].tensor.tensor_shape.dim]
        if node.op == "Reshape":
            return _reshaped(self.of(given[0]), self.value(given[1]))
        if node.op in ("Fill", "BroadcastTo"):
            value = self.value(given[node.op == "BroadcastTo"])
            return None if value is None else [_length(size) for size in value.ravel()]
        links = axes.links(node, self)
        if links is None:
            return None
        sizes: dict[str, list[Size]] = {}
        for name, labels in zip(given, links.inputs, strict=True):
            for label, size in zip(labels or (), self.of(name) or (), strict=False):
                sizes.setdefault(label, []).append(size)
        sizes[slices.NEW] = [ONE]
        return [together(sizes[label]) if label in sizes else None for label in links.output]

    def _value(self, node: Any, name: str) -> Array | None:
        given = sources(node)
        if node.op == "Const":
            return _constant(node)
        if node.op == "Shape":
            dims = self.of(given[0])
            return None if dims is None else _row(dims)
        if node.op == "Rank":
            dims = self.of(given[0])
            return None if dims is None else _held(Size(len(dims)))
        compute = _VALUES.get(node.op)
        values = [self.value(each) for each in given]
        if compute is None or not values or any(value is None for value in values):
            return None
        try:
            found = compute(node, *values)
        except (IndexError, ValueError):  # what TensorFlow would refuse as well
            return None
        if found is None or found.size > _FEW:
            return None
        for place in np.ndindex(found.shape):
            if found[place] is None:
                found[place] = Size(1, (f"{_COMPUTED}{name}/{place}",))
        return found


def _constant(node: Any) -> Array | None:
    proto = node.attr["value"].tensor
    if proto.dtype not in _WHOLE or math.prod(int(dim.size) for dim in proto.tensor_shape.dim) > _FEW:
        return None
    numbers = tensors.to_numpy(proto)
    return _row([Size(int(number)) for number in numbers.ravel()]).reshape(numbers.shape)


def _row(sizes: Sequence[Size]) -> Array:
    found = np.empty(len(sizes), object)
    found[:] = sizes
    return found


def _length(size: Size) -> Size | None:
    """A value as a length: not what may be -1."""
    computed = size.number < 0 or any(name.startswith(_COMPUTED) for name in size.unknown)
    return None if computed else size


def _reshaped(dims: Dims | None, value: Array | None) -> list[Size | None] | None:
    if value is None:
        return None
    asked: list[Size | None] = [_length(size) for size in value.ravel()]
    open_axes = [axis for axis, size in enumerate(asked) if size is None]
    if dims is not None and len(open_axes) == 1:
        asked[open_axes[0]] = product(dims).over(product(size for size in asked if size is not None))
    return asked


def _times(left: Size, right: Size) -> Size | None:
    return left * right


def _known(compute: Callable[[int, int], int]) -> Callable[[Size, Size], Size | None]:
    def apply(left: Size, right: Size) -> Size | None:
        return Size(compute(left.number, right.number)) if left.known and right.known else None

    return apply


def _elementwise(compute: Callable[[Size, Size], Size | None]) -> Callable[..., Array]:
    computed = np.frompyfunc(compute, 2, 1)
    return lambda node, left, right: np.array(computed(left, right), object)


def _numbers(value: Array) -> list[int]:
    if not all(size.known for size in value.ravel()):
        raise ValueError
    return [size.number for size in value.ravel()]


def _sliced(node: Any, value: Array, begin: Array, end: Array, strides: Array) -> Array | None:
    masks = slices.masks(node)
    if masks["ellipsis"] or masks["new_axis"]:
        return None
    index: list[int | slice] = []
    for place, (start, stop, step) in enumerate(zip(*map(_numbers, (begin, end, strides)), strict=True)):
        bit = 1 << place
        if masks["shrink_axis"] & bit:
            index.append(start)
        else:
            ends = None if masks["begin"] & bit else start, None if masks["end"] & bit else stop
            index.append(slice(*ends, step))
    return _held(value[tuple(index)])


def _held(found: Any) -> Array:
    """As an array: what numpy picks out of an array of objects is the object."""
    if isinstance(found, np.ndarray):
        return found
    held = np.empty((), object)
    held[()] = found
    return held


def _gathered(node: Any, value: Array, places: Array, axis: Array) -> Array | None:
    index = np.array(_numbers(places), int).reshape(places.shape)
    return None if constants.told(node, "batch_dims").i else _held(np.take(value, index, _numbers(axis)[0]))


def _counted(node: Any, *ends: Array) -> Array | None:
    numbers = range(*(_numbers(end)[0] for end in ends))
    return _row([Size(number) for number in numbers]) if len(numbers) <= _FEW else None


def _selected(node: Any, condition: Array, then: Array, otherwise: Array) -> Array | None:
    return (then if _numbers(condition)[0] else otherwise) if condition.size == 1 else None


def _prod(node: Any, value: Array, over: Array) -> Array | None:
    # Of a row alone: what is asked for the sizes of.
    return _held(product(value)) if value.ndim == 1 and _numbers(over) in ([0], [-1]) else None


_VALUES: Mapping[str, Callable[..., Array | None]] = {
    "Identity": lambda node, value: value,
    "Cast": lambda node, value: value if node.attr["DstT"].type in _WHOLE else None,
    "StridedSlice": _sliced,
    "GatherV2": _gathered,
    "Prod": _prod,
    "Range": _counted,
    "Pack": lambda node, *values: np.stack(values, int(constants.told(node, "axis").i)),
    "ConcatV2": lambda node, *values: np.concatenate(values[:-1], _numbers(values[-1])[0]),
    "ExpandDims": lambda node, value, axis: np.expand_dims(value, _numbers(axis)[0]),
    "Squeeze": lambda node, value: value.reshape(()) if value.size == 1 else None,
    "Reshape": lambda node, value, shape: value.reshape(_numbers(shape)),
    "Less": _elementwise(_known(lambda left, right: int(left < right))),
    "SelectV2": _selected,
    "Mul": _elementwise(_times),
    "AddV2": _elementwise(_known(int.__add__)),
    "Sub": _elementwise(_known(int.__sub__)),
    "FloorDiv": _elementwise(lambda left, right: left.over(right)),
    "Maximum": _elementwise(_known(max)),
    "Minimum": _elementwise(_known(min)),
}
