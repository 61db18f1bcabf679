"""Which operations stay on the host when a signature's graph is cut for a compiled device, and why. No TensorFlow.

The rule is the static half of the split: an operation goes to the device when XLA has a kernel for it, none of its
types is a string, variant or table, and every function that it calls can go as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from tfopt_protos import dtypes

from tfopt_optimizer.graphs import Graph, Placed, calls
from tfopt_optimizer.ops import Registry

# These compute nothing: they follow their neighbours, or hold what both sides can hold.
NEUTRAL = frozenset({
    "Placeholder", "PlaceholderWithDefault", "NoOp", "Identity", "IdentityN", "Const", "VarHandleOp", "VariableV2",
    "Variable", "ReadVariableOp", "SaveV2", "RestoreV2", "MergeV2Checkpoints",
})  # fmt: skip
# On an operation of a converted model that was placed on its TPU (tpu/runnable.py); it lives through inlining.
PLACED = "_tfopt_placed"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_HOST_TYPES = frozenset(dtypes.NUMBERS[name] for name in ("string", "variant"))


def host_reasons(nodes: Iterable[Placed], graph: Graph, registry: Registry) -> Mapping[str, list[Placed]]:
    """Why -> the operations that stay on the host for it. Neutral operations are in no list."""
    found: dict[str, list[Placed]] = {}
    for placed in nodes:
        reason = why_on_host(placed.node, graph, registry)
        if reason:
            found.setdefault(reason, []).append(placed)
    return found


def counts(nodes: Sequence[Placed], graph: Graph, registry: Registry) -> tuple[dict[str, int], dict[str, int]]:
    """How many operations of each kind stay on the host, and may go to a device; the most frequent first."""
    sides: tuple[dict[str, int], dict[str, int]] = {}, {}
    for placed in nodes:
        if placed.node.op in NEUTRAL or placed.node.op in _CALLS or placed.node.op in graph.functions:
            continue
        side = sides[0] if why_on_host(placed.node, graph, registry) else sides[1]
        side[placed.node.op] = side.get(placed.node.op, 0) + 1
    host, device = (dict(sorted(s.items(), key=lambda item: (-item[1], item[0]))) for s in sides)
    return host, device


def why_on_host(node: Any, graph: Graph, registry: Registry, types: Collection[int] = _HOST_TYPES) -> str:
    """ "" for an operation that a device may take, or that is neutral. `types`: those that it cannot hold."""
    own = _own_reason(node, graph, registry, types)
    if own or _is_call(node, graph):
        return own  # the bodies of calls are looked at themselves
    seen: set[str] = set()  # functions may call each other in circles
    todo = list(calls(node))
    while todo:
        name = todo.pop()
        if name in seen or name not in graph.functions:
            continue
        seen.add(name)
        for inner in graph.body(graph.functions[name]).values():
            if _own_reason(inner, graph, registry, types):
                return f"{node.op} holds {inner.op}"
            todo += calls(inner)
    return ""


def _is_call(node: Any, graph: Graph) -> bool:
    return node.op in _CALLS or node.op in graph.functions


def _own_reason(node: Any, graph: Graph, registry: Registry, types: Collection[int]) -> str:
    """Why the operation itself stays, whatever it calls."""
    if node.op in NEUTRAL or _is_call(node, graph):
        return ""
    if node.op not in registry.names:
        return f"{node.op} is not TensorFlow's own"
    if node.op not in registry.compiled:
        return f"{node.op} has no compiled kernel"
    return f"{node.op} on strings or variants" if not _types(node).isdisjoint(types) else ""


def _types(node: Any) -> set[int]:
    found: set[int] = set()
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "type":
            found.add(value.type)
        elif kind == "list":
            found.update(value.list.type)
    return found
