"""Which operations of a function a compiler's words are about: those go to the host, and the cut is made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfopt_optimizer.tpu import advice
from tfopt_optimizer.tpu.automatic import Parted
from tfopt_optimizer.tpu.constants import Demand
from tfopt_optimizer.tpu.errors import CompilerError, Refused
from tfopt_optimizer.tpu.graph import ModelGraph, calls

_BODY = "body/"  # what place.py puts before the names of nodes


def again(error: CompilerError, graph: ModelGraph, parted: Parted) -> Refused:
    """The compiler's error as one about operations of the converter's own parts."""
    found: dict[str, dict[str, str]] = {}
    for part, chosen in parted.chosen.items():
        for key in (part, chosen.name):
            if key in error.words:
                found.setdefault(chosen.name, {}).update(nodes(graph, part, error.words[key]))
    return Refused(error.problems, found)


def unknown(problems: list[str], demands: Mapping[str, list[Demand]], parted: Parted) -> Refused:
    """`demands`: by part, what would have to be known at compile time."""
    found: dict[str, dict[str, str]] = {}
    for part, wanted in demands.items():
        ours = found.setdefault(parted.chosen[part].name, {})
        ours |= {demand.path[0][1]: advice.late(demand.op) for demand in wanted}
    return Refused(problems, found)


def nodes(graph: ModelGraph, function: str, words: str) -> dict[str, str]:
    """Nodes of the function (a call, a branch or a loop for what is inside it) -> why."""
    own = {n.name: n for n in graph.functions[function].node_def}
    reasons = advice.operations(words)
    found = {}
    for name in reasons or advice.named(words)[:1]:
        owner = _owner(graph, own, name.removeprefix(_BODY))
        if owner:
            found[owner] = reasons.get(name) or f"the compiler refuses {own[owner].op}: {advice.explain(words)}"
    return found


def _owner(graph: ModelGraph, own: Mapping[str, Any], name: str) -> str:
    """The node itself, the call that it was inlined from, or the branch or loop whose body it is in; "" for none."""
    if name in own:
        return name
    calling = {n: [f.name for f in calls(node)] for n, node in own.items() if any(calls(node))}
    called = max((n for n in calling if name.startswith(f"{n}/")), key=len, default="")
    holding = (n for n, functions in calling.items() if any(_holds(graph, f, name) for f in functions))
    return next(holding, "") or called


def _holds(graph: ModelGraph, function: str, name: str) -> bool:
    inside = {function, *graph.reachable(function)} & set(graph.functions)
    return any(n.name == name for f in inside for n in graph.functions[f].node_def)
