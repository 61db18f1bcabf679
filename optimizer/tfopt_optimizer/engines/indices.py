"""Where an index comes from, and which values of an input keep it inside what is looked up. Read off NodeDefs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# How an index may travel from an input to a look-up unchanged.
_CARRIERS = frozenset({
    "Identity", "IdentityN", "Reshape", "ExpandDims", "Squeeze", "Cast", "StopGradient", "PreventGradient", "Transpose",
    "StridedSlice", "Slice", "Tile", "Snapshot", "EnsureShape", "Unpack", "Split", "SplitV", "ClipByValue",
})  # fmt: skip
# Clipping is no proof (the bounds may be another table's): what was clipped is held to the limits before that.
_JOINERS = frozenset({"ConcatV2", "Pack", "Maximum", "Minimum"})
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
Limits = tuple[int, int]
Shape = tuple[int | None, ...]
Scalar = Callable[[str], int | None]


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

    def inputs_of(self, index: str, limit: Limits) -> tuple[dict[str, Limits], bool]:
        """What inputs may be so that an index is within `limit`, and whether it is computed from inputs in a way that
        no limit covers."""
        found: dict[str, Limits] = {}
        todo, seen = [(index, limit)], set[tuple[str, Limits]]()
        while todo:
            tensor, (low, high) = todo.pop()
            node = self.maker(tensor)
            if (node.name, (low, high)) in seen:
                continue
            seen.add((node.name, (low, high)))
            if node.name in self.inputs:
                narrow(found, self.inputs[node.name], (low, high))
            elif node.op in _OF_VALUES and _is_first(tensor):
                todo.append((node.input[0], (low, high)))
            elif node.op in _CARRIERS:
                todo.append((node.input[1 if node.op == "Split" else 0], (low, high)))
            elif node.op in _JOINERS:
                todo += [(each, (low, high)) for each in self.feeders(node)]
            elif shifted := self._shifted(node, (low, high)) or self._wrapped(node, (low, high)):
                todo.append(shifted)
            elif not self._bounded(node, (low, high)) and any(self.depends(each) for each in self.feeders(node)):
                return found, True
        return found, False

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
        same = {self._source(t) for t in (less.input[0], added.input[0], tensor)}
        return (tensor, (limit[0] - count, limit[1])) if len(same) == 1 else None

    def _source(self, tensor: str) -> str:
        node = self.maker(tensor)
        while node.op == "Identity":
            tensor = node.input[0]
            node = self.maker(tensor)
        return tensor.removesuffix(":0")

    def _bounded(self, node: Any, limit: Limits) -> bool:
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

    def scalar(self, tensor: str) -> int | None:
        """The value of a whole number that nothing fed decides; None when it is none, or not known."""
        node = self.maker(tensor)
        if node.op != "Const":
            return self._evaluate(tensor)
        proto = node.attr["value"].tensor
        if any(dim.size != 1 for dim in proto.tensor_shape.dim) or node.attr["dtype"].type not in (3, 9):
            return None
        if proto.tensor_content:
            return int.from_bytes(proto.tensor_content, "little", signed=True)
        values = [*proto.int_val, *proto.int64_val]
        return int(values[0]) if values else 0

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


def narrow(limits: dict[str, Limits], name: str, limit: Limits) -> None:
    low, high = limits.get(name, limit)
    limits[name] = (max(low, limit[0]), min(high, limit[1]))


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
