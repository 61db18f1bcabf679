"""Makes a fixed length open: the same graph then computes the first 64 of 128 positions alone.

Text models are often exported for one length, filled up behind the text. Here the axes that are the length are followed
from the inputs on, and what was baked in goes with the real one, `tfopt_length`: targets of Reshape, and whatever meets
such an axis with all its positions (position embeddings, masks of constants) is cut to the first of them.

A tensor with such an axis holds the first positions of what it held before, as long as no operation mixes positions.
Those that do (a softmax over positions, a sum over them, attention) are let through: whether padding counts for nothing
there is for a proof to say, which runs both graphs (rewriting.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.passes.constants import told
from tfopt_optimizer.passes.dimensions import ONE, Dimensions, Dims, Size, product, target
from tfopt_optimizer.passes.order import sorted_nodes

LENGTH = "tfopt_length"
_INT32, _INT64 = 3, 9  # DataType
Shape = tuple[int | None, ...]
Axes = frozenset[int]
NONE: Axes = frozenset()

_SAME = frozenset({
    "Identity", "Cast", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "ZerosLike", "OnesLike", "Abs",
    "Neg", "Exp", "Expm1", "Log", "Log1p", "Sqrt", "Rsqrt", "Square", "Reciprocal", "Tanh", "Sigmoid", "Relu", "Relu6",
    "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "Erf", "Erfc", "Sin", "Cos", "Sign", "Floor", "Ceil", "Round",
    "Rint", "LogicalNot", "IsNan", "IsFinite", "IsInf", "Invert", "Softmax", "LogSoftmax", "MatrixBandPart",
})  # fmt: skip
_BROADCAST = frozenset({
    "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "FloorDiv", "Maximum", "Minimum", "SquaredDifference", "Pow",
    "FloorMod", "Mod", "TruncateMod", "DivNoNan", "Xdivy", "Xlogy", "MulNoNan", "Equal", "NotEqual", "Less",
    "LessEqual", "Greater", "GreaterEqual", "LogicalAnd", "LogicalOr", "SelectV2", "AddN", "BitwiseAnd", "BitwiseOr",
    "Select", "ClipByValue",
})  # fmt: skip
_REDUCTIONS = frozenset({"Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "EuclideanNorm"})
_PLACES = frozenset({"ArgMax", "ArgMin"})
_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank"})


def run(
    graph: Any, shapes: Mapping[str, Shape | None], inputs: Mapping[str, int], outputs: Mapping[str, str], size: int
) -> None:
    """Rewrites a frozen GraphDef. `shapes`: of every tensor, by its name ("node:0"); `inputs`: placeholders with the
    axis that is the length, which is `size` in all; `outputs`: nodes with the
    names that people know. NotLowerable names the operation that
    cannot do with another length; the graph is then half rewritten."""
    opening = _Opening(graph, shapes, inputs, size)
    opening.walk()
    for node, name in outputs.items():
        if opening.axes_of(f"{node}:0"):
            raise NotLowerable(f"output {name!r} has the length as an axis")
    for node in graph.node:
        if node.name in inputs:
            node.attr["shape"].shape.dim[inputs[node.name]].size = -1
        if "_output_shapes" in node.attr:
            del node.attr["_output_shapes"]


def pin(graph: Any, size: int) -> None:
    """Makes the length that `run` has opened a constant, so that converters can fold what depends on it."""
    nodes = {node.name: node for node in graph.node}
    length = nodes[LENGTH]
    for node in _placeholders(nodes, length):
        for dim in node.attr["shape"].shape.dim[1:]:
            dim.size = size if dim.size == -1 else dim.size
    length.op = "Const"
    del length.input[:]
    length.attr.clear()
    _hold(length, np.array(size, np.int32))


def _placeholders(nodes: Mapping[str, Any], length: Any) -> list[Any]:
    """Those that share the length: all whose first axis behind the rows is open."""
    assert length.op == "StridedSlice"
    found = [node for node in nodes.values() if node.op == "Placeholder"]
    return [node for node in found if len(node.attr["shape"].shape.dim) > 1]


def _hold(node: Any, array: np.ndarray) -> None:
    """Gives a Const its value."""
    kind = {np.dtype(np.int32): _INT32, np.dtype(np.bool_): 10}[array.dtype]
    node.attr["dtype"].type = kind
    tensor = node.attr["value"].tensor
    tensor.dtype = kind
    tensor.tensor_shape.SetInParent()
    for dim in array.shape:
        tensor.tensor_shape.dim.add(size=dim)
    tensor.tensor_content = array.tobytes()


class _Opening:
    """One graph on its way."""

    def __init__(self, graph: Any, shapes: Mapping[str, Shape | None], inputs: Mapping[str, int], size: int) -> None:
        self._graph, self._inputs, self.size = graph, dict(inputs), size
        self._nodes = {node.name: node for node in graph.node}
        self._order = sorted_nodes(self._nodes)
        self._known = Dimensions(self._order, shapes)
        self._axes: dict[str, Axes] = {}  # tensor -> its axes that are the length now
        self._merged: dict[str, Axes] = {}  # ... that are rows and length in one
        self._cut: dict[tuple[str, int], str] = {}
        self._whole: dict[str, str] = {}  # what was cut -> all of it
        name, axis = next(iter(self._inputs.items()))
        self._node("Shape", f"{LENGTH}/shape", [name], T=self._nodes[name].attr["dtype"].type, out_type=_INT32)
        ends = [
            self._const(f"{LENGTH}/{what}", [value])
            for what, value in (("begin", axis), ("end", axis + 1), ("step", 1))
        ]
        self._node("StridedSlice", LENGTH, [f"{LENGTH}/shape", *ends], T=_INT32, Index=_INT32, shrink_axis_mask=1)

    def walk(self) -> None:
        for node in self._order:
            if node.name in self._inputs:
                self._axes[f"{node.name}:0"] = frozenset({self._inputs[node.name]})
            elif any(self.axes_of(each) or self.merged_of(each) for each in _feeders(node)):
                self._pass(node)
            elif node.op == "BroadcastTo":
                _kept_whole(self, node)

    def axes_of(self, tensor: str) -> Axes:
        return self._axes.get(_first(tensor), NONE)

    def merged_of(self, tensor: str) -> Axes:
        return self._merged.get(_first(tensor), NONE)

    def _pass(self, node: Any) -> None:
        """Finds the axes of a node's results, having rewritten what it reads."""
        if node.op in _SHAPES:
            return
        rule = _RULES.get(node.op)
        if rule is None:
            raise NotLowerable(f"{node.op} {node.name!r} is not known to take another length")
        if any(self.merged_of(each) for each in _feeders(node)) and node.op not in _TAKE_MERGED:
            raise NotLowerable(f"{node.op} {node.name!r} reads rows and positions together")
        rule(self, node)

    # What rules ask and do.

    def is_constant(self, tensor: str) -> bool:
        return bool(self._nodes[tensor.partition(":")[0]].op == "Const")

    def dims(self, node: Any, tensor: str) -> Dims:
        """What a tensor's axes were before, or are where they are not the length."""
        found = self._known.of(self._whole.get(_first(tensor), _first(tensor)))
        if found is None:
            raise NotLowerable(f"{node.op} {node.name!r} has a tensor of unknown rank")
        return found

    def shape(self, node: Any, tensor: str) -> Shape:
        return tuple(size.number if size.known else None for size in self.dims(node, tensor))

    def vector(self, node: Any, tensor: str) -> list[int]:
        """The values of axes or places, which nothing fed decides."""
        found = self._known.numbers(_first(tensor))
        if found is None:
            maker = self._nodes[tensor.partition(":")[0]]
            raise NotLowerable(f"{node.op} {node.name!r} takes its axes or places from {maker.op} {maker.name!r}")
        return found

    def give(self, node: Any, axes: Iterable[int], *, merged: Iterable[int] = (), count: int = 1) -> None:
        """Says which axes of the node's results are the length."""
        for number in range(count):
            self._axes[f"{node.name}:{number}"] = frozenset(axes)
            self._merged[f"{node.name}:{number}"] = frozenset(merged)

    def cut(self, node: Any, number: int, axis: int) -> None:
        """Lets the node read the first positions alone of an input that has all of them on this axis."""
        tensor = node.input[number]
        if axis in self.axes_of(tensor):
            return
        rank = len(self.shape(node, tensor))
        if self.shape(node, tensor)[axis] != self.size:
            raise NotLowerable(f"{node.op} {node.name!r} meets an axis of {self.shape(node, tensor)[axis]} positions")
        key = (_first(tensor), axis)
        if key not in self._cut:
            name = f"{tensor.replace(':', '_')}/{LENGTH}_{axis}"
            zeros, ones = self._const(f"{name}/begin", [0] * rank), self._const(f"{name}/step", [1] * rank)
            end = self._placed(f"{name}/end", [0] * rank, {axis})
            kind = self._kind(node, number)
            mask = (1 << rank) - 1
            self._node(
                *("StridedSlice", name, [tensor, zeros, end, ones]),
                T=kind,
                Index=_INT32,
                begin_mask=mask,
                end_mask=mask & ~(1 << axis),
            )
            self._cut[key] = name
            self._whole[f"{name}:0"] = self._whole.get(_first(tensor), _first(tensor))
            self._axes[f"{name}:0"] = self.axes_of(tensor) | {axis}
        node.input[number] = self._cut[key]

    def _kind(self, node: Any, number: int) -> int:
        """The type of an input."""
        maker = self._nodes[node.input[number].partition(":")[0]]
        for key in ("DstT", "dtype", "Tparams", "out_type", "T"):
            if key in maker.attr:
                return int(told(maker, key).type)
        if node.op in ("SelectV2", "Select") and number == 0:
            return 10
        return 10 if maker.op in _TRUTHS else int(told(node, "T").type)

    def placed(self, node: Any, sizes: Sequence[int], axes: Iterable[int]) -> str:
        """A vector of these numbers with the length at some places."""
        return self._placed(f"{node.name}/{LENGTH}", sizes, set(axes))

    def replaced(self, node: Any, vector: str, axes: Sequence[int], rank: int, *, whole: bool = False) -> str:
        """A vector of sizes with the length at some places, or the `whole` of what it was."""
        if not axes:
            return vector
        if told(node, "Tidx").type != _INT32:
            raise NotLowerable(f"{node.op} {node.name!r} has 64-bit sizes")
        name = f"{node.name}/{LENGTH}"
        there = self._graph.node.add(op="Const", name=f"{name}/there")
        _hold(there, np.array([axis in axes for axis in range(rank)]))
        self._nodes[there.name] = there
        size = self._const(f"{name}/whole", self.size) if whole else LENGTH
        self._node("SelectV2", name, [there.name, size, vector], T=_INT32)
        return name

    def _placed(self, name: str, sizes: Sequence[int], axes: set[int]) -> str:
        if not axes:
            return self._const(name, list(sizes))
        parts = [LENGTH if axis in axes else self._const(f"{name}/{axis}", size) for axis, size in enumerate(sizes)]
        self._node("Pack", name, parts, T=_INT32, N=len(parts), axis=0)
        return name

    def _const(self, name: str, value: Any) -> str:
        node = self._graph.node.add(op="Const", name=name)
        _hold(node, np.array(value, np.int32))
        self._nodes[name] = node
        return name

    def _node(self, op: str, name: str, inputs: list[str], **attributes: int) -> None:
        node = self._graph.node.add(op=op, name=name, input=inputs)
        for key, value in attributes.items():
            setattr(node.attr[key], "type" if key in ("T", "Index", "out_type") else "i", value)
        self._nodes[name] = node


_TRUTHS = frozenset({
    "Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual", "LogicalAnd", "LogicalOr", "LogicalNot", "All",
    "Any", "IsNan", "IsFinite", "IsInf",
})  # fmt: skip


def _first(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _feeders(node: Any) -> list[str]:
    return [each for each in node.input if not each.startswith("^")]


def _same(opening: _Opening, node: Any) -> None:
    opening.give(node, opening.axes_of(node.input[0]), merged=opening.merged_of(node.input[0]))


def _asserted(opening: _Opening, node: Any) -> None:
    """It has no results. What it says of all positions it says of the first ones too."""


def _ensured(opening: _Opening, node: Any) -> None:
    node.op = "Identity"
    del node.attr["shape"]
    _same(opening, node)


def _broadcast(opening: _Opening, node: Any) -> None:
    """Axes are counted from the last; an input with all positions is cut where another has the first ones."""
    given = _feeders(node)
    ranks = [len(opening.shape(node, each)) for each in given]
    merged = [{axis - rank for axis in opening.merged_of(each)} for each, rank in zip(given, ranks, strict=True)]
    wanted = {axis - rank for each, rank in zip(given, ranks, strict=True) for axis in opening.axes_of(each)}
    together = set().union(*merged)
    for number, (each, rank) in enumerate(zip(given, ranks, strict=True)):
        for back in wanted:
            if rank + back >= 0 and opening.shape(node, each)[rank + back] != 1:
                opening.cut(node, number, rank + back)
        for back in together - merged[number]:
            if rank + back >= 0 and opening.shape(node, each)[rank + back] != 1:
                raise NotLowerable(f"{node.op} {node.name!r} joins rows and positions with something else")
    rank = max(ranks)
    opening.give(node, {rank + back for back in wanted}, merged={rank + back for back in together})


def _bias(opening: _Opening, node: Any) -> None:
    axes, rank = opening.axes_of(node.input[0]), len(opening.shape(node, node.input[0]))
    if rank - 1 in axes:
        opening.cut(node, 1, 0)
    _same(opening, node)


def _reduced(opening: _Opening, node: Any) -> None:
    rank = len(opening.shape(node, node.input[0]))
    over = {axis % rank for axis in opening.vector(node, node.input[1])}
    keeps = node.op not in _PLACES and (told(node, "keep_dims").b or told(node, "keepdims").b)
    kept = [axis for axis in opening.axes_of(node.input[0]) if axis not in over]
    opening.give(node, kept if keeps else [axis - sum(o < axis for o in over) for axis in kept])


def _transposed(opening: _Opening, node: Any) -> None:
    order = opening.vector(node, node.input[1])
    opening.give(node, [order.index(axis) for axis in opening.axes_of(node.input[0])])


def _expanded(opening: _Opening, node: Any) -> None:
    rank = len(opening.shape(node, node.input[0]))
    (place,) = opening.vector(node, node.input[1])
    place = place % (rank + 1)
    opening.give(node, [axis + (axis >= place) for axis in opening.axes_of(node.input[0])])


def _squeezed(opening: _Opening, node: Any) -> None:
    shape = opening.shape(node, node.input[0])
    given = [int(axis) % len(shape) for axis in told(node, "squeeze_dims").list.i]
    gone = given or [axis for axis, size in enumerate(shape) if size == 1]
    opening.give(node, [axis - sum(g < axis for g in gone) for axis in opening.axes_of(node.input[0])])


def _packed(opening: _Opening, node: Any) -> None:
    given = _feeders(node)
    rank = len(opening.shape(node, given[0]))
    place, axes = int(told(node, "axis").i) % (rank + 1), frozenset[int]().union(*map(opening.axes_of, given))
    for number, axis in ((n, a) for n in range(len(given)) for a in axes):
        opening.cut(node, number, axis)
    opening.give(node, [axis + (axis >= place) for axis in axes])


def _concatenated(opening: _Opening, node: Any) -> None:
    *given, place = _feeders(node)
    axes = frozenset[int]().union(*map(opening.axes_of, given))
    (along,) = opening.vector(node, place)
    if along % len(opening.shape(node, given[0])) in axes:
        raise NotLowerable(f"{node.op} {node.name!r} puts something before or behind the positions")
    for number, axis in ((n, a) for n in range(len(given)) for a in axes):
        opening.cut(node, number, axis)
    opening.give(node, axes)


def _divided(opening: _Opening, node: Any) -> None:
    """Split, SplitV and Unpack, along another axis."""
    place = 1 if node.op == "Split" else 0
    tensor = node.input[place]
    rank, axes = len(opening.shape(node, tensor)), opening.axes_of(tensor)
    if node.op == "Unpack":
        along, count = int(told(node, "axis").i) % rank, int(told(node, "num").i)
    else:
        (along,) = opening.vector(node, node.input[0 if node.op == "Split" else 2])
        along, count = along % rank, int(told(node, "num_split").i)
    if along in axes:
        raise NotLowerable(f"{node.op} {node.name!r} divides the {opening.size} positions")
    opening.give(node, [a - (node.op == "Unpack" and a > along) for a in axes], count=count)


def _gathered(opening: _Opening, node: Any) -> None:
    params, indices = node.input[0], node.input[1]
    axis = opening.vector(node, node.input[2])[0] if node.op == "GatherV2" else 0
    rank, width = len(opening.shape(node, params)), len(opening.shape(node, indices))
    axis, batch = axis % rank, int(told(node, "batch_dims").i)
    of_params, of_indices = opening.axes_of(params), opening.axes_of(indices)
    if batch:
        raise NotLowerable(f"{node.op} {node.name!r} looks up in every row's own positions")
    if axis in of_params:
        places = opening.vector(node, indices)
        if any(places):
            raise NotLowerable(f"{node.op} {node.name!r} reads position {max(places)}")
    found = [a + (width - 1 if a > axis else 0) for a in of_params if a != axis]
    opening.give(node, [*found, *(axis + a for a in of_indices)])


def _sliced(opening: _Opening, node: Any) -> None:
    tensor = node.input[0]
    shape, axes = opening.shape(node, tensor), opening.axes_of(tensor)
    begin, end, step = (opening.vector(node, each) for each in node.input[1:4])
    masks = {m: int(told(node, f"{m}_mask").i) for m in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    axis, out, found = 0, 0, list[int]()
    for place in range(len(begin)):
        bit = 1 << place
        if masks["ellipsis"] & bit:
            rest = len([p for p in range(place + 1, len(begin)) if not masks["new_axis"] & (1 << p)])
            while axis < len(shape) - rest:
                found += [out] if axis in axes else []
                axis, out = axis + 1, out + 1
        elif masks["new_axis"] & bit:
            out += 1
        elif masks["shrink_axis"] & bit:
            if axis in axes and begin[place] != 0:
                raise NotLowerable(f"{node.op} {node.name!r} reads position {begin[place]}")
            axis += 1
        else:
            if axis in axes:
                start = 0 if masks["begin"] & bit else begin[place]
                stop = opening.size if masks["end"] & bit else end[place]
                if start == 0 and stop >= opening.size and step[place] == 1:
                    found.append(out)
                elif (start, stop) != (0, 1):
                    raise NotLowerable(f"{node.op} {node.name!r} reads positions {start} to {stop}")
            axis, out = axis + 1, out + 1
    found += [out + a - axis for a in axes if a >= axis]
    opening.give(node, found)


def _tiled(opening: _Opening, node: Any) -> None:
    times = opening.vector(node, node.input[1])
    if any(times[axis] != 1 for axis in opening.axes_of(node.input[0])):
        raise NotLowerable(f"{node.op} {node.name!r} repeats the positions")
    opening.give(node, opening.axes_of(node.input[0]))


def _broadcast_to(opening: _Opening, node: Any) -> None:
    shape, given = opening.shape(node, f"{node.name}:0"), opening.shape(node, node.input[0])
    more = len(shape) - len(given)
    axes = [axis + more for axis in opening.axes_of(node.input[0])]
    node.input[1] = opening.replaced(node, node.input[1], axes, len(shape))
    opening.give(node, axes)


def _kept_whole(opening: _Opening, node: Any) -> None:
    """All positions stay all of them where the shape that is asked for is that of ids, which are fewer now."""
    if opening.is_constant(node.input[1]):
        return
    shape, given = opening.shape(node, f"{node.name}:0"), opening.shape(node, node.input[0])
    axes = [axis + len(shape) - len(given) for axis, size in enumerate(given) if size == opening.size]
    node.input[1] = opening.replaced(node, node.input[1], axes, len(shape), whole=True)


def _counted(opening: _Opening, node: Any) -> None:
    if told(node, "reverse").b:
        raise NotLowerable(f"{node.op} {node.name!r} counts from the last position")
    _same(opening, node)


def _one_hot(opening: _Opening, node: Any) -> None:
    rank = len(opening.shape(node, node.input[0]))
    place = int(told(node, "axis").i)
    place = rank if place == -1 else place
    opening.give(node, [axis + (axis >= place) for axis in opening.axes_of(node.input[0])])


def _product(opening: _Opening, node: Any) -> None:
    """MatMul and BatchMatMul: rows of the left, columns of the right, and what is summed over."""
    names = ("transpose_a", "transpose_b") if node.op == "MatMul" else ("adj_x", "adj_y")
    flips = [bool(told(node, name).b) for name in names]
    shapes = [opening.shape(node, each) for each in node.input[:2]]
    ranks = [len(shape) for shape in shapes]
    row = [ranks[0] - (1 if flips[0] else 2), ranks[1] - (2 if flips[1] else 1)]  # what stays of each
    inner = [ranks[0] - (2 if flips[0] else 1), ranks[1] - (1 if flips[1] else 2)]  # what is summed over
    merged = [opening.merged_of(each) for each in node.input[:2]]
    if merged[1] or (merged[0] and merged[0] != {row[0]}):
        raise NotLowerable(f"{node.op} {node.name!r} reads rows and positions together")
    if any(inner[n] in opening.axes_of(node.input[n]) for n in (0, 1)):
        for number in (0, 1):
            opening.cut(node, number, inner[number])
    batch = {
        axis - rank
        for each, rank in zip(node.input[:2], ranks, strict=True)
        for axis in opening.axes_of(each)
        if axis < rank - 2
    }
    for number, rank in enumerate(ranks):
        for back in batch:
            if rank + back >= 0 and shapes[number][rank + back] != 1:
                opening.cut(node, number, rank + back)
    rank = max(ranks)
    found = [rank + back for back in batch]
    found += [rank - 2] if row[0] in opening.axes_of(node.input[0]) else []
    found += [rank - 1] if row[1] in opening.axes_of(node.input[1]) else []
    opening.give(node, found, merged=[rank - 2] if merged[0] else [])


def _summed(opening: _Opening, node: Any) -> None:
    equation = told(node, "equation").s.decode().replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or "->" not in equation:
        raise NotLowerable(f"{node.op} {node.name!r} ({equation}) is not known to take another length")
    given = _feeders(node)
    letters = {terms[number][axis] for number, each in enumerate(given) for axis in opening.axes_of(each)}
    for number, term in enumerate(terms):
        for axis, letter in enumerate(term):
            if letter in letters:
                opening.cut(node, number, axis)
    opening.give(node, [axis for axis, letter in enumerate(right) if letter in letters])


def _reshaped(opening: _Opening, node: Any) -> None:
    """From the sizes before and after: axes between which elements do not move belong together."""
    before, after = opening.dims(node, node.input[0]), opening.dims(node, f"{node.name}:0")
    axes, merged = opening.axes_of(node.input[0]), opening.merged_of(node.input[0])
    found, together = list[int](), list[int]()
    for ins, outs in _groups(before, after):
        mine = [axis for axis in ins if axis in axes or axis in merged]
        if not mine:
            continue
        real = [axis for axis in outs if after[axis] != ONE]
        others = [before[axis] for axis in ins if axis not in mine and before[axis] != ONE]
        if len(mine) == 1 and not others and len(real) == 1:
            (together if mine[0] in merged else found).extend(real)
        elif len(mine) == 1 and len(real) == 1 and not any(size.known for size in others):
            together += real
        elif len(mine) == 1 and mine[0] in merged and len(real) == 2 and after[real[1]] == Size(opening.size):
            found.append(real[1])
        else:
            raise NotLowerable(
                f"Reshape {node.name!r} from {_told(before)} to {_told(after)} mixes positions with others"
            )
    sizes = target(after)
    if sizes is None:
        raise NotLowerable(f"Reshape {node.name!r} makes more than one axis of an unknown size")
    node.input[1] = opening.placed(node, sizes, found)
    node.attr["Tshape"].type = _INT32
    opening.give(node, found, merged=together)


def _told(dims: Dims) -> str:
    return str([size.number if size.known else None for size in dims])


def _groups(before: Dims, after: Dims) -> list[tuple[list[int], list[int]]]:
    """The least runs of axes, before and after, that hold the same elements; the rest is one run."""
    found, ins, outs = list[tuple[list[int], list[int]]](), list[int](), list[int]()
    left, right = list(range(len(before))), list(range(len(after)))
    while left or right:
        mine, theirs = product(before[a] for a in ins), product(after[a] for a in outs)
        if ins and outs and mine == theirs:
            found.append((ins, outs))
            ins, outs = [], []
        elif left and (not right or not ins or theirs.over(mine) is not None):
            ins.append(left.pop(0))
        else:
            outs.append(right.pop(0))
    return [*found, (ins, outs)]


_RULES: Mapping[str, Callable[[_Opening, Any], None]] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(_REDUCTIONS | _PLACES, _reduced),
    **dict.fromkeys(("Cumsum", "Cumprod"), _counted),
    **dict.fromkeys(("Split", "SplitV", "Unpack"), _divided),
    **dict.fromkeys(("Gather", "GatherV2"), _gathered),
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _product),
    "Assert": _asserted,
    "EnsureShape": _ensured,
    "BiasAdd": _bias,
    "Transpose": _transposed,
    "ExpandDims": _expanded,
    "Squeeze": _squeezed,
    "Pack": _packed,
    "ConcatV2": _concatenated,
    "StridedSlice": _sliced,
    "Tile": _tiled,
    "BroadcastTo": _broadcast_to,
    "OneHot": _one_hot,
    "Einsum": _summed,
    "Reshape": _reshaped,
}
_TAKE_MERGED = frozenset({"Reshape", "MatMul", "BiasAdd"}) | _SAME | _BROADCAST
