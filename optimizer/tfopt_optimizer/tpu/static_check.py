"""What keeps a chosen function from the TPU, read off its operations and types before anything is compiled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfopt_optimizer import ops, placement
from tfopt_optimizer.graphs import Graph
from tfopt_optimizer.tpu.advice import DYNAMIC, REMEDIES
from tfopt_optimizer.tpu.graph import DT_RESOURCE, DT_STRING, DT_VARIANT, ModelGraph

Sources = Mapping[tuple[str, str], str]  # (function, node) -> "file.py:12"


def problems(
    graph: ModelGraph, names: Iterable[str], objects: Mapping[tuple[str, int], int], sources: Sources
) -> list[str]:
    """One line per operation: the function, the operation, its node, its source line where known, the remedy.

    `objects`: see objects.arguments. Tables among the arguments are told from variables by it.
    """
    by_name, registry = Graph(graph.meta), ops.registry()
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(_border(graph, name, objects)))
        found.update(dict.fromkeys(_constants(graph, name, sources)))
        for inner in sorted({name} | graph.reachable(name)):
            for node in by_name.body(by_name.functions[inner]).values():
                why = placement.why_on_host(node, by_name, registry)
                if why:
                    where = _where(inner, node.name, sources)
                    found[f"TPU function {name!r}: {why} ({where}): {REMEDIES[_cause(node, why)]}"] = None
    return list(found)


def cautions(graph: ModelGraph, names: Iterable[str], sources: Sources) -> list[str]:
    by_name = Graph(graph.meta)
    return [
        f"TPU function {name!r}: {node.op} ({_where(inner, node.name, sources)}): {REMEDIES['dynamic']}"
        for name in names
        for inner in sorted({name} | graph.reachable(name))
        for node in by_name.body(by_name.functions[inner]).values()
        if node.op in DYNAMIC
    ]


def _constants(graph: ModelGraph, name: str, sources: Sources) -> Iterator[str]:
    """Inputs that must be known at compile time and are computed from the values of the function's arguments.

    Running on this machine does not show them: XLA:CPU looks at the arguments of each call. Calls are not entered.
    """
    function = graph.functions[name]
    arguments = {a.name for a in function.signature.input_arg}
    nodes = {n.name: n for n in function.node_def}
    for node in function.node_def:
        inputs = [edge for edge in node.input if not edge.startswith("^")]
        for i in CONSTANT_INPUTS.get(node.op, ()):
            asked = _depends_on(inputs[i], nodes, arguments)
            if asked:
                where = _where(name, node.name, sources)
                yield (
                    f"TPU function {name!r}: input {i % len(inputs)} of {node.op} ({where}) depends on the values "
                    f"of argument {min(asked)!r}: {REMEDIES['constant']}"
                )


def _depends_on(edge: str, nodes: Mapping[str, Any], arguments: set[str]) -> set[str]:
    """Arguments whose values an edge is computed from; shapes are known at compile time."""
    found: set[str] = set()
    seen: set[str] = set()
    todo = [edge]
    while todo:
        source = todo.pop().split(":")[0]
        if source in arguments:
            found.add(source)
        elif source in nodes and source not in seen and nodes[source].op not in STATIC:
            seen.add(source)
            todo += [e for e in nodes[source].input if not e.startswith("^")]
    return found


# By input, -1 the last. Each was seen to fail with "must be a compile-time constant" when XLA of TensorFlow 2.21 got it
# as an argument; Slice's size and TopKV2's k were not.
CONSTANT_INPUTS = {
    "Reshape": (1,), "Range": (0, 1, 2), "Fill": (0,), "Tile": (1,), "BroadcastTo": (1,), "Pad": (1,), "PadV2": (1,),
    "OneHot": (1,), "Transpose": (1,), "ConcatV2": (-1,), "ExpandDims": (1,), "Sum": (1,), "Mean": (1,), "Max": (1,),
    "ArgMax": (1,), "Split": (0,), "SplitV": (1,), "GatherV2": (2,), "LinSpace": (2,), "ResizeBilinear": (1,),
    "Cumsum": (1,), "UnsortedSegmentSum": (2,), "ReverseV2": (1,), "RandomUniform": (0,), "DenseBincount": (1,),
}  # fmt: skip
STATIC = frozenset({"Shape", "ShapeN", "Size", "Rank"})


def _border(graph: ModelGraph, name: str, objects: Mapping[tuple[str, int], int]) -> Iterator[str]:
    signature = graph.functions[name].signature
    sides = (("argument", signature.input_arg), ("result", signature.output_arg))
    for side, args in sides:
        for i, arg in enumerate(args):
            cause = _cause_of_type(graph, name, i, arg.type, objects) if side == "argument" else _KINDS.get(arg.type)
            if cause:
                yield f"TPU function {name!r}: {side} {arg.name!r} is a {_WORDS[cause]}: {REMEDIES[cause]}"


_KINDS = {DT_STRING: "string", DT_VARIANT: "sparse"}
_WORDS = {"string": "string", "sparse": "sparse or ragged tensor", "table": "table"}


def _cause_of_type(
    graph: ModelGraph, name: str, index: int, kind: int, objects: Mapping[tuple[str, int], int]
) -> str | None:
    if kind != DT_RESOURCE:
        return _KINDS.get(kind)
    number = objects.get((name, index))
    if number is None or graph.objects.nodes[number].HasField("variable"):
        return None
    return "table" if graph.objects.nodes[number].HasField("resource") else None


def _cause(node: Any, why: str) -> str:
    if "LookupTable" in node.op:
        return "table"
    if "Sparse" in node.op or "Ragged" in node.op:
        return "sparse"
    return "string" if "String" in node.op or "on strings" in why else "kernel"


def _where(function: str, node: str, sources: Sources) -> str:
    line = sources.get((function, node))
    return f"node {node}, {line}" if line else f"node {node} of {function!r}"
