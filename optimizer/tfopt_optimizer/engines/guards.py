"""What plain TensorFlow would refuse for its values and XLA computes all the same: indices outside a table (XLA clamps
them), assertions (it drops them), a division of integers by zero.

    limits, refusal = find(graph, inputs, tables)

`limits` are the values of an input that every look-up it feeds can take; the runner declines others, and TensorFlow
answers in its own words. `refusal` names what cannot be bounded by an input alone: the engine does not take it then.
Read off the graph in which function calls are inlined; what loops and branches hold inside is not looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

# How an index may travel from an input to a look-up unchanged.
_CARRIERS = frozenset({
    "Identity", "IdentityN", "Reshape", "ExpandDims", "Squeeze", "Cast", "StopGradient", "PreventGradient", "Transpose",
    "StridedSlice", "Slice", "Tile", "Snapshot", "EnsureShape", "Unpack", "Split", "SplitV", "ClipByValue",
})  # fmt: skip
# Clipping is no proof (the bounds may be another table's): what was clipped is held to the limits before that.
_JOINERS = frozenset({"ConcatV2", "Pack", "Maximum", "Minimum"})
_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
# Whose results fit the axis they were made for, whatever goes in.
_BOUNDED = frozenset({
    "ArgMax", "ArgMin", "TopK", "TopKV2", "Where", "Range", "Shape", "ShapeN", "Size", "Rank", "Const", "Unique",
    "ReadVariableOp", "RandomUniformInt", "ZerosLike", "OnesLike",
})  # fmt: skip
# Type -> (which input is the table, which the indices).
_LOOKUPS = {
    "Gather": (0, 1), "GatherV2": (0, 1), "ResourceGather": (0, 1), "GatherNd": (0, 1), "ResourceGatherNd": (0, 1),
}  # fmt: skip
_INTEGERS = frozenset({3, 4, 5, 6, 9, 17, 22, 23})  # DataType: int32, uint8, int16, int8, int64, uint16, uint32, uint64
# Others that check a value: type -> which input. Only constants pass.
_CHECKED = {
    "ScatterNd": 0, "TensorScatterUpdate": 1, "TensorScatterAdd": 1, "TensorScatterSub": 1, "TensorScatterMax": 1,
    "TensorScatterMin": 1, "UnsortedSegmentSum": 1, "UnsortedSegmentMax": 1, "UnsortedSegmentMin": 1,
    "UnsortedSegmentProd": 1, "ReverseSequence": 1, "CheckNumerics": 0, "CheckNumericsV2": 0, "InvertPermutation": 0,
}  # fmt: skip
_DIVISIONS = frozenset({"FloorDiv", "FloorMod", "Mod", "Div", "TruncateDiv", "TruncateMod"})
Limits = tuple[int, int]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Guards:
    """Inclusive limits by input name, and "" or why the signature cannot be taken."""

    limits: Mapping[str, Limits]
    refusal: str = ""


def find(
    nodes: Iterable[Any], inputs: Mapping[str, str], tables: Mapping[str, Shape], asserting: Collection[str] = ()
) -> Guards:
    """`nodes` of a GraphDef without function calls; `inputs`: node name -> the signature's input; `tables`: node name
    of a captured variable -> its shape; `asserting`: functions that hold an assertion."""
    graph = Graph({node.name: node for node in nodes}, inputs, tables)
    limits: dict[str, Limits] = {}
    for node in graph.nodes.values():
        if node.op in _LOOKUPS:
            refusal = _look_up(graph, node, limits)
        elif _asserts(node, asserting) and graph.depends(node.input[0]):
            refusal = f"it asserts something of its inputs ({node.name}), which XLA drops"
        elif node.op in _DIVISIONS and node.attr["T"].type in _INTEGERS and graph.depends(node.input[1]):
            refusal = f"it divides integers by what its inputs say ({node.name}), and XLA does not notice a zero"
        elif node.op in _CHECKED and graph.depends(node.input[_CHECKED[node.op]]):
            refusal = f"TensorFlow checks what {node.name} ({node.op}) is given, XLA does not"
        else:
            continue
        if refusal:
            return Guards(limits, refusal)
    return Guards(limits)


def _asserts(node: Any, asserting: Collection[str]) -> bool:
    """An assertion, or the branch that Keras and tf.debugging wrap one in."""
    branches = {node.attr[name].func.name for name in ("then_branch", "else_branch")} if "If" in node.op else set()
    return node.op == "Assert" or not branches.isdisjoint(asserting)


class Graph:
    """Where a value comes from."""

    def __init__(self, nodes: Mapping[str, Any], inputs: Mapping[str, str], tables: Mapping[str, Shape]) -> None:
        self.nodes, self.inputs, self.tables = nodes, inputs, tables

    def maker(self, tensor: str) -> Any:
        return self.nodes[tensor.partition(":")[0]]

    def feeders(self, node: Any) -> list[str]:
        return [each for each in node.input if not each.startswith("^")]

    def depends(self, tensor: str) -> bool:
        """Whether the values (not only the shape) depend on an input."""
        todo, seen = [tensor], set[str]()
        while todo:
            node = self.maker(todo.pop())
            if node.name in self.inputs:
                return True
            if node.name not in seen and node.op not in _SHAPES:
                seen.add(node.name)
                todo += self.feeders(node)
        return False

    def indices(self, tensor: str) -> tuple[set[str], bool]:
        """The inputs that these indices are, and whether some are computed from inputs in a way no limit covers."""
        carried: set[str] = set()
        todo, seen = [tensor], set[str]()
        while todo:
            node = self.maker(todo.pop())
            if node.name in seen:
                continue
            seen.add(node.name)
            if node.name in self.inputs:
                carried.add(self.inputs[node.name])
            elif node.op in _CARRIERS:
                todo.append(node.input[1 if node.op == "Split" else 0])
            elif node.op in _JOINERS:
                todo += self.feeders(node)
            elif node.op not in _BOUNDED and any(self.depends(each) for each in self.feeders(node)):
                return carried, True
        return carried, False

    def shape(self, tensor: str) -> Shape | None:
        """Of a variable or a constant; None for what is computed."""
        node = self.maker(tensor)
        while node.op in ("Identity", "ReadVariableOp", "EnsureShape") and node.name not in self.tables:
            node = self.maker(node.input[0])
        if node.op == "Const":
            return tuple(int(dim.size) for dim in node.attr["value"].tensor.tensor_shape.dim)
        return self.tables.get(node.name)


def _look_up(graph: Graph, node: Any, limits: dict[str, Limits]) -> str:
    """Narrows the limits of the inputs that the indices are; why that is impossible, "" when it is not."""
    carried, computed = graph.indices(node.input[1])
    if computed:
        return f"it looks up what it computes from its inputs ({node.name}), which XLA clamps"
    if not carried:
        return ""
    size = None if node.op.endswith("Nd") else _rows(graph, node)
    if size is None:
        return f"it looks its inputs up in a table of unknown size ({node.name}), where XLA clamps"
    for name in carried:
        low, high = limits.get(name, (0, size - 1))
        limits[name] = (max(low, 0), min(high, size - 1))
    return ""


def _rows(graph: Graph, node: Any) -> int | None:
    """The length of the axis that is looked up."""
    shape = graph.shape(node.input[0])
    axis: int | None = int(node.attr["batch_dims"].i) if node.op == "ResourceGather" else 0
    if node.op == "GatherV2":
        axis = _scalar(graph.maker(node.input[2]))
    return shape[axis] if shape is not None and axis is not None and -len(shape) <= axis < len(shape) else None


def _scalar(node: Any) -> int | None:
    if node.op != "Const":
        return None
    proto = node.attr["value"].tensor
    if proto.tensor_content:
        return int.from_bytes(proto.tensor_content, "little", signed=True)
    values = [*proto.int_val, *proto.int64_val]
    return int(values[0]) if values else 0


def read(tf: Any, concrete: Any, names: Iterable[str]) -> Guards:
    """The guards of a traced function whose first inputs are `names`, its captured ones variables."""
    from tensorflow.python.framework.convert_to_constants import _run_inline_graph_optimization

    given = list(names)
    inlined = _run_inline_graph_optimization(concrete, lower_control_flow=False, aggressive_inlining=True)
    places = [tensor.op.name for tensor in concrete.inputs]
    tables = {}
    for place, captured in zip(places[len(given) :], concrete.captured_inputs, strict=True):
        data = getattr(captured, "_handle_data", None)
        if captured.dtype == tf.resource and data is not None and data.is_set and data.shape_and_type:
            shape = tf.TensorShape(data.shape_and_type[0].shape)
        elif captured.dtype != tf.resource:
            shape = captured.shape
        else:
            continue
        if shape.is_fully_defined():
            tables[place] = tuple(shape.as_list())
    asserting = {f.signature.name for f in inlined.library.function if any(n.op == "Assert" for n in f.node_def)}
    return find(inlined.node, dict(zip(places, given, strict=False)), tables, asserting)
