"""What plain TensorFlow would refuse for its values and an engine computes all the same: indices outside a table (XLA
clamps them), assertions (all engines drop them), a division of integers by zero.

    guards = find(nodes, inputs, tables)

Engines do not notice the same things: `Blind` says what one does not, and is XLA's, who notices nothing, by default.

`limits` are the values of an input that every look-up it feeds can take; the runner declines others, and TensorFlow
answers in its own words. `refusal` names what cannot be bounded by an input alone: the engine does not take it then.
Read off the graph in which function calls are inlined, and off the loops, branches and calls that are left in it: what
they hold is looked at as a graph of its own, whose inputs are the arguments that depend on an input.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfopt_optimizer.engines.indices import Graph, Scalar, Selection, Shape, evaluated
from tfopt_optimizer.engines.inferred import Inferred
from tfopt_optimizer.engines.limits import Bounds, Limits, Part, narrow

# Type -> (which input is the table, which the indices).
LOOKUPS = {
    "Gather": (0, 1), "GatherV2": (0, 1), "ResourceGather": (0, 1), "GatherNd": (0, 1), "ResourceGatherNd": (0, 1),
}  # fmt: skip
_INTEGERS = frozenset({3, 4, 5, 6, 9, 17, 22, 23})  # DataType: int32, uint8, int16, int8, int64, uint16, uint32, uint64
# Others that check a value: type -> which inputs. Only constants pass. (In scattering some engines also answer wrongly
# where an index comes twice.)
_SEGMENTS = dict.fromkeys((
    "UnsortedSegmentSum", "UnsortedSegmentMax", "UnsortedSegmentMin", "UnsortedSegmentProd", "SegmentSum",
    "SegmentMean", "SegmentProd", "SegmentMin", "SegmentMax", "SegmentSumV2", "SegmentProdV2", "SegmentMinV2",
    "SegmentMaxV2",
), (1,))  # fmt: skip
_SCATTERS = dict.fromkeys((
    "TensorScatterUpdate", "TensorScatterAdd", "TensorScatterSub", "TensorScatterMax", "TensorScatterMin",
), (1,))  # fmt: skip
_SPARSE = dict.fromkeys(("SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"), (1, 2))
_CHECKED: Mapping[str, tuple[int, ...]] = {
    **_SEGMENTS, **_SCATTERS, **_SPARSE, "ScatterNd": (0,), "ReverseSequence": (1,), "CheckNumerics": (0,),
    "CheckNumericsV2": (0,), "InvertPermutation": (0,), "SparseSoftmaxCrossEntropyWithLogits": (1,),
    "MatrixInverse": (0,), "MatrixSolve": (0,), "MatrixTriangularSolve": (0,), "Bincount": (0,), "DenseBincount": (0,),
    "TensorListGetItem": (1,), "TensorListSetItem": (1,), "Slice": (1, 2), "SplitV": (1,), "DynamicStitch": (0,),
}  # fmt: skip
_DIVISIONS = frozenset({"FloorDiv", "FloorMod", "Mod", "Div", "TruncateDiv", "TruncateMod"})
# Type -> (attributes that name what is called, the first input that it is given).
_CALLERS = {
    "While": (("cond", "body"), 0), "StatelessWhile": (("cond", "body"), 0),
    "If": (("then_branch", "else_branch"), 1), "StatelessIf": (("then_branch", "else_branch"), 1),
    "Case": (("branches",), 1), "StatelessCase": (("branches",), 1),
    "PartitionedCall": (("f",), 0), "StatefulPartitionedCall": (("f",), 0),
}  # fmt: skip
_BY_NAME: tuple[tuple[str, ...], int] = ((), 0)
Functions = Mapping[str, Any]  # FunctionDefs by name
ShapeOf = Callable[[str, str], Shape | None]


@dataclasses.dataclass(frozen=True)
class Blind:
    """An engine by its name in refusals. `noticed`: kinds of operations whose values it checks itself, or its converter
    does; `lookups`: whether indices have to be looked after for it; `outside`: what it does beyond a table."""

    engine: str
    noticed: frozenset[str] = frozenset()
    lookups: bool = True
    outside: str = "which XLA clamps"


XLA = Blind("XLA")
# What no converter of theirs has a form of; then found by trying each with values that TensorFlow refuses
# (docs/decisions/0186).
_UNCONVERTED = frozenset({"Bincount", "DenseBincount", "SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"})
WHOLE: Mapping[str, Blind] = {
    "litert": Blind(
        "LiteRT",
        _UNCONVERTED
        | _DIVISIONS
        | _SEGMENTS.keys()
        | {"ScatterNd", "Slice", "SplitV", "TensorListGetItem", "Pow", "DynamicStitch"},
        lookups=False,
    ),
    "openvino": Blind(
        "OpenVINO",
        _UNCONVERTED | {"ReverseSequence"},
        lookups=False,
    ),
    "onnxruntime": Blind(
        "ONNX Runtime",
        _DIVISIONS | {"ReverseSequence", "SplitV"},
        lookups=False,
    ),
}


@dataclasses.dataclass(frozen=True)
class Guards:
    """Limits of inputs or their columns; "" or why the signature cannot be taken, and the node that is in the way."""

    limits: Bounds
    refusal: str = ""
    node: str = ""


def _not_known(_function: str, _node: str) -> Shape | None:
    return None


def find(
    nodes: Iterable[Any],
    inputs: Mapping[str, str],
    tables: Mapping[str, Shape],
    functions: Functions | None = None,
    evaluate: Scalar = lambda tensor: None,
    *,
    blind: Blind = XLA,
    inferred: ShapeOf = _not_known,
    function: str = "",
) -> Guards:
    """`nodes` of a GraphDef, or of `function`; `inputs`: node name -> the signature's input; `tables`: node name of a
    captured variable (or of anything else whose shape is known) -> its shape; `functions`: those that the nodes call;
    `evaluate` computes a whole number that nothing fed decides; `inferred`: the shape of what a node in a function (""
    outside all) gives."""
    called = functions or {}
    own = functools.partial(inferred, function)
    graph = Graph({node.name: node for node in nodes}, inputs, tables, evaluate, own)
    asserting = {name for name in called if "Assert" in _kinds(name, called)}
    limits: dict[Part, Limits] = {}
    for node in graph.nodes.values():
        refusal = _refusal(graph, node, limits, asserting, blind, called.get(function))
        refusal = refusal or _inside(graph, node, limits, called, blind, inferred)
        if refusal:
            return Guards(limits, refusal, node.name)
    return Guards(limits)


def _refusal(  # noqa: PLR0917
    graph: Graph, node: Any, limits: dict[Part, Limits], asserting: set[str], blind: Blind, body: Any
) -> str:
    if node.op in blind.noticed:
        return ""
    if node.op in LOOKUPS:
        return look_up(graph, node, limits, blind) if blind.lookups else ""
    if _asserts(node, asserting) and graph.depends(node.input[0]) and not _said_by_look_up(graph, node, body):
        return f"it asserts something of its inputs ({node.name}), which {blind.engine} drops"
    whole = node.op in _DIVISIONS | {"Pow"} and node.attr["T"].type in _INTEGERS
    if whole and node.op == "Pow" and graph.depends(node.input[1]):
        return (
            f"it raises integers to what its inputs say ({node.name}), and {blind.engine} does not notice a negative "
            "power"
        )
    if whole and node.op != "Pow" and graph.depends(node.input[1]):
        return f"it divides integers by what its inputs say ({node.name}), and {blind.engine} does not notice a zero"
    if any(place < len(node.input) and graph.depends(node.input[place]) for place in _checked(node)):
        return f"TensorFlow checks what {node.name} ({node.op}) is given, {blind.engine} does not"
    return ""


def _checked(node: Any) -> Iterable[int]:
    """Which inputs of a node TensorFlow checks the values of."""
    if node.op == "StridedSlice":  # a single index must be there; ranges are cut to what is
        return (1,) if node.attr["shrink_axis_mask"].i else ()
    return range(node.attr["N"].i) if node.op == "DynamicStitch" else _CHECKED.get(node.op, ())


def _asserts(node: Any, asserting: set[str]) -> bool:
    """An assertion, or the branch that Keras and tf.debugging wrap one in."""
    branches = {node.attr[name].func.name for name in ("then_branch", "else_branch")} if "If" in node.op else set()
    return node.op == "Assert" or not branches.isdisjoint(asserting)


def _said_by_look_up(graph: Graph, node: Any, body: Any) -> bool:
    """Whether an assertion asks no more of indices than a look-up does that is always computed: to be less than a
    table has rows, or than something more (Hugging Face's models say that of their ids)."""
    if node.op != "Assert":
        return False
    said = graph.maker(node.input[0])
    less = graph.maker(said.input[0]) if said.op == "All" else said
    limit = graph.scalar(less.input[1]) if less.op == "Less" else None
    if limit is None:
        return False
    index = graph.source(less.input[0])
    found = [n for n in graph.nodes.values() if n.op in LOOKUPS and not n.op.endswith("Nd")]
    same = [n for n in found if graph.source(n.input[1]) == index]
    return any((_rows(graph, n) or limit + 1) <= limit and _needed(n, body) for n in same)


def _needed(node: Any, body: Any) -> bool:
    """Whether all results of the function that holds a node come of it; outside all, who is not needed is not there."""
    if body is None:
        return True
    inner = Graph(_by_name(body), {node.name: node.name}, {})
    return all(inner.depends(body.ret[out.name]) for out in body.signature.output_arg)


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
    found = [node.op]  # a function's name may be an operation's
    for attribute in _CALLERS.get(node.op, _BY_NAME)[0]:
        value = node.attr[attribute]
        found += [value.func.name] if value.HasField("func") else [f.name for f in value.list.func]
    return found


def _inside(  # noqa: PLR0917
    graph: Graph,
    node: Any,
    limits: dict[Part, Limits],
    functions: Functions,
    blind: Blind,
    inferred: ShapeOf,
) -> str:
    """The refusal of what a node calls. Limits of arguments narrow those of the inputs that they are."""
    bodies = [functions[name] for name in _called(node) if name in functions]
    if not bodies:
        return ""
    given = graph.feeders(node)[_CALLERS.get(node.op, _BY_NAME)[1] :]
    loop = "While" in node.op
    depending = {i for i, tensor in enumerate(given) if graph.depends(tensor)}
    if loop:
        depending = _carried_on(bodies[0], bodies[-1], depending)
    for body in bodies:
        names = [arg.name for arg in body.signature.input_arg]
        arguments = [_Argument(name) for name in names]
        shapes = {n: shape for n, t in zip(names, given, strict=True) if (shape := graph.shape(t)) is not None}
        fed, nodes = {names[i]: names[i] for i in sorted(depending)}, [*arguments, *body.node_def]
        found = find(nodes, fed, shapes, functions, blind=blind, inferred=inferred, function=body.signature.name)
        if found.refusal:
            return f"{found.refusal}, in {node.name}" if node.op not in found.refusal else found.refusal
        for part, limit in found.limits.items():
            place = names.index(part.name)
            if loop and not _kept(bodies[-1], place):
                return f"it looks up what a loop computes ({node.name}), {blind.outside}"
            selection = None if part.axis is None else Selection(part.axis, part.start, part.stop)
            carried, computed = graph.inputs_of(given[place], limit, selection)
            if computed:
                return f"it looks up what it computes from its inputs ({node.name}), {blind.outside}"
            for each, own in carried.items():
                narrow(limits, each, own)
    return ""


@dataclasses.dataclass(frozen=True)
class _Argument:
    """A function's argument in the place of a NodeDef."""

    name: str
    op: str = "_Arg"
    input: tuple[str, ...] = ()


def _carried_on(condition: Any, body: Any, depending: set[int]) -> set[int]:
    """Which of a loop's variables depend on an input once it has turned often enough; where an input decides how often
    that is, all that change do."""
    changing = {i for i in range(len(body.signature.input_arg)) if not _kept(body, i)}
    found = set(depending)
    while True:
        decided = any(_depending(condition, found))
        more = {i for i, depends in enumerate(_depending(body, found)) if depends or (decided and i in changing)}
        if more <= found:
            return found
        found |= more


def _depending(function: Any, given: set[int]) -> list[bool]:
    """Which results depend on the arguments in these places."""
    names = [arg.name for arg in function.signature.input_arg]
    inner = Graph(_by_name(function), {names[i]: names[i] for i in given}, {})
    return [inner.depends(function.ret[out.name]) for out in function.signature.output_arg]


def _by_name(body: Any) -> dict[str, Any]:
    arguments: list[Any] = [_Argument(arg.name) for arg in body.signature.input_arg]
    return {node.name: node for node in [*arguments, *body.node_def]}


def _kept(body: Any, place: int) -> bool:
    """Whether a loop's variable leaves its body as it came."""
    nodes, tensor = _by_name(body), body.ret[body.signature.output_arg[place].name]
    while (node := nodes[tensor.partition(":")[0]]).op == "Identity":
        tensor = node.input[0]
    return bool(node.name == body.signature.input_arg[place].name)


def look_up(graph: Graph, node: Any, limits: dict[Part, Limits], blind: Blind) -> str:
    """Narrows the limits of the inputs that the indices are; why that is impossible, "" when it is not."""
    index = node.input[1]
    for size, column in _columns(graph, node) if node.op.endswith("Nd") else [(_rows(graph, node), None)]:
        carried, computed = graph.inputs_of(index, (0, (size or 1) - 1), column)
        if size is None and (carried or computed):
            return f"it looks its inputs up in a table of unknown size ({node.name}), {blind.outside}"
        if computed:
            return f"it looks up what it computes from its inputs ({node.name}), {blind.outside}"
        for name, limit in carried.items():
            narrow(limits, name, limit)
    return ""


def _columns(graph: Graph, node: Any) -> Sequence[tuple[int | None, Selection | None]]:
    """The axes that the rows of indices name, each with the column that does."""
    depth, shape = graph.depth(node), graph.shape(node.input[0])
    if depth is None or shape is None or depth > len(shape):
        return [(None, None)]
    return [(shape[number], Selection(-1, number, number + 1)) for number in range(depth)]


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
    captured = dict(zip(places[len(given) :], concrete.captured_inputs, strict=True))
    tables, handles = {}, {}
    for place, value in captured.items():
        data = getattr(value, "_handle_data", None)
        if value.dtype == tf.resource and data is not None and data.is_set and data.shape_and_type:
            shape = tf.TensorShape(data.shape_and_type[0].shape)
            handles[place] = value
        elif value.dtype != tf.resource:
            shape = value.shape
        else:
            continue
        if shape.is_fully_defined():
            tables[place] = tuple(shape.as_list())
    functions = {f.signature.name: f for f in inlined.library.function}
    inputs, inferred = dict(zip(places, given, strict=False)), Inferred(tf, inlined, handles)
    return find(inlined.node, inputs, tables, functions, evaluated(tf, inlined), inferred=inferred)
