"""Makes a fixed length open: the same graph then computes the first 64 of 128 positions alone.

Text models are often exported for one length, filled up behind the text. Here the axes that are the length are followed
from the inputs on, and what was baked in goes with the real one, `tfopt_length`: targets of Reshape, and whatever meets
such an axis with all its positions (position embeddings, masks of constants) is cut to the first of them.

A tensor with such an axis holds the first positions of what it held before, as long as no operation mixes positions.
Those that do (a softmax over positions, a sum over them, attention) are let through: whether padding counts for nothing
there is for a proof to say, which runs both graphs (rewriting.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.passes import positions
from tfopt_optimizer.passes.constants import told
from tfopt_optimizer.passes.dimensions import Dimensions, Dims
from tfopt_optimizer.passes.order import sorted_nodes

LENGTH = "tfopt_length"
_INT32, _INT64, _BOOL = 3, 9, 10  # DataType
Shape = tuple[int | None, ...]
Axes = frozenset[int]
NONE: Axes = frozenset()

_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank"})


def run(
    graph: Any, shapes: Mapping[str, Shape | None], inputs: Mapping[str, int], outputs: Mapping[str, str], size: int
) -> Opening:
    """Rewrites a frozen GraphDef, and returns what is known of it. `shapes`: of every tensor, by its name ("node:0");
    `inputs`: placeholders with the axis that is the length, which is `size` in all; `outputs`: nodes with the names
    that people know. NotLowerable names the operation that cannot do with another length; the graph is then half
    rewritten."""
    opening = Opening(graph, shapes, inputs, size)
    opening.walk()
    for node, name in outputs.items():
        if opening.axes_of(f"{node}:0") or opening.merged_of(f"{node}:0"):
            raise NotLowerable(f"output {name!r} has the length as an axis")
    for node in graph.node:
        if node.name in inputs:
            node.attr["shape"].shape.dim[inputs[node.name]].size = -1
        if "_output_shapes" in node.attr:
            del node.attr["_output_shapes"]
    return opening


def pin(graph: Any, size: int) -> None:
    """Makes the length that `run` has opened a constant, so that converters can fold what depends on it."""
    nodes = {node.name: node for node in graph.node}
    length = nodes[LENGTH]
    for node in _placeholders(nodes):
        for dim in node.attr["shape"].shape.dim[1:]:
            dim.size = size if dim.size == -1 else dim.size
    length.op = "Const"
    del length.input[:]
    length.attr.clear()
    _hold(length, np.array(size, np.int32))


def _placeholders(nodes: Mapping[str, Any]) -> list[Any]:
    """Those that may have the length: an axis behind the rows."""
    found = [node for node in nodes.values() if node.op == "Placeholder"]
    return [node for node in found if len(node.attr["shape"].shape.dim) > 1]


def _hold(node: Any, array: np.ndarray) -> None:
    """Gives a Const its value."""
    kind = {np.dtype(np.int32): _INT32, np.dtype(np.bool_): _BOOL}[array.dtype]
    node.attr["dtype"].type = kind
    tensor = node.attr["value"].tensor
    tensor.dtype = kind
    tensor.tensor_shape.SetInParent()
    for dim in array.shape:
        tensor.tensor_shape.dim.add(size=dim)
    tensor.tensor_content = array.tobytes()


class Opening:
    """One graph on its way."""

    def __init__(self, graph: Any, shapes: Mapping[str, Shape | None], inputs: Mapping[str, int], size: int) -> None:
        self._graph, self._inputs, self.size = graph, dict(inputs), size
        self.nodes = {node.name: node for node in graph.node}
        self._order = sorted_nodes(self.nodes)
        self._fed = set[str]()  # nodes that may give something else in every call
        for node in self._order:
            if node.op.startswith("Placeholder") or any(map(self.is_fed, positions.feeders(node))):
                self._fed.add(node.name)
        self._known = Dimensions(self._order, shapes)
        self._axes: dict[str, Axes] = {}  # tensor -> its axes that are the length now
        self._merged: dict[str, Axes] = {}  # ... that are rows and length in one
        self._cut: dict[tuple[str, int], str] = {}
        self._whole: dict[str, str] = {}  # what was cut -> all of it
        name, axis = next(iter(self._inputs.items()))
        self.add("Shape", f"{LENGTH}/shape", [name], T=self.nodes[name].attr["dtype"].type, out_type=_INT32)
        ends = [
            self.constant(f"{LENGTH}/{what}", [value])
            for what, value in (("begin", axis), ("end", axis + 1), ("step", 1))
        ]
        self.add("StridedSlice", LENGTH, [f"{LENGTH}/shape", *ends], T=_INT32, Index=_INT32, shrink_axis_mask=1)

    def walk(self) -> None:
        for node in self._order:
            if node.name in self._inputs:
                self._axes[f"{node.name}:0"] = frozenset({self._inputs[node.name]})
            elif any(self.axes_of(each) or self.merged_of(each) for each in positions.feeders(node)):
                self._pass(node)
            elif node.op in ("BroadcastTo", "Fill"):
                positions.kept_whole(self, node)

    def axes_of(self, tensor: str) -> Axes:
        return self._axes.get(_first(tensor), NONE)

    def merged_of(self, tensor: str) -> Axes:
        return self._merged.get(_first(tensor), NONE)

    def _pass(self, node: Any) -> None:
        """Finds the axes of a node's results, having rewritten what it reads."""
        if node.op in _SHAPES:
            return
        rule = positions.RULES.get(node.op)
        if rule is None:
            raise NotLowerable(f"{node.op} {node.name!r} is not known to take another length")
        if any(self.merged_of(each) for each in positions.feeders(node)) and node.op not in positions.TAKE_MERGED:
            raise NotLowerable(f"{node.op} {node.name!r} reads rows and positions together")
        rule(self, node)

    # What rules ask and do.

    def is_fed(self, tensor: str) -> bool:
        """Whether it depends on what is sent."""
        return tensor.partition(":")[0] in self._fed

    def is_constant(self, tensor: str) -> bool:
        return bool(self.nodes[tensor.partition(":")[0]].op == "Const")

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
            maker = self.nodes[tensor.partition(":")[0]]
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
            zeros, ones = self.constant(f"{name}/begin", [0] * rank), self.constant(f"{name}/step", [1] * rank)
            end = self._placed(f"{name}/end", [0] * rank, {axis})
            kind = self.kind(node, number)
            mask = (1 << rank) - 1
            self.add(
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

    def kind(self, node: Any, number: int) -> int:
        """The type of an input."""
        maker = self.nodes[node.input[number].partition(":")[0]]
        if maker.op in _TRUTHS:  # their T is that of what they compare
            return _BOOL
        if maker.op in positions.PLACES:
            return int(told(maker, "output_type").type) or _INT64
        for key in ("DstT", "dtype", "Tparams", "out_type", "T"):
            if key in maker.attr:
                return int(told(maker, key).type)
        if node.op in ("SelectV2", "Select") and number == 0:
            return _BOOL
        return int(told(node, "T").type)

    def placed(self, node: Any, sizes: Sequence[int], axes: Iterable[int]) -> str:
        """A vector of these numbers with the length at some places."""
        return self._placed(f"{node.name}/{LENGTH}", sizes, set(axes))

    def replaced(self, node: Any, vector: str, axes: Sequence[int], rank: int, *, whole: bool = False) -> str:
        """A vector of sizes with the length at some places, or the `whole` of what it was."""
        if not axes:
            return vector
        if told(node, "index_type" if node.op == "Fill" else "Tidx").type != _INT32:
            raise NotLowerable(f"{node.op} {node.name!r} has 64-bit sizes")
        name = f"{node.name}/{LENGTH}"
        there = self._graph.node.add(op="Const", name=f"{name}/there")
        _hold(there, np.array([axis in axes for axis in range(rank)]))
        self.nodes[there.name] = there
        size = self.constant(f"{name}/whole", self.size) if whole else LENGTH
        self.add("SelectV2", name, [there.name, size, vector], T=_INT32)
        return name

    def _placed(self, name: str, sizes: Sequence[int], axes: set[int]) -> str:
        if not axes:
            return self.constant(name, list(sizes))
        parts = [LENGTH if axis in axes else self.constant(f"{name}/{axis}", size) for axis, size in enumerate(sizes)]
        self.add("Pack", name, parts, T=_INT32, N=len(parts), axis=0)
        return name

    def constant(self, name: str, value: Any) -> str:
        node = self._graph.node.add(op="Const", name=name)
        _hold(node, np.array(value, np.int32))
        self.nodes[name] = node
        return name

    def add(self, op: str, name: str, inputs: list[str], **attributes: int) -> str:
        node = self._graph.node.add(op=op, name=name, input=inputs)
        for key, value in attributes.items():
            setattr(node.attr[key], "type" if key[0] == "T" or key in ("Index", "out_type") else "i", value)
        self.nodes[name] = node
        return name


_TRUTHS = frozenset({
    "Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual", "LogicalAnd", "LogicalOr", "LogicalNot", "All",
    "Any", "IsNan", "IsFinite", "IsInf",
})  # fmt: skip


def _first(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"
