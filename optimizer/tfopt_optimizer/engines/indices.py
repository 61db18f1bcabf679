"""Where an index comes from, and which values of an input keep it inside what is looked up. Read off NodeDefs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfopt_optimizer.engines import spans
from tfopt_optimizer.engines.limits import ANY, Limits, Part, impossible, narrow

# How an index may travel from an input to a look-up unchanged.
_CARRIERS = frozenset({
    "Identity", "IdentityN", "Reshape", "ExpandDims", "Squeeze", "Cast", "StopGradient", "PreventGradient", "Transpose",
    "StridedSlice", "Slice", "Tile", "Snapshot", "EnsureShape", "Unpack", "Split", "SplitV", "Gather", "GatherV2",
})  # fmt: skip
_SAME_PLACES = frozenset({"Identity", "Cast", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape"})
_JOINERS = frozenset({"ConcatV2", "Pack"})
_CLIPS = frozenset({"Minimum", "Maximum", "ClipByValue"})
_BOOL = 10  # DataType
_FLOATS = frozenset({1, 2, 14, 19})  # DataType: float, double, bfloat16, half
_EXACT: Limits = (-(1 << 30), 1 << 30)  # floats that every engine makes the same whole numbers of
_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
# What goes in does not decide them.
_BOUNDED = frozenset({"Const", "ReadVariableOp", "RandomUniformInt"})
# Places in what goes in: as many as it is long.
_PLACES = frozenset({"ArgMax", "ArgMin", "TopK", "TopKV2", "Where", "Unique"})
# Values decide the shapes of their results.
_VALUE_SHAPED = frozenset({"Where", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2", "ListDiff"})
# Their first results are values that went in, only the second ones are places.
_OF_VALUES = frozenset({"TopK", "TopKV2", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2"})
_FIRST = frozenset({"values", "y", "z", "output", "product", "activations", "value"})  # of results, in functions
_SUMS = frozenset({"Add", "AddV2", "Sub"})
_SELECTS = frozenset({"Select", "SelectV2"})
_UNKNOWN = frozenset({"Placeholder", "PlaceholderWithDefault", "_Arg", "VarHandleOp"})
_WHOLE = {3: "<i4", 9: "<i8"}  # DataType: int32, int64
FEW = 64  # values of a constant that tells places
Shape = tuple[int | None, ...]
Scalar = Callable[[str], int | None]


class Selection(NamedTuple):
    """Columns of a tensor, as in limits.Part."""

    axis: int
    start: int
    stop: int | None


class Graph:
    """Where a value comes from."""

    def __init__(
        self,
        nodes: Mapping[str, Any],
        inputs: Mapping[str, str],
        tables: Mapping[str, Shape],
        evaluate: Scalar = lambda tensor: None,
        inferred: Callable[[str], Shape | None] = lambda node: None,
    ) -> None:
        self.nodes, self.inputs, self.tables = nodes, inputs, tables
        self._evaluate, self._inferred = evaluate, inferred
        self._known: dict[str, Limits | None] = {}

    def maker(self, tensor: str) -> Any:
        return self.nodes[tensor.partition(":")[0]]

    def feeders(self, node: Any) -> Sequence[str]:
        return [each for each in node.input if not each.startswith("^")]

    def depends(self, tensor: str) -> bool:
        """Whether the values (not only the shape) depend on an input."""
        return tensor.partition(":")[0] in self._dependents

    @functools.cached_property
    def _dependents(self) -> frozenset[str]:
        takers: dict[str, list[Any]] = {}
        for node in self.nodes.values():
            for tensor in self.feeders(node):
                takers.setdefault(tensor.partition(":")[0], []).append(node)

        def followed(found: set[str], shapes: bool) -> set[str]:
            todo = list(found)
            while todo:
                takes = [n for n in takers.get(todo.pop(), ()) if shapes or n.op not in _SHAPES]
                more = {node.name for node in takes} - found
                found |= more
                todo += more
            return found

        by_value = followed(set(self.inputs), shapes=False)
        shaping = {name for name in by_value if name in self.nodes and self.nodes[name].op in _VALUE_SHAPED}
        return frozenset(by_value | followed(shaping, shapes=True))

    def inputs_of(self, index: str, limit: Limits, part: Selection | None = None) -> tuple[dict[Part, Limits], bool]:
        """What inputs may be so that an index (or the `part` of it that counts) is within `limit`, and whether it is
        computed from inputs in a way that no limit covers."""
        found: dict[Part, Limits] = {}
        todo, seen = [(index, limit, part)], set[tuple[str, Limits, Selection | None]]()
        while todo:
            tensor, limit, part = place = todo.pop()
            if place in seen or limit == ANY:
                continue
            seen.add(place)
            node = self.maker(tensor)
            if node.name in self.inputs:
                narrow(found, Part(self.inputs[node.name], *(part or ())), limit)
                continue
            above = self._above(tensor, node, limit)
            if above is not None:
                kept = self._selected(node, tensor, part)
                joined = self._joined(node, part) if node.op in _JOINERS and part is not None else {}
                todo += [(each, own, joined.get(each, kept)) for each, own in above if not joined or each in joined]
            elif not self._bounded(tensor, node, limit) and any(self.depends(each) for each in self.feeders(node)):
                return found, True
        return found, impossible(found)

    def _above(self, tensor: str, node: Any, limit: Limits) -> list[tuple[str, Limits]] | None:
        """What a value comes from, and what that may be; None where it is computed."""
        if spans.within(self.span(tensor), limit):
            return []
        if node.op in _OF_VALUES and _is_first(tensor):
            return [(node.input[0], limit)]
        if node.op in ("Gather", "GatherV2") and (self.depends(node.input[1]) or not self.depends(node.input[0])):
            return None
        if node.op in _CARRIERS:
            floats = node.op == "Cast" and node.attr["SrcT"].type in _FLOATS
            own = (max(limit[0], _EXACT[0]), min(limit[1], _EXACT[1])) if floats else limit
            return [(node.input[1 if node.op == "Split" else 0], own)]
        if node.op in _JOINERS:
            return [(each, limit) for each in self.feeders(node)]
        if node.op in _CLIPS:
            return self._clipped(node, limit)
        found = self._shifted(node, limit) or self._wrapped(node, limit)
        if found is None and node.op in _SELECTS:
            return self._either(self.feeders(node)[1:], limit)
        return None if found is None else [found]

    def _either(self, tensors: Sequence[str], limit: Limits) -> list[tuple[str, Limits]] | None:
        """One of these, as values decide: each must be within, also those that are the same in every call."""
        fixed = [self.scalar(each) for each in tensors if not self.depends(each)]
        if any(value is None or not limit[0] <= value <= limit[1] for value in fixed):
            return None
        return [(each, limit) for each in tensors if self.depends(each)]

    def _joined(self, node: Any, part: Selection) -> Mapping[str, Selection | None]:
        """Which of the tensors that are joined on the last axis a column of the result is in; none where that is not
        known, or one is joined twice."""
        tensors, axis = self.joining(node)
        ranks = {len(shape) + (node.op == "Pack") for shape in map(self.shape, tensors) if shape is not None}
        if (
            part.axis != -1
            or len(set(tensors)) < len(tensors)
            or axis is None
            or {axis} - {-1, *(r - 1 for r in ranks)}
        ):
            return {}
        place = 0
        for tensor in tensors:
            shape = self.shape(tensor)
            size = 1 if node.op == "Pack" else shape[-1] if shape else None
            if size is None:
                return {}
            if place <= part.start < place + size:
                whole = size == 1 or node.op == "Pack"
                return {tensor: None if whole else Selection(-1, part.start - place, part.start - place + 1)}
            place += size
        return {}

    def joining(self, node: Any) -> tuple[Sequence[str], int | None]:
        """The tensors that a node joins, and on which axis."""
        if node.op == "Pack":
            return self.feeders(node), int(node.attr["axis"].i)
        *tensors, axis = self.feeders(node)
        return tensors, self.scalar(axis)

    def depth(self, node: Any) -> int | None:
        """How many axes a row of indices names (GatherNd)."""
        shape = self.shape(node.input[1])
        return shape[-1] if shape else None

    def _selected(self, node: Any, tensor: str, part: Selection | None) -> Selection | None:
        """The part of a node's first input that is left in `part` of its result; None for all of it."""
        if node.op in _SAME_PLACES:
            return part
        own: Selection | None = None
        if node.op == "StridedSlice":
            own = self._sliced(node)
        if node.op == "Unpack" and node.attr["axis"].i:
            number = int(tensor.rpartition(":")[2]) if ":" in tensor else 0
            return Selection(int(node.attr["axis"].i), number, number + 1)
        if node.op == "Split":
            own = self._share(node, tensor)
        return own

    def _share(self, node: Any, tensor: str) -> Selection | None:
        axis, shape = self.scalar(node.input[0]), self.shape(node.input[1])
        size = shape[axis] if axis and shape and -len(shape) <= axis < len(shape) else None
        if not axis or not size:
            return None
        each, number = size // int(node.attr["num_split"].i), int(tensor.rpartition(":")[2]) if ":" in tensor else 0
        return Selection(axis, number * each, (number + 1) * each)

    def _sliced(self, node: Any) -> Selection | None:
        """x[:, 3], x[..., 1:4], x[:, -1]: the columns on the last axis that is cut."""
        begin, end, steps = (self.vector(tensor) for tensor in node.input[1:4])
        masks = {
            name: int(node.attr[f"{name}_mask"].i) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
        }
        if begin is None or end is None or steps is None or set(steps) != {1} or masks["new_axis"]:
            return None
        for place in reversed(range(len(begin))):
            bit = 1 << place
            ellipsis = masks["ellipsis"]
            if ellipsis & bit:
                return None
            open_start, open_stop = bool(masks["begin"] & bit), bool(masks["end"] & bit)
            single = bool(masks["shrink_axis"] & bit)
            if (open_start and open_stop) or (place == 0 and not ellipsis):
                continue
            start = 0 if open_start and not single else begin[place]
            stop = None if open_stop else end[place]
            if single:
                stop = start + 1 or None
            # Counted from the end where there may be any number of axes before.
            axis = place - len(begin) if ellipsis and ellipsis < bit else place
            return Selection(axis, start, stop)
        return None

    def _clipped(self, node: Any, limit: Limits) -> list[tuple[str, Limits]] | None:
        """A bound within the limits does for that side; one beyond them does not."""
        first, *others = self.feeders(node)
        bounds = [self.scalar(each) for each in others]
        if node.op != "ClipByValue" and bounds == [None]:
            first, bounds = others[0], [self.scalar(first)]
        if None in bounds:
            return self._either(self.feeders(node), limit)
        if node.op == "ClipByValue":
            lower, upper = bounds
        else:
            lower, upper = (None, bounds[0]) if node.op == "Minimum" else (bounds[0], None)
        low, high = limit
        if (lower is not None and lower > high) or (upper is not None and upper < low):
            return None
        low = ANY[0] if lower is not None and lower >= low else low
        high = ANY[1] if upper is not None and upper <= high else high
        return [(first, (low, high))]

    def _shifted(self, node: Any, limit: Limits) -> tuple[str, Limits] | None:
        """A sum with a constant: what the other summand may be."""
        if node.op not in _SUMS:
            return None
        first, second = self.feeders(node)
        by = self.scalar(second)
        if by is None and node.op != "Sub":
            first, by = second, self.scalar(first)
        if by is None:
            return None
        by = -by if node.op == "Sub" else by
        return first, (limit[0] - by, limit[1] - by)

    def _wrapped(self, node: Any, limit: Limits) -> tuple[str, Limits] | None:
        """where(x < 0, x + n, x), by which Keras counts negative indices from the end."""
        if node.op not in _SELECTS or limit[0] > 0:
            return None
        condition, negative, tensor = self.feeders(node)
        less, added = self.maker(condition), self.maker(negative)
        if less.op != "Less" or self.scalar(less.input[1]) != 0 or added.op not in ("Add", "AddV2"):
            return None
        count = self.scalar(added.input[1])
        if count is None or count < 0 or count - 1 > limit[1]:
            return None
        same = {self.source(t) for t in (less.input[0], added.input[0], tensor)}
        return (tensor, (limit[0] - count, limit[1])) if len(same) == 1 else None

    def source(self, tensor: str) -> str:
        """The tensor that this one is, handed on as it is."""
        node = self.maker(tensor)
        while node.op == "Identity":
            tensor = node.input[0]
            node = self.maker(tensor)
        return tensor.removesuffix(":0")

    def _bounded(self, tensor: str, node: Any, limit: Limits) -> bool:
        """Whether the result is inside, whatever goes in."""
        if node.op == "FloorMod":
            divisor = self.scalar(node.input[1])
            return divisor is not None and 0 < divisor <= limit[1] + 1 and limit[0] <= 0
        if node.op in _PLACES:
            places = self._places(node)
            return places is not None and limit[0] <= 0 and places <= limit[1] + 1
        return node.op in _BOUNDED or (node.op in _SHAPES and node.name not in self._dependents)

    def _places(self, node: Any) -> int | None:
        """How many places there are to point at; None where that is not known."""
        shape = self.shape(node.input[0])
        if not shape:
            return None
        if node.op in ("ArgMax", "ArgMin"):
            axis = self.scalar(node.input[1])
            return shape[axis] if axis is not None and -len(shape) <= axis < len(shape) else None
        if node.op in ("TopK", "TopKV2"):
            return shape[-1]
        known = [size for size in shape if size is not None]  # Where tells a place on any axis
        return max(known) if len(known) == len(shape) else None

    def span(self, tensor: str) -> Limits | None:
        """The least and the largest that a tensor of whole numbers may hold, whatever goes in; None for not known."""
        if tensor not in self._known:
            self._known[tensor] = None  # what a loop comes back to
            self._known[tensor] = self._span_of(tensor, self.maker(tensor))
        return self._known[tensor]

    def _span_of(self, tensor: str, node: Any) -> Limits | None:
        if node.op == "Const":
            values = self.vector(tensor)
            return (min(values), max(values)) if values else None
        if node.op in _SAME_PLACES:
            return (0, 1) if node.op == "Cast" and node.attr["SrcT"].type == _BOOL else self.span(node.input[0])
        if node.op in spans.KNOWN and node.attr["T"].type in _WHOLE:
            return spans.after(node.op, [self.span(each) for each in self.feeders(node)])
        if node.op in ("Cumsum", "Sum") and node.attr["T"].type in _WHOLE:
            shape, axes, given = self.shape(node.input[0]), self.vector(node.input[1]), self.span(node.input[0])
            sizes = [shape[axis] for axis in axes] if shape is not None and axes is not None else [None]
            return spans.summed(given, math.prod(s or 0 for s in sizes)) if given and None not in sizes else None
        return None

    def scalar(self, tensor: str) -> int | None:
        """The value of a whole number that nothing fed decides; None when it is none, or not known."""
        if self.maker(tensor).op != "Const":
            return self._evaluate(tensor)
        values = self.vector(tensor)
        return values[0] if values is not None and len(values) == 1 else None

    def vector(self, tensor: str) -> list[int] | None:
        """The values of a constant of whole numbers in one row; None for what is none, or of very many."""
        node = self.maker(tensor)
        if node.op != "Const" or node.attr["dtype"].type not in _WHOLE:
            return None
        proto = node.attr["value"].tensor
        count = math.prod(int(dim.size) for dim in proto.tensor_shape.dim)
        if count > FEW:
            return None
        if proto.tensor_content:
            found = np.frombuffer(proto.tensor_content, np.dtype(_WHOLE[node.attr["dtype"].type]))
            return [int(v) for v in found]
        values = [int(v) for v in (*proto.int_val, *proto.int64_val)] or [0]
        return (values + values[-1:] * count)[:count]

    def shape(self, tensor: str) -> Shape | None:
        """Of a variable, a constant, what `tables` names or what is inferred (the first result of a node alone)."""
        node = self.maker(tensor)
        while node.op in ("Identity", "ReadVariableOp", "EnsureShape") and node.name not in self.tables:
            tensor = node.input[0]
            node = self.maker(tensor)
        if node.op == "Const":
            return tuple(int(dim.size) for dim in node.attr["value"].tensor.tensor_shape.dim)
        if not _is_first(tensor):
            return None
        found = self.tables.get(node.name)
        return found if found is not None else self._inferred(node.name)


def _is_first(tensor: str) -> bool:
    """Whether a tensor is its node's first result: "node", "node:0", or in a function "node:values:0"."""
    _, _, result = tensor.partition(":")
    name, _, number = result.partition(":")
    return result in ("", "0") or (number == "0" and name in _FIRST)


def evaluated(tf: Any, definition: Any) -> Scalar:
    """Computes whole numbers of a GraphDef that nothing fed decides, such as a slice of a constant shape."""
    nodes = {node.name: node for node in definition.node}

    def value(tensor: str) -> int | None:
        needed, todo = set[str](), [tensor]
        while todo:
            name = todo.pop().partition(":")[0]
            if nodes[name].op in _UNKNOWN or nodes[name].attr["dtype"].type in (1, 2, 7, 20):
                return None
            if name not in needed:
                needed.add(name)
                todo += [each for each in nodes[name].input if not each.startswith("^")]
        part = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library)
        part.node.extend(nodes[name] for name in needed)
        for node in part.node:
            del node.input[len([each for each in node.input if not each.startswith("^")]) :]
        with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
            tf.graph_util.import_graph_def(part, name="")
            try:
                found = np.asarray(session.run(tensor if ":" in tensor else f"{tensor}:0"))
            except tf.errors.OpError:
                return None
        return int(found.item()) if found.size == 1 and found.dtype.kind in "iu" else None

    return value
