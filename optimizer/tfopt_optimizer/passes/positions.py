"""What each operation does with axes that are a length which was fixed and is open now (lengths.py).

A rule looks at the axes of what a node reads, has rewritten what cannot stay (a target of Reshape, an input with all
positions), and says which axes of the results are the length. NotLowerable names a node that cannot do with another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.passes.constants import told
from tfopt_optimizer.passes.dimensions import ONE, Dims, Size, product, target

if TYPE_CHECKING:
    from tfopt_optimizer.passes.lengths import Opening

_INT32 = 3  # DataType
SAME = frozenset({
    "Identity", "Cast", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "ZerosLike", "OnesLike", "Abs",
    "Neg", "Exp", "Expm1", "Log", "Log1p", "Sqrt", "Rsqrt", "Square", "Reciprocal", "Tanh", "Sigmoid", "Relu", "Relu6",
    "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "Erf", "Erfc", "Sin", "Cos", "Sign", "Floor", "Ceil", "Round",
    "Rint", "LogicalNot", "IsNan", "IsFinite", "IsInf", "Invert", "Softmax", "LogSoftmax", "MatrixBandPart",
})  # fmt: skip
BROADCAST = frozenset({
    "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "FloorDiv", "Maximum", "Minimum", "SquaredDifference", "Pow",
    "FloorMod", "Mod", "TruncateMod", "DivNoNan", "Xdivy", "Xlogy", "MulNoNan", "Equal", "NotEqual", "Less",
    "LessEqual", "Greater", "GreaterEqual", "LogicalAnd", "LogicalOr", "SelectV2", "AddN", "BitwiseAnd", "BitwiseOr",
    "Select", "ClipByValue",
})  # fmt: skip
REDUCTIONS = frozenset({"Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "EuclideanNorm"})
PLACES = frozenset({"ArgMax", "ArgMin"})


def feeders(node: Any) -> list[str]:
    return [each for each in node.input if not each.startswith("^")]


def _same(opening: Opening, node: Any) -> None:
    opening.give(node, opening.axes_of(node.input[0]), merged=opening.merged_of(node.input[0]))


def _asserted(opening: Opening, node: Any) -> None:
    """It has no results. What it says of all positions it says of the first ones too."""


def _ensured(opening: Opening, node: Any) -> None:
    node.op = "Identity"
    del node.attr["shape"]
    _same(opening, node)


def _broadcast(opening: Opening, node: Any) -> None:
    """Axes are counted from the last; an input with all positions is cut where another has the first ones."""
    given = feeders(node)
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


def _bias(opening: Opening, node: Any) -> None:
    axes, rank = opening.axes_of(node.input[0]), len(opening.shape(node, node.input[0]))
    if rank - 1 in axes:
        opening.cut(node, 1, 0)
    _same(opening, node)


def _reduced(opening: Opening, node: Any) -> None:
    rank = len(opening.shape(node, node.input[0]))
    over = {axis % rank for axis in opening.vector(node, node.input[1])}
    if node.op in PLACES and over & opening.axes_of(node.input[0]):
        # What filling adds moves the place in few rows: trying would not show it.
        raise NotLowerable(f"{node.op} {node.name!r} looks for one of the positions")
    keeps = node.op not in PLACES and (told(node, "keep_dims").b or told(node, "keepdims").b)
    kept = [axis for axis in opening.axes_of(node.input[0]) if axis not in over]
    opening.give(node, kept if keeps else [axis - sum(o < axis for o in over) for axis in kept])


def _transposed(opening: Opening, node: Any) -> None:
    order = opening.vector(node, node.input[1])
    opening.give(node, [order.index(axis) for axis in opening.axes_of(node.input[0])])


def _expanded(opening: Opening, node: Any) -> None:
    rank = len(opening.shape(node, node.input[0]))
    (place,) = opening.vector(node, node.input[1])
    place = place % (rank + 1)
    opening.give(node, [axis + (axis >= place) for axis in opening.axes_of(node.input[0])])


def _squeezed(opening: Opening, node: Any) -> None:
    shape = opening.shape(node, node.input[0])
    given = [int(axis) % len(shape) for axis in told(node, "squeeze_dims").list.i]
    gone = given or [axis for axis, size in enumerate(shape) if size == 1]
    opening.give(node, [axis - sum(g < axis for g in gone) for axis in opening.axes_of(node.input[0])])


def _packed(opening: Opening, node: Any) -> None:
    given = feeders(node)
    rank = len(opening.shape(node, given[0]))
    place, axes = int(told(node, "axis").i) % (rank + 1), frozenset[int]().union(*map(opening.axes_of, given))
    for number, axis in ((n, a) for n in range(len(given)) for a in axes):
        opening.cut(node, number, axis)
    opening.give(node, [axis + (axis >= place) for axis in axes])


def _concatenated(opening: Opening, node: Any) -> None:
    *given, place = feeders(node)
    axes = frozenset[int]().union(*map(opening.axes_of, given))
    (along,) = opening.vector(node, place)
    if along % len(opening.shape(node, given[0])) in axes:
        raise NotLowerable(f"{node.op} {node.name!r} puts something before or behind the positions")
    for number, axis in ((n, a) for n in range(len(given)) for a in axes):
        opening.cut(node, number, axis)
    opening.give(node, axes)


def _divided(opening: Opening, node: Any) -> None:
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


def _gathered(opening: Opening, node: Any) -> None:
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


def _sliced(opening: Opening, node: Any) -> None:
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


def _tiled(opening: Opening, node: Any) -> None:
    times = opening.vector(node, node.input[1])
    if any(times[axis] != 1 for axis in opening.axes_of(node.input[0])):
        raise NotLowerable(f"{node.op} {node.name!r} repeats the positions")
    opening.give(node, opening.axes_of(node.input[0]))


def _broadcast_to(opening: Opening, node: Any) -> None:
    shape, given = opening.shape(node, f"{node.name}:0"), opening.shape(node, node.input[0])
    more = len(shape) - len(given)
    axes = [axis + more for axis in opening.axes_of(node.input[0])]
    node.input[1] = opening.replaced(node, node.input[1], axes, len(shape))
    opening.give(node, axes)


def kept_whole(opening: Opening, node: Any) -> None:
    """BroadcastTo and Fill: all positions stay all of them where the shape that is asked for is that of something
    opened, which has fewer now."""
    fills = node.op == "Fill"
    number = 0 if fills else 1
    if opening.is_constant(node.input[number]):
        return
    shape = opening.shape(node, f"{node.name}:0")
    given = shape if fills else opening.shape(node, node.input[0])
    axes = [axis + len(shape) - len(given) for axis, size in enumerate(given) if size == opening.size]
    node.input[number] = opening.replaced(node, node.input[number], axes, len(shape), whole=True)


def _counted(opening: Opening, node: Any) -> None:
    if told(node, "reverse").b:
        raise NotLowerable(f"{node.op} {node.name!r} counts from the last position")
    _same(opening, node)


def _one_hot(opening: Opening, node: Any) -> None:
    rank = len(opening.shape(node, node.input[0]))
    place = int(told(node, "axis").i)
    place = rank if place == -1 else place
    opening.give(node, [axis + (axis >= place) for axis in opening.axes_of(node.input[0])])


def _product(opening: Opening, node: Any) -> None:
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


def _summed(opening: Opening, node: Any) -> None:
    equation = told(node, "equation").s.decode().replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or "->" not in equation:
        raise NotLowerable(f"{node.op} {node.name!r} ({equation}) is not known to take another length")
    given = feeders(node)
    letters = {terms[number][axis] for number, each in enumerate(given) for axis in opening.axes_of(each)}
    for number, term in enumerate(terms):
        for axis, letter in enumerate(term):
            if letter in letters:
                opening.cut(node, number, axis)
    opening.give(node, [axis for axis, letter in enumerate(right) if letter in letters])


def _reshaped(opening: Opening, node: Any) -> None:
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


RULES: Mapping[str, Callable[[Opening, Any], None]] = {
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(BROADCAST, _broadcast),
    **dict.fromkeys(REDUCTIONS | PLACES, _reduced),
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
TAKE_MERGED = frozenset({"Reshape", "MatMul", "BiasAdd"}) | SAME | BROADCAST
