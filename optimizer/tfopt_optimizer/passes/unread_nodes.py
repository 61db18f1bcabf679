"""The nodes that unread.py leaves: those that compute a part of what they did, and cuts of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tfopt_protos import dtypes, tensors

from tfopt_optimizer.passes import axes, constants, picks, slices
from tfopt_optimizer.passes.dimensions import Array, Dimensions, Dims, sources, target
from tfopt_optimizer.passes.parts import Needs, Part, cut

_BOOL, _INT32, _INT64 = 10, 3, 9  # DataType
_OF_BOOLS = frozenset({"All", "Any", "LogicalAnd", "LogicalNot", "LogicalOr"})
# The attribute that names the type of an input, where it is not T.
_TYPES: Mapping[str, Sequence[str]] = {
    "Cast": ("SrcT",),
    "GatherV2": ("Tparams", "Tindices"),
    "FusedBatchNormV3": ("T", "U", "U", "U", "U"),
}


@dataclasses.dataclass(frozen=True)
class Less:
    """The part of a node's result that is read, and what that takes of its inputs."""

    part: Part
    needs: Needs


def rewrite(graph: Any, order: Sequence[Any], known: Dimensions, less: Mapping[str, Less]) -> None:
    """`order`: the graph's nodes, each after what it reads; `less`: of which a part is enough."""
    writer = _Writer(graph, order, known, less)
    for node in order:
        if node.name in less:
            writer.lessen(node)
        elif picks.picked(node, known) is not None:
            writer.move(node)
    for node in order:
        if node.op == "Shape":  # last: until now they are known as what they were
            writer.restore(node)


def prune(graph: Any, keep: frozenset[str]) -> None:
    """Removes what none of these nodes needs; not the inputs."""
    nodes = {node.name: node for node in graph.node}
    todo = [*keep, *(node.name for node in graph.node if node.op.startswith("Placeholder"))]
    left = set[str]()
    while todo:
        name = todo.pop().lstrip("^").partition(":")[0]
        if name not in left:
            left.add(name)
            todo += nodes[name].input
    for place in reversed(range(len(graph.node))):
        if graph.node[place].name not in left:
            del graph.node[place]
    for node in graph.node:
        if any(name.decode().removeprefix("loc:@") not in left for name in constants.told(node, "_class").list.s):
            del node.attr["_class"]  # it was to be placed beside one that is gone


class _Writer:
    def __init__(self, graph: Any, order: Sequence[Any], known: Dimensions, less: Mapping[str, Less]) -> None:
        self._graph, self._known, self._less = graph, known, less
        self._nodes = {node.name: node for node in order}
        self._names = set(self._nodes)
        self._done: dict[tuple[str, Part], str] = {}

    def lessen(self, node: Any) -> None:
        """Adds the node that computes the part."""
        less = self._less[node.name]
        made = self._add(node.op, node.name)
        for name, value in node.attr.items():
            if name not in ("_class", "_output_shapes"):
                made.attr[name].CopyFrom(value)
        if node.op == "Const":
            array = cut(tensors.to_numpy(node.attr["value"].tensor), less.part)
            made.attr["value"].Clear()
            tensors.fill(made.attr["value"].tensor, array, content=True)
        if node.op == "EnsureShape" and made.attr["shape"].shape.dim:
            made.attr["shape"].shape.dim[less.part.axis].size = -1
        for place, (name, need) in enumerate(zip(sources(node), less.needs, strict=True)):
            made.input.append(
                name if need is None
                else self._part(name, need, _type(node, place)) if isinstance(need, Part)
                else self._constant(f"{made.name}/{place}", need)
            )  # fmt: skip
        made.input.extend(name for name in node.input if name.startswith("^"))
        for number in range(axes.results(node)):
            self._done[f"{node.name}:{number}", less.part] = f"{made.name}:{number}"

    def move(self, node: Any) -> None:
        """Lets a slice count in what is left of its input, by constants: what computed its places may be gone."""
        name = sources(node)[0]
        less = self._less.get(name.partition(":")[0])
        for place, value in picks.moved(node, less.part.begin if less else 0, self._known).items():
            if less or self._nodes[node.input[place].partition(":")[0]].op != "Const":
                node.input[place] = self._constant(f"{node.name}/tfopt_read/{place}", value)
        if less:
            node.input[0] = self._done[name, less.part]

    def restore(self, node: Any) -> None:
        """Makes the lengths of a whole tensor from those of its part, whose length is known."""
        name = sources(node)[0]
        less, dims = self._less.get(name.partition(":")[0]), self._known.of(name)
        if less is None or dims is None:
            return
        kind = _INT64 if constants.told(node, "out_type").type == _INT64 else _INT32
        shape = self._add("Shape", node.name, self._done[name, less.part])
        shape.attr["T"].CopyFrom(node.attr["T"])
        shape.attr["out_type"].type = kind
        factors = [np.ones(len(dims), dtypes.to_numpy(dtypes.name(kind))) for _ in range(2)]
        factors[0][less.part.axis], factors[1][less.part.axis] = less.part.size.number, less.part.count
        more, over = (self._constant(f"{shape.name}/{i}", factor) for i, factor in enumerate(factors))
        multiple = self._add("Mul", node.name, f"{shape.name}:0", more)
        multiple.attr["T"].type = kind
        constants.become(node, "FloorDiv", [f"{multiple.name}:0", over])
        for attribute in [name for name in node.attr if name != "T"]:
            del node.attr[attribute]
        node.attr["T"].type = kind

    def _part(self, name: str, part: Part, dtype: int) -> str:
        """The tensor that holds a part of another, made if there is none yet."""
        if (name, part) not in self._done:
            maker, dims = self._nodes[name.partition(":")[0]], self._known.of(name)
            less = self._less.get(maker.name)
            if maker.op == "Shape":
                made = self._add("Shape", maker.name, self._part(sources(maker)[0], part, maker.attr["T"].type))
                made.attr["T"].CopyFrom(maker.attr["T"])
                made.attr["out_type"].type = _INT64 if constants.told(maker, "out_type").type == _INT64 else _INT32
                self._done[name, part] = f"{made.name}:0"
            elif less is not None:
                assert dims is not None
                given, own = self._done[name, less.part], part.within(less.part)
                self._done[name, part] = self._cut(maker.name, given, less.part.left(dims), own, dtype)
            else:
                assert dims is not None
                self._done[name, part] = self._cut(maker.name, name, dims, part, dtype)
        return self._done[name, part]

    def _cut(self, base: str, name: str, dims: Dims, part: Part, dtype: int) -> str:
        if part.alone(dims):
            return self._slice(base, name, part.axis, part, dtype)
        apart = self._reshape(base, name, part.apart(dims), dtype)
        left = self._slice(base, apart, part.axis + 1, part, dtype)
        return self._reshape(base, left, part.left(dims), dtype)

    def _slice(self, base: str, name: str, axis: int, part: Part, dtype: int) -> str:
        node = self._add("StridedSlice", base, name)
        for place, last in enumerate((part.begin, part.end, 1)):
            numbers = np.full(axis + 1, 1 if place == 2 else 0, np.int32)
            numbers[axis] = last
            node.input.append(self._constant(f"{node.name}/{place}", numbers))
        node.attr["T"].type, node.attr["Index"].type = dtype, _INT32
        whole = (1 << axis) - 1
        ends = {"begin": whole, "end": whole | (1 << axis if not part.end else 0)}  # LAST ends with the axis
        for mask in slices.MASKS:
            node.attr[f"{mask}_mask"].i = ends.get(mask, 0)
        return f"{node.name}:0"

    def _reshape(self, base: str, name: str, dims: Dims, dtype: int) -> str:
        node = self._add("Reshape", base, name)
        shape = target(dims)
        assert shape is not None, "cuttable"
        node.input.append(self._constant(f"{node.name}/shape", np.array(shape, np.int32)))
        node.attr["T"].type, node.attr["Tshape"].type = dtype, _INT32
        return f"{node.name}:0"

    def _add(self, op: str, base: str, *inputs: str) -> Any:
        return self._graph.node.add(op=op, name=self._free(f"{base}/tfopt_read"), input=inputs)

    def _constant(self, name: str, array: Array) -> str:
        node = self._graph.node.add(op="Const", name=self._free(name))
        tensors.fill(node.attr["value"].tensor, array, content=True)
        node.attr["dtype"].type = node.attr["value"].tensor.dtype
        return f"{node.name}:0"

    def _free(self, name: str) -> str:
        number, free = 0, name
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free


def _type(node: Any, place: int) -> int:
    """DataType of a node's input."""
    if node.op in _OF_BOOLS or (node.op in ("Select", "SelectV2") and not place):
        return _BOOL
    names = _TYPES.get(node.op, ())
    return int(constants.told(node, names[place] if place < len(names) else "T").type)
