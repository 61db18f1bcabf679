"""What operations become when the axes of rows and positions are one axis of packed positions (packing.py).

A tensor is packed from [rows, length, ...] or [rows * length, ...] to [count, ...]. An operation has a form where it
treats positions apart, and what is behind them has known sizes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.passes import positions
from tfopt_optimizer.passes.constants import told
from tfopt_optimizer.passes.dimensions import ONE, ROWS, Dims
from tfopt_optimizer.passes.lengths import Opening

PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})
_APART = (positions.SAME - {"Softmax", "LogSoftmax", "MatrixBandPart"}) | (positions.BROADCAST - {"Select"})


_INT32 = ("type", 3)  # DataType
_LEFT = frozenset({"_class", "_output_shapes"})  # attributes that are of the old axes, or of the old node


class How(enum.Enum):
    """How a form reads a tensor."""

    PACKED = "packed"
    AS_IS = "as_is"
    FLAT = "flat"  # without its leading axes of one
    BY_POSITION = "by_position"  # [length, ...] or [1, length, ...]: that of each position
    BY_ROW = "by_row"  # [rows, 1, ...]: that of its row
    NUMBERS = "numbers"  # other axes, sizes or places


@dataclasses.dataclass(frozen=True)
class Read:
    """`number`: which input of the node; `numbers`: the values of NUMBERS, else the sizes that a tensor gets first."""

    tensor: str
    how: How
    number: int = 0
    numbers: list[int] | int = 0


@dataclasses.dataclass(frozen=True)
class Form:
    """`attributes`: other ones than the node's, each the field and its value; `keeps`: which of those stay."""

    op: str
    reads: tuple[Read, ...]
    keeps: frozenset[str]
    attributes: Mapping[str, tuple[str, Any]] = dataclasses.field(default_factory=dict)


class _NoForm(Exception):
    """Of an operation."""


def form(node: Any, opening: Opening) -> Form | None:
    """None where it has to be computed for [rows, length]."""
    rule = _RULES.get(node.op)
    if rule is None:
        return None
    try:
        return rule(_Node(node, opening))
    except (_NoForm, NotLowerable):
        return None


class _Node:
    """A node, and what is known of what it reads. `lead`: how many axes its first result has in the place of one."""

    def __init__(self, node: Any, opening: Opening) -> None:
        self.node, self.opening = node, opening
        self.inputs = positions.feeders(node)
        self.dims = opening.dims(node, f"{node.name}:0")
        self.lead = self.leading(f"{node.name}:0")

    def leading(self, tensor: str) -> int:
        found = self.leading_or_none(tensor)
        if found is None:
            raise _NoForm
        return found

    def leading_or_none(self, tensor: str) -> int | None:
        """2 for [rows, length, ...], 1 for [rows * length, ...]."""
        dims = self.opening.dims(self.node, tensor)
        axes, merged = self.opening.axes_of(tensor), self.opening.merged_of(tensor)
        if axes == {1} and not merged and dims[0] == ROWS:
            lead = 2
        elif merged == {0} and not axes:
            lead = 1
        else:
            return None
        return lead if all(size.known for size in dims[lead:]) else None

    def rest(self, tensor: str, lead: int) -> list[int]:
        return [size.number for size in self.opening.dims(self.node, tensor)[lead:]]

    def packed(self, number: int = 0) -> Read:
        tensor = self.inputs[number]
        return Read(tensor, How.PACKED, number, [-1, *self.rest(tensor, self.leading(tensor))])

    def alike(self, number: int = 0) -> Read:
        """Packed, from as many axes as the result."""
        if self.leading(self.inputs[number]) != self.lead:
            raise _NoForm
        return self.packed(number)

    def fixed(self, number: int) -> Read:
        """The same for all rows and positions."""
        tensor = self.inputs[number]
        if self.opening.is_fed(tensor) or self.opening.axes_of(tensor) or self.opening.merged_of(tensor):
            raise _NoForm
        return Read(tensor, How.AS_IS, number)

    def aligned(self, number: int) -> Read:
        """Of what is broadcast: axes are counted from the last."""
        tensor = self.inputs[number]
        if self.leading_or_none(tensor) is not None:
            return self.alike(number)
        dims: Dims = self.opening.dims(self.node, tensor)
        axes, merged = self.opening.axes_of(tensor), self.opening.merged_of(tensor)
        more = len(dims) - (len(self.dims) - self.lead)  # leading axes that it has
        if merged or any(axis >= more for axis in axes):
            raise _NoForm
        lead, sizes = dims[: max(0, more)], [size.number for size in dims[max(0, more) :]]
        if not all(size.known for size in dims[max(0, more) :]):
            raise _NoForm
        if all(size == ONE for size in lead) and not axes:
            return Read(tensor, How.AS_IS, number) if more <= 1 else Read(tensor, How.FLAT, number, sizes)
        if self.lead == 2 and axes == {more - 1} and lead[: more - 1] in ((), (ONE,)):
            return Read(tensor, How.BY_POSITION, number, [-1, *sizes])
        if self.lead == 2 and not axes and lead == (ROWS, ONE):
            return Read(tensor, How.BY_ROW, number, [-1, *sizes])
        raise _NoForm

    def axis(self, axis: int, rank: int, lead: int) -> int:
        """Where an axis behind the positions is in what is packed."""
        if axis % rank < lead:
            raise _NoForm
        return axis % rank - lead + 1

    def vector(self, number: int) -> list[int]:
        return self.opening.vector(self.node, self.inputs[number])

    def becomes(self, *reads: Read, **attributes: tuple[str, Any]) -> Form:
        return Form(self.node.op, reads, frozenset(self.node.attr) - _LEFT, attributes)


def _numbers(value: list[int] | int) -> Read:
    return Read("", How.NUMBERS, numbers=value)


def _apart(node: _Node) -> Form:
    if node.node.op == "AddN":
        return node.becomes(*(node.alike(number) for number in range(len(node.inputs))))
    return node.becomes(*(node.aligned(number) for number in range(len(node.inputs))))


def _bias(node: _Node) -> Form:
    if len(node.dims) == node.lead or told(node.node, "data_format").s == b"NCHW":
        raise _NoForm
    return node.becomes(node.alike(), node.fixed(1))


def _last(node: _Node) -> Form:
    if len(node.dims) == node.lead:
        raise _NoForm
    return node.becomes(node.alike())


def _reduced(node: _Node) -> Form:
    rank = len(node.opening.dims(node.node, node.inputs[0]))
    lead = node.leading(node.inputs[0])
    over = node.vector(1)
    places = [node.axis(axis, rank, lead) for axis in over]
    scalar = node.node.op in ("ArgMax", "ArgMin")
    return node.becomes(node.alike(), _numbers(places[0] if scalar else places), Tidx=_INT32)


def _transposed(node: _Node) -> Form:
    order = node.vector(1)
    lead = node.leading(node.inputs[0])
    if order[:lead] != list(range(lead)):
        raise _NoForm
    moved = [0, *(axis - lead + 1 for axis in order[lead:])]
    return node.becomes(node.alike(), _numbers(moved), Tperm=_INT32)


def _reshaped(node: _Node) -> Form:
    sizes = [-1, *node.rest(f"{node.node.name}:0", node.lead)]
    return node.becomes(node.packed(), _numbers(sizes), Tshape=_INT32)


def _expanded(node: _Node) -> Form:
    rank = len(node.opening.dims(node.node, node.inputs[0]))
    (place,) = node.vector(1)
    return node.becomes(node.alike(), _numbers(node.axis(place, rank + 1, node.lead)), Tdim=_INT32)


def _squeezed(node: _Node) -> Form:
    rank = len(node.opening.dims(node.node, node.inputs[0]))
    given = list(told(node.node, "squeeze_dims").list.i)
    if not given:
        raise _NoForm
    gone = [node.axis(int(axis), rank, node.lead) for axis in given]
    return node.becomes(node.alike(), squeeze_dims=("list", gone))


def _concatenated(node: _Node) -> Form:
    count = len(node.inputs) - 1
    place = node.axis(node.vector(count)[0], len(node.dims), node.lead)
    return node.becomes(*(node.alike(number) for number in range(count)), _numbers(place), Tidx=_INT32)


def _divided(node: _Node) -> Form:
    number = 1 if node.node.op == "Split" else 0
    rank = len(node.opening.dims(node.node, node.inputs[number]))
    place = node.axis(node.vector(0 if number else 2)[0], rank, node.lead)
    read = node.alike(number)
    if number:
        return node.becomes(_numbers(place), read)
    return node.becomes(read, node.fixed(1), _numbers(place))


def _gathered(node: _Node) -> Form:
    table = node.fixed(0)
    if told(node.node, "batch_dims").i or (node.node.op == "GatherV2" and node.vector(2) != [0]):
        raise _NoForm
    read = node.alike(1)
    if node.node.op == "Gather":
        return node.becomes(table, read)
    return node.becomes(table, read, _numbers(0), Taxis=_INT32)


def _product(node: _Node) -> Form:
    if node.node.op == "MatMul":
        if told(node.node, "transpose_a").b:
            raise _NoForm
        return node.becomes(node.alike(), node.fixed(1))
    left, right = (node.opening.dims(node.node, tensor) for tensor in node.inputs)
    if (len(left), len(right)) != (3, 2) or told(node.node, "adj_x").b:
        raise _NoForm
    kind = told(node.node, "T" if "T" in node.node.attr else "Ta")
    flip = told(node.node, "adj_y").b
    if node.node.op == "BatchMatMulV3" and {told(node.node, name).type for name in ("Tb", "Tout")} != {kind.type}:
        raise _NoForm
    attributes = {"T": ("type", kind.type), "transpose_b": ("b", flip)}
    return Form("MatMul", (node.alike(), node.fixed(1)), frozenset(), attributes)


def _summed(node: _Node) -> Form:
    equation = told(node.node, "equation").s.decode().replace(" ", "")
    given, _, result = equation.partition("->")
    terms = given.split(",")
    if node.lead != 2 or len(terms) != 2 or "." in equation or "->" not in equation:
        raise _NoForm
    read, weights = node.alike(), node.fixed(1)
    row, place = terms[0][:2]
    if row == place or result[:2] != row + place or {row, place} & set(terms[1]):
        raise _NoForm
    packed = f"{row}{terms[0][2:]},{terms[1]}->{row}{result[2:]}"
    return node.becomes(read, weights, equation=("s", packed.encode()))


_RULES: Mapping[str, Callable[[_Node], Form]] = {
    **dict.fromkeys(_APART, _apart),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _last),
    **dict.fromkeys(positions.REDUCTIONS | positions.PLACES, _reduced),
    **dict.fromkeys(("Gather", "GatherV2"), _gathered),
    **dict.fromkeys(("Split", "SplitV"), _divided),
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _product),
    "BiasAdd": _bias,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "ExpandDims": _expanded,
    "Squeeze": _squeezed,
    "ConcatV2": _concatenated,
    "Einsum": _summed,
}
