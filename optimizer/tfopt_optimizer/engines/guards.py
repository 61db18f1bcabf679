"""What plain TensorFlow would refuse for its values and XLA computes all the same: indices outside a table (XLA clamps
them), assertions (it drops them), a division of integers by zero.

    limits, refusal = find(graph, inputs, tables)

`limits` are the values of an input that every look-up it feeds can take; the runner declines others, and TensorFlow
answers in its own words. `refusal` names what cannot be bounded by an input alone: the engine does not take it then.
Read off the graph in which function calls are inlined, and off the loops, branches and calls that are left in it: what
they hold is looked at as a graph of its own, whose inputs are the arguments that depend on an input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from tfopt_optimizer.engines.indices import Graph, Limits, Scalar, Shape, evaluated, narrow

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
    "SparseSoftmaxCrossEntropyWithLogits": 1, "MatrixInverse": 0, "MatrixSolve": 0, "Bincount": 0, "DenseBincount": 0,
    "TensorListGetItem": 1, "TensorListSetItem": 1, "Slice": 1, "SegmentSum": 1, "SegmentSumV2": 1, "SegmentProdV2": 1,
    "SegmentMinV2": 1, "SegmentMaxV2": 1,
}  # fmt: skip
_DIVISIONS = frozenset({"FloorDiv", "FloorMod", "Mod", "Div", "TruncateDiv", "TruncateMod"})
# Type -> (attributes that name what is called, the first input that it is given).
_CALLERS = {
    "While": (("cond", "body"), 0), "StatelessWhile": (("cond", "body"), 0),
    "If": (("then_branch", "else_branch"), 1), "StatelessIf": (("then_branch", "else_branch"), 1),
    "Case": (("branches",), 1), "StatelessCase": (("branches",), 1),
    "PartitionedCall": (("f",), 0), "StatefulPartitionedCall": (("f",), 0),
}  # fmt: skip
Functions = Mapping[str, Any]  # FunctionDefs by name


@dataclasses.dataclass(frozen=True)
class Guards:
    """Inclusive limits by input name; "" or why the signature cannot be taken, and the node that stands in the way."""

    limits: Mapping[str, Limits]
    refusal: str = ""
    node: str = ""


def find(
    nodes: Iterable[Any],
    inputs: Mapping[str, str],
    tables: Mapping[str, Shape],
    functions: Functions | None = None,
    evaluate: Scalar = lambda tensor: None,
) -> Guards:
    """`nodes` of a GraphDef; `inputs`: node name -> the signature's input; `tables`: node name of a captured variable
    (or of anything else whose shape is known) -> its shape; `functions`: those that the nodes call; `evaluate` computes
    a whole number that nothing fed decides."""
    called = functions or {}
    graph = Graph({node.name: node for node in nodes}, inputs, tables, evaluate)
    asserting = {name for name in called if "Assert" in _kinds(name, called)}
    limits: dict[str, Limits] = {}
    for node in graph.nodes.values():
        refusal = _refusal(graph, node, limits, asserting) or _inside(graph, node, limits, called)
        if refusal:
            return Guards(limits, refusal, node.name)
    return Guards(limits)


def _refusal(graph: Graph, node: Any, limits: dict[str, Limits], asserting: set[str]) -> str:
    if node.op in _LOOKUPS:
        return _look_up(graph, node, limits)
    if _asserts(node, asserting) and graph.depends(node.input[0]):
        return f"it asserts something of its inputs ({node.name}), which XLA drops"
    if node.op in _DIVISIONS and node.attr["T"].type in _INTEGERS and graph.depends(node.input[1]):
        return f"it divides integers by what its inputs say ({node.name}), and XLA does not notice a zero"
    if node.op == "Pow" and node.attr["T"].type in _INTEGERS and graph.depends(node.input[1]):
        return f"it raises integers to what its inputs say ({node.name}), and XLA does not notice a negative power"
    if node.op in _CHECKED and graph.depends(node.input[_CHECKED[node.op]]):
        return f"TensorFlow checks what {node.name} ({node.op}) is given, XLA does not"
    return ""


def _asserts(node: Any, asserting: set[str]) -> bool:
    """An assertion, or the branch that Keras and tf.debugging wrap one in."""
    branches = {node.attr[name].func.name for name in ("then_branch", "else_branch")} if "If" in node.op else set()
    return node.op == "Assert" or not branches.isdisjoint(asserting)


def _kinds(name: str, functions: Functions) -> set[str]:
    """Of the operations in a function, however deep."""
    kinds, todo, seen = set[str](), [name], set[str]()
    while todo:
        one = todo.pop()
        if one in functions and one not in seen:
            seen.add(one)
            for node in functions[one].node_def:
                kinds.add(node.op)
                todo += _called(node)
    return kinds


def _called(node: Any) -> list[str]:
    found = []
    for attribute in _CALLERS.get(node.op, ((), 0))[0]:
        value = node.attr[attribute]
        found += [value.func.name] if value.HasField("func") else [f.name for f in value.list.func]
    return found


def _inside(graph: Graph, node: Any, limits: dict[str, Limits], functions: Functions) -> str:
    """The refusal of what a node calls. Limits of arguments narrow those of the inputs that they are."""
    bodies = [functions[name] for name in _called(node) if name in functions]
    if not bodies:
        return ""
    given = graph.feeders(node)[_CALLERS[node.op][1] :]
    loop = "While" in node.op
    depending = {i for i, tensor in enumerate(given) if graph.depends(tensor)}
    if loop:
        depending = _carried_on(bodies[-1], depending)
    for body in bodies:
        names = [arg.name for arg in body.signature.input_arg]
        arguments = [_Argument(name) for name in names]
        shapes = {n: shape for n, t in zip(names, given, strict=True) if (shape := graph.shape(t)) is not None}
        found = find([*arguments, *body.node_def], {names[i]: names[i] for i in sorted(depending)}, shapes, functions)
        if found.refusal:
            return f"{found.refusal}, in {node.name}" if node.op not in found.refusal else found.refusal
        for name, limit in found.limits.items():
            place = names.index(name)
            if loop and not _kept(bodies[-1], place):
                return f"it looks up what a loop computes ({node.name}), which XLA clamps"
            carried, computed = graph.inputs_of(given[place], limit)
            if computed:
                return f"it looks up what it computes from its inputs ({node.name}), which XLA clamps"
            for each, own in carried.items():
                narrow(limits, each, own)
    return ""


@dataclasses.dataclass(frozen=True)
class _Argument:
    """A function's argument in the place of a NodeDef."""

    name: str
    op: str = "_Arg"
    input: tuple[str, ...] = ()


def _carried_on(body: Any, depending: set[int]) -> set[int]:
    """Which of a loop's variables depend on an input once it has turned often enough."""
    names = [arg.name for arg in body.signature.input_arg]
    found = set(depending)
    while True:
        inner = Graph(_by_name(body), {names[i]: names[i] for i in found}, {})
        results = [body.ret[out.name] for out in body.signature.output_arg]
        more = {i for i, tensor in enumerate(results) if inner.depends(tensor)} - found
        if not more:
            return found
        found |= more


def _by_name(body: Any) -> dict[str, Any]:
    arguments: list[Any] = [_Argument(arg.name) for arg in body.signature.input_arg]
    return {node.name: node for node in [*arguments, *body.node_def]}


def _kept(body: Any, place: int) -> bool:
    """Whether a loop's variable leaves its body as it came."""
    nodes, tensor = _by_name(body), body.ret[body.signature.output_arg[place].name]
    while (node := nodes[tensor.partition(":")[0]]).op == "Identity":
        tensor = node.input[0]
    return bool(node.name == body.signature.input_arg[place].name)


def _look_up(graph: Graph, node: Any, limits: dict[str, Limits]) -> str:
    """Narrows the limits of the inputs that the indices are; why that is impossible, "" when it is not."""
    size = None if node.op.endswith("Nd") else _rows(graph, node)
    carried, computed = graph.inputs_of(node.input[1], (0, (size or 1) - 1))
    if size is None and (carried or computed):
        return f"it looks its inputs up in a table of unknown size ({node.name}), where XLA clamps"
    if computed:
        return f"it looks up what it computes from its inputs ({node.name}), which XLA clamps"
    for name, limit in carried.items():
        narrow(limits, name, limit)
    return ""


def _rows(graph: Graph, node: Any) -> int | None:
    """The length of the axis that is looked up."""
    shape = graph.shape(node.input[0])
    axis: int | None = int(node.attr["batch_dims"].i) if node.op == "ResourceGather" else 0
    if node.op == "GatherV2":
        axis = graph.scalar(node.input[2])
    return shape[axis] if shape is not None and axis is not None and -len(shape) <= axis < len(shape) else None


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
    functions = {f.signature.name: f for f in inlined.library.function}
    inputs = dict(zip(places, given, strict=False))
    return find(inlined.node, inputs, tables, functions, evaluated(tf, inlined))
