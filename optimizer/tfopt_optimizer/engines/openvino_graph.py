"""What OpenVINO would compute otherwise than TensorFlow for the values that are sent: read off its own form of a model.

    found = guards_of(model)      # limits of the inputs, or why no limit helps, for the shapes that it has

Three things: an index outside a table gives zeros where TensorFlow refuses; 64-bit integers are held in 32 bits; and
what is computed with integers may be computed in 32-bit floats (division, sums, comparisons of what was computed), that
hold whole numbers up to 2^24. What an integer can be is known forward (`ModelGraph.span`, for all that fits into its
type); where that is too much, what may be sent is narrowed backward, as for XLA (indices.py). Loops and branches are
looked at as graphs of their own, whose arguments lead on to the inputs (openvino_bodies.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from tfopt_optimizer.engines import guards, openvino_bodies, spans
from tfopt_optimizer.engines.indices import FEW, Graph, Shape
from tfopt_optimizer.engines.limits import ANY, Bounds, Limits, Part, narrow
from tfopt_optimizer.passes import packing

INT32: Limits = (-(1 << 31), (1 << 31) - 1)
MANY = 1 << 22  # along an axis of unknown length, which is that of some record
EXACT: Limits = (-(1 << 24), 1 << 24)  # what 32-bit floats hold
# OpenVINO's operations by the names that indices.py and guards.py know.
_NAMES = {
    "Parameter": "Placeholder", "Constant": "Const", "Convert": "Cast", "Unsqueeze": "ExpandDims", "Add": "AddV2",
    "Subtract": "Sub", "Multiply": "Mul", "Gather": "GatherV2", "GatherND": "GatherNd", "GatherElements": "GatherNd",
    "EmbeddingBagOffsetsSum": "GatherNd", "EmbeddingBagPackedSum": "GatherNd", "EmbeddingSegmentsSum": "GatherNd",
    "Concat": "ConcatV2", "TopK": "TopKV2", "NonZero": "Where", "ShapeOf": "Shape", "Broadcast": "Tile",
    "VariadicSplit": "SplitV", "Range": "_Range", "Unique": "_Unique",
}  # fmt: skip
_TYPES: Mapping[str, Limits] = {
    "boolean": (0, 1), "i8": (-128, 127), "u8": (0, 255), "i16": (-(1 << 15), (1 << 15) - 1), "u16": (0, (1 << 16) - 1),
    "i32": INT32, "u32": (0, (1 << 32) - 1), "i64": ANY, "u64": (0, ANY[1]),
}  # fmt: skip
_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
# They hand whole numbers on, or look at them one by one: none is computed.
_KEEPING = frozenset({
    "Placeholder", "Const", "Result", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Tile", "StridedSlice", "Slice",
    "Split", "SplitV", "ConcatV2", "GatherV2", "GatherNd", "ScatterUpdate", "ScatterNDUpdate", "ScatterElementsUpdate",
    "Shape", "OneHot", "TopKV2", "Where", "Loop", "TensorIterator", "If", "Cast", "Bucketize", "_Packed",
})  # fmt: skip
_WIDE = frozenset({"i32", "u32", "i64", "u64"})  # the others fit into a float
# Whose results are values of their first inputs, or of all.
_FIRST = frozenset({
    "Reshape", "Squeeze", "ExpandDims", "Transpose", "Tile", "StridedSlice", "Slice", "SplitV", "GatherV2", "GatherNd",
    "Reverse", "ReverseSequence", "ReduceMax", "ReduceMin", "Cast", "TopKV2", "_Packed",
})  # fmt: skip
_AMONG = frozenset({"Reverse", "ReverseSequence", "ReduceMax", "ReduceMin", "_Packed"})
_BLIND = guards.Blind("OpenVINO", outside="where OpenVINO gives zeros")


class Node:
    """One of OpenVINO's operations as a NodeDef."""

    def __init__(self, operation: Any) -> None:
        self.operation, self.name = operation, str(operation.get_name())
        self.op = _NAMES.get(operation.get_type_name(), str(operation.get_type_name()))
        self.input = [f"{s.get_node().get_name()}:{s.get_index()}" for s in operation.input_values()]
        if self.op == "GatherV2" and _places(operation.input_value(1)):
            self.op = "_Packed"
        if self.op == "Split":  # TensorFlow names the axis first
            self.input.reverse()
        self.attr = self._attributes()

    def _attributes(self) -> dict[str, Any]:
        if self.op == "StridedSlice":
            told = self.operation.get_attributes()
            return {m: SimpleNamespace(i=sum(1 << k for k, bit in enumerate(told[m]) if bit)) for m in _MASKS}
        if self.op == "Split":
            return {"num_split": SimpleNamespace(i=self.operation.get_output_size())}
        if self.op == "Cast":  # DataType: float, int64
            return {"SrcT": SimpleNamespace(type=1 if self.kind(self.operation.input_value(0))[0] in "fb" else 9)}
        return {}

    @staticmethod
    def kind(port: Any) -> str:
        """ "i64", "f32", "boolean"."""
        name = str(port.get_element_type().get_type_name())
        return "u8" if name == "boolean" else name

    def types(self) -> list[str]:
        return [str(port.get_element_type().get_type_name()) for port in self.operation.outputs()]


def _places(port: Any) -> bool:
    """Whether it tells which positions there are (packing.py): the server computes it, and all of them are."""
    while port.get_node().get_type_name() in ("Reshape", "Convert"):
        port = port.get_node().input_value(0)
    return port.get_node().get_type_name() == "Parameter" and bool(port.get_names() & packing.INPUTS)


class ModelGraph(Graph):
    """A model, or what is inside a loop or a branch of one. `given`: what is known of its arguments; `hidden`: whether
    what is sent decides that it is reached at all."""

    def __init__(
        self, model: Any, inputs: Mapping[str, str], given: Mapping[str, Limits] | None = None, hidden: bool = False
    ) -> None:
        super().__init__({node.name: node for node in map(Node, model.get_ordered_ops())}, inputs, {})
        self.hidden, self._given = hidden, given or {}
        self._bodies: dict[str, list[openvino_bodies.Body]] = {}
        nodes = self.nodes
        for node in nodes.values():  # each after what it needs
            for number, kind in enumerate(node.types()):
                if kind in _TYPES:
                    self._known[f"{node.name}:{number}"] = self._span(node, number, kind)

    def span(self, tensor: str) -> Limits | None:
        """The least and the largest that a tensor of integers may hold, if all inputs are within 32 bits."""
        return self._known.get(tensor)

    def own(self, tensor: str) -> Limits | None:
        """What a tensor's type holds; None for what is not whole."""
        name, _, number = tensor.partition(":")
        return _TYPES.get(self.nodes[name].types()[int(number)])

    def inside(self, model: Any, inputs: Mapping[str, str], given: Mapping[str, Limits], hidden: bool) -> ModelGraph:
        """Of a model in it, of whose arguments `inputs` depend on what is sent."""
        return ModelGraph(model, inputs, given, hidden)

    def bodies(self, node: Any) -> list[openvino_bodies.Body]:
        if node.name not in self._bodies:
            self._bodies[node.name] = openvino_bodies.of(self, node)
        return self._bodies[node.name]

    def scalar(self, tensor: str) -> int | None:
        """Also of an argument that is the same in every turn."""
        span = self._given.get(tensor.partition(":")[0])
        return span[0] if span is not None and span[0] == span[1] else super().scalar(tensor)

    def vector(self, tensor: str) -> list[int] | None:
        node = self.maker(tensor)
        if node.op != "Const" or node.types()[0] not in _TYPES:
            return None
        data = np.asarray(node.operation.get_data())
        return [int(v) for v in data.ravel()] if data.size <= FEW else None

    def shape(self, tensor: str) -> Shape | None:
        name, _, number = tensor.partition(":")
        found = self.nodes[name].operation.output(int(number or 0)).get_partial_shape()
        if found.rank.is_dynamic:
            return None
        return tuple(None if d.is_dynamic else int(d.get_length()) for d in found)

    def inexact(self, node: Any, limits: dict[Part, Limits]) -> str:
        """Narrows what inputs may be so that what is computed with whole numbers is exact; why that is impossible,
        else ""."""
        if node.op == "Cast":
            demands = [(f"{node.name}:0", INT32)] if node.types() == ["i64"] else []
        else:
            given = [tensor for tensor in node.input if node.op not in _KEEPING and self._wide(tensor)]
            results = [f"{node.name}:{number}" for number in range(len(node.types()))] if given else []
            exact = self._of_remainders(node) if node.op == "FloorMod" else EXACT
            demands = [(tensor, exact) for tensor in (*given, *results) if self._wide(tensor)]
        for tensor, limit in demands:
            carried, computed = self.inputs_of(tensor, limit)
            if computed:
                kind = node.operation.get_type_name()
                return f"it computes with whole numbers that may be large ({kind}), OpenVINO does so in 32-bit floats"
            for part, own in carried.items():
                narrow(limits, part, own)
        return ""

    def _of_remainders(self, node: Any) -> Limits:
        """The multiple below, which is subtracted, must be held by a float too."""
        low, high = self.span(node.input[1]) or INT32
        return (EXACT[0] + max(high, 0), EXACT[1] + min(low, 0))

    def astray(self, node: Any) -> str:
        """OpenVINO 2026.4 looks up in the wrong memory where each row has its own table and there is one row alone, and
        gives what a first turn would have computed where a loop does not turn and its body does not read the result."""
        if any(body.unread for body in self.bodies(node)):
            return (
                f"it has a loop that may not turn at all ({node.name}), of which OpenVINO gives results that it has not"
            )
        count = int(node.operation.get_attributes().get("batch_dims", 0)) if node.op == "GatherV2" else 0
        rows = (self.shape(node.input[0]) or (None,))[:count] if count else ()
        if not count or (None not in rows and math.prod(n or 0 for n in rows) != 1):
            return ""
        return f"it looks up in a table per row ({node.name}), which OpenVINO does wrongly for one row"

    def _wide(self, tensor: str) -> bool:
        name, _, number = tensor.partition(":")
        return self.depends(tensor) and self.nodes[name].types()[int(number)] in _WIDE

    def _above(self, tensor: str, node: Any, limit: Limits) -> list[tuple[str, Limits]] | None:
        found = super()._above(tensor, node, limit)
        if found is not None:
            return found
        if node.op in ("ReduceSum", "CumSum"):
            count = self._summed(node)
            return [(node.input[0], (-(-limit[0] // count), limit[1] // count))]
        if node.op in _AMONG:
            return [(node.input[0], limit)]
        if node.op == "Negative":
            return [(node.input[0], (-limit[1], -limit[0]))]
        if node.op == "Divide" and (divisor := self.scalar(node.input[1]) or 0) > 0:
            return [(node.input[0], (limit[0] * divisor, limit[1] * divisor))]
        if node.op == "Abs" and limit[0] <= 0 <= limit[1]:
            return [(node.input[0], (-limit[1], limit[1]))]
        given = [self.span(each) for each in node.input[:2]]
        if None in given or node.op not in ("AddV2", "Sub", "Mul"):
            return None
        return _product(node, limit, given) if node.op == "Mul" else _sum(node, limit, given)

    def depth(self, node: Any) -> int | None:
        """Of GatherND alone: the others that guards.py knows by its name point otherwise."""
        operation = node.operation
        whole = operation.get_type_name() == "GatherND" and not operation.get_attributes().get("batch_dims", 0)
        return super().depth(node) if whole else None

    def joining(self, node: Any) -> tuple[Sequence[str], int | None]:
        return node.input, int(node.operation.get_attributes()["axis"])

    def _summed(self, node: Any) -> int:
        """How many values each result is the sum of, at most."""
        shape, axes = self.shape(node.input[0]), self.vector(node.input[1])
        if shape is None or axes is None:
            return MANY
        return math.prod(shape[axis] or MANY for axis in axes)

    def _places(self, node: Any) -> int | None:
        if node.op != "TopKV2":
            return super()._places(node)
        shape = self.shape(node.input[0])
        return shape[int(node.operation.get_axis())] if shape else None

    def _span(self, node: Any, number: int, kind: str) -> Limits:
        own = _TYPES[kind]
        given = [self.span(each) for each in node.input]
        if node.op == "Placeholder":
            return self._given.get(node.name, INT32 if kind == "i64" else own)
        if node.op == "Const":
            values = np.asarray(node.operation.get_data())
            return (int(values.min()), int(values.max())) if values.size else (0, 0)
        if not self.depends(f"{node.name}:{number}"):
            return own if kind != "i64" else INT32  # the same in every call of these shapes
        if node.op in ("TopKV2", "Where", "_Unique") and (number or node.op == "Where"):
            places = self._places(node)
            return (0, (places or MANY) - 1)
        found = self._after(node, given)
        if node.op in openvino_bodies.BRANCHES | openvino_bodies.LOOPS:
            found = openvino_bodies.span(self.bodies(node), number)
        # What leaves 32 bits is narrowed where it does, and what leaves a smaller type starts again below.
        return found if found is not None and (kind == "i64" or spans.within(found, own)) else own

    def _after(self, node: Any, given: Sequence[Limits | None]) -> Limits | None:
        if node.op in _FIRST:
            return given[0]
        if node.op == "Split":
            return given[1]
        if node.op == "Bucketize":
            return (0, node.operation.input_value(1).get_shape()[0])
        if node.op in ("ReduceSum", "CumSum"):
            return spans.summed(given[0], self._summed(node)) if given[0] is not None else None
        return spans.after(node.op, given)


def _sum(node: Any, limit: Limits, given: Sequence[Any]) -> list[tuple[str, Limits]] | None:
    """One summand is narrowed by what the other may be; both to halves where that leaves little and there is room."""
    (low, high), (a, b), plus = limit, given, node.op == "AddV2"
    first = (low - b[0], high - b[1]) if plus else (low + b[1], high + b[0])
    second = (low - a[0], high - a[1]) if plus else (a[1] - high, a[0] - low)
    wide, narrowed = max((pair[1] - pair[0], place) for place, pair in enumerate((first, second)))
    if wide >= 0:
        return [(node.input[narrowed], (first, second)[narrowed])]
    half = min(-low, high) // 2
    return [(each, (-half, half)) for each in node.input[:2]] if half >= EXACT[1] // 2 else None


def _product(node: Any, limit: Limits, given: Sequence[Any]) -> list[tuple[str, Limits]] | None:
    """The factor that is not the same in every call is narrowed by the other's largest."""
    for place, other in ((0, given[1]), (1, given[0])):
        if other[0] == other[1] > 0:
            return [(node.input[place], (-(-limit[0] // other[0]), limit[1] // other[0]))]
    largest, least = max(map(abs, given[1])), min(-limit[0], limit[1])
    if node.input[0] == node.input[1] and least >= 0:
        return [(node.input[0], (-math.isqrt(least), math.isqrt(least)))]
    return [(node.input[0], (-(least // largest), least // largest))] if largest and least >= largest else None


@dataclasses.dataclass(frozen=True)
class Found:
    """Limits of inputs; "" or why no limit helps: for what is computed, and for what is looked up (`strays`)."""

    limits: Bounds
    refusal: str = ""
    strays: str = ""


def guards_of(model: Any) -> Found:
    """Of a model as OpenVINO has read it, with its inputs named as the signature's."""
    graph = ModelGraph(model, {port.get_node().get_name(): port.any_name for port in model.inputs})
    limits: dict[Part, Limits] = {}
    for port in model.inputs:
        if port.get_element_type().get_type_name() == "i64":
            narrow(limits, Part(port.any_name), INT32)
    return Found(limits, _inexact(graph, frozenset(graph.nodes), limits), _strays(graph, limits))


def _inexact(graph: ModelGraph, used: frozenset[str], limits: dict[Part, Limits]) -> str:
    """Narrows what inputs may be so that OpenVINO computes as TensorFlow does; why that is impossible, else ""."""
    for node in graph.nodes.values():
        refusal = (graph.inexact(node, limits) if node.name in used else "") or graph.astray(node)
        for body in graph.bodies(node):
            own: dict[Part, Limits] = {}
            refusal = refusal or _of_body(_inexact(body.graph, body.used, own), node)
            if not refusal and not body.hand_out(graph, own, limits):
                refusal = f"it computes with whole numbers that may be large, in a {node.op}"
        if refusal:
            return refusal
    return ""


def _strays(graph: ModelGraph, limits: dict[Part, Limits]) -> str:
    """Narrows what inputs may be so that what is looked up is there; why that is impossible, else ""."""
    for node in graph.nodes.values():
        refusal = guards.look_up(graph, node, limits, _BLIND) if node.op in guards.LOOKUPS else ""
        for body in graph.bodies(node):
            own: dict[Part, Limits] = {}
            refusal = refusal or _of_body(_strays(body.graph, own), node)
            if not refusal and not body.hand_out(graph, own, limits):
                refusal = f"it looks up what it computes from its inputs, in a {node.op}"
        if refusal:
            return refusal
    return ""


def _of_body(refusal: str, node: Any) -> str:
    return f"{refusal}, in a {node.op}" if refusal and ", in a " not in refusal else refusal
