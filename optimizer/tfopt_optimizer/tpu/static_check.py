"""What keeps a chosen function from the TPU, read off its operations and types before anything is compiled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfopt_optimizer import ops, placement
from tfopt_optimizer.graphs import Graph
from tfopt_optimizer.tpu.advice import DYNAMIC, REMEDIES
from tfopt_optimizer.tpu.constants import Constants, Demand, Roots
from tfopt_optimizer.tpu.graph import DT_RESOURCE, DT_STRING, DT_VARIANT, ModelGraph

Sources = Mapping[tuple[str, str], str]  # (function, node) -> "file.py:12"


def problems(
    graph: ModelGraph, names: Iterable[str], objects: Mapping[tuple[str, int], int], sources: Sources
) -> list[str]:
    """One line per operation: the function, the operation, its node, its source line where known, the remedy.

    `objects`: see objects.arguments. Tables among the arguments are told from variables by it. What must be known at
    compile time is another question: see `demands`.
    """
    by_name, registry = Graph(graph.meta), ops.registry()
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(_border(graph, name, objects)))
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


def demands(graph: ModelGraph, names: Iterable[str]) -> dict[str, list[Demand]]:
    """By function, what must be known at compile time and is computed from arguments, or in a loop.

    Running on this machine does not show the first: XLA:CPU looks at the arguments of each call.
    """
    constants = Constants(graph.functions)
    return {name: list(found) for name in names if (found := constants.demands(name))}


def told(graph: ModelGraph, name: str, demand: Demand, sources: Sources) -> str:
    """The line about something that must be known."""
    arguments = [a.name for a in graph.functions[name].signature.input_arg]
    *above, (function, node) = demand.path
    inside = f", in {' -> '.join(n for _, n in above)}" if above else ""
    return (
        f"TPU function {name!r}: input {demand.input} of {demand.op} ({_where(function, node, sources)}{inside}) "
        f"{_known_too_late(demand.roots, arguments)}: {REMEDIES['constant']}"
    )


def _known_too_late(roots: Roots, arguments: Sequence[str]) -> str:
    given = sorted(arguments[r] for r in roots if isinstance(r, int))
    if given:
        return f"depends on the values of argument {given[0]!r}"
    return f"changes from round to round of the loop {min(str(r) for r in roots)}"


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
