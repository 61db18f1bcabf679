"""Which variables become bfloat16, and what that changes in a graph: handles, reads, assignments, saving, restoring.

A variable changes when what reads it computes in bfloat16 anyway, so that no answer changes by it: on the TPU every
reader casts it, and no signature reads it on the host (scope ALL: those read the rounded value). Protobuf only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from tfopt_optimizer.tpu.bf16_rules import BFLOAT16, FLOAT
from tfopt_optimizer.tpu.graph import ModelGraph, calls, signature_functions

READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})
_ASSIGN = "AssignVariableOp"
# What a handle is given to without a word about the type of its values.
_UNTYPED = frozenset({
    "DisableCopyOnRead", "VarIsInitializedOp", "DestroyResourceOp", "VariableShape", "Identity", "NoOp",
    "PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "While", "StatelessWhile", "Case",
    "StatelessCase", "TPUPartitionedCall", "BatchFunction",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Handles:
    """Objects by where their handles are: nodes of the main graph, and (function, number of the argument)."""

    nodes: Mapping[str, int]
    arguments: Mapping[tuple[str, int], int]


@dataclasses.dataclass(frozen=True)
class Selected:
    """Numbers of objects. `kept`: -> why it stays in float32, though the TPU or something in bfloat16 reads it."""

    changed: frozenset[int]
    kept: Mapping[int, str]


def select(graph: ModelGraph, bodies: Mapping[str, Any], rewritten: Collection[str], handles: Handles) -> Selected:
    """`bodies`: what runs on the TPU for each function; `rewritten`: the functions, on TPU or host, that compute in
    bfloat16. A host function among them makes what it reads a candidate, too (scope ALL)."""
    on_host = host_functions(graph, bodies)
    # A rewritten body has what it calls inlined, all but the bodies of control flow.
    called = {f for body in bodies.values() for f in _called(graph, body)}
    running = [*bodies.items(), *((n, graph.functions[n]) for n in sorted(called | on_host))]
    wanted: set[int] = set()
    on_tpu: set[int] = set()
    kept: dict[int, str] = {}
    for name, body in running:
        changes = name in rewritten and (name in on_host or body is bodies.get(name))
        for number, node in _users(body, handles.arguments):
            if not _is_float(graph, number):
                continue
            on_tpu |= {number} if name not in on_host else set()
            casts = node.op in READS and _all_cast(body, node)
            wanted |= {number} if casts and changes else set()
            if why := _obstacle(node, casts, name in on_host, changes):
                kept.setdefault(number, why)
    for name in set(graph.functions) - set(bodies) - called - on_host:
        for number, node in _users(graph.functions[name], handles.arguments):
            if node.op not in READS | _UNTYPED | {_ASSIGN}:
                kept.setdefault(number, f"{node.op} uses it")
    return Selected(frozenset(wanted - set(kept)), {n: why for n, why in sorted(kept.items()) if n in wanted | on_tpu})


def apply(graph: ModelGraph, changed: Collection[int], handles: Handles) -> None:
    """Changes the graph. Functions that computed in bfloat16 lose their casts, all others get one per read."""
    main = {name for name, number in handles.nodes.items() if number in changed}
    for node in graph.meta.graph_def.node:
        if node.op == "VarHandleOp" and node.name in main:
            node.attr["dtype"].type = BFLOAT16
    _patch(graph.meta.graph_def.node, main, lambda node, _: str(node), {})
    for function in graph.functions.values():
        arguments = {
            a.name
            for i, a in enumerate(function.signature.input_arg)
            if handles.arguments.get((function.signature.name, i)) in changed
        }
        if arguments:
            _patch(function.node_def, arguments, lambda node, result: f"{node}:{result}:0", function.ret)
    for number in changed:
        graph.objects.nodes[number].variable.dtype = BFLOAT16


def host_functions(graph: ModelGraph, placed: Collection[str]) -> set[str]:
    """Functions that run on the host for a signature."""
    todo = [
        f
        for key in graph.meta.signature_def
        if not key.startswith("__saved_model_")
        for f in signature_functions(graph, key)
    ]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found and name not in placed:
            found.add(name)
            todo += graph.called_by(name)
    return found


def _called(graph: ModelGraph, body: Any) -> set[str]:
    direct = {f.name for node in body.node_def for f in calls(node) if f.name in graph.functions}
    return direct.union(*(graph.reachable(f) for f in direct))


def _is_float(graph: ModelGraph, number: int) -> bool:
    node = graph.objects.nodes[number]
    return bool(node.HasField("variable") and node.variable.dtype == FLOAT)


def _obstacle(node: Any, casts: bool, on_host: bool, rewritten: bool) -> str:
    if node.op in _UNTYPED:
        return ""
    if node.op not in READS:
        return f"{node.op} changes it"
    if on_host:
        return "" if rewritten else f"the host reads it ({node.op} {node.name})"
    return "" if casts and rewritten else "the TPU reads it in float32"


def _users(function: Any, arguments: Mapping[tuple[str, int], int]) -> Iterator[tuple[int, Any]]:
    """Nodes that a variable is given to first, with the number of its object."""
    name = function.signature.name
    held = {a.name: arguments[name, i] for i, a in enumerate(function.signature.input_arg) if (name, i) in arguments}
    passed = _passed(function.node_def, held)
    for node in function.node_def:
        edge = next((e for e in node.input if not e.startswith("^")), "")
        if edge in held or edge in passed:
            yield held[passed.get(edge, edge)], node


def _passed(nodes: Iterable[Any], held: Collection[str]) -> dict[str, str]:
    """Results of Identity -> the handle that they pass on."""
    found: dict[str, str] = {}
    for node in nodes:
        if node.op == "Identity" and node.input:
            origin = found.get(node.input[0], node.input[0])
            if origin in held:
                found[node.name] = found[f"{node.name}:output:0"] = origin
    return found


def _all_cast(function: Any, read: Any) -> bool:
    """Whether all that takes what was read casts it to bfloat16 at once."""
    takers = [n for n in function.node_def if any(_from(e, read.name) for e in n.input)]
    results = [e for e in function.ret.values() if _from(e, read.name)]
    return bool(takers) and not results and all(_is_cast(n, FLOAT, BFLOAT16) for n in takers)


def _is_cast(node: Any, source: int, to: int) -> bool:
    return bool(node.op == "Cast" and node.attr["SrcT"].type == source and node.attr["DstT"].type == to)


def _from(edge: str, name: str) -> bool:
    return not edge.startswith("^") and edge.partition(":")[0] == name


def _patch(nodes: Any, held: Collection[str], result: Callable[[str, str], str], ret: Any) -> None:
    """`result` writes the edge of a node's result; `ret` is what a function returns."""
    passed, by_name = _passed(nodes, held), {n.name: n for n in nodes}
    for node in list(nodes):
        edge = next((e for e in node.input if not e.startswith("^")), "")
        if edge not in held and edge not in passed:
            continue
        if node.op in READS and node.attr["dtype"].type == FLOAT:
            node.attr["dtype"].type = BFLOAT16
            read = result(node.name, "value" if node.op == "ReadVariableOp" else "output")
            _hand_on(nodes, read, result, ret)
        elif node.op == _ASSIGN and node.attr["dtype"].type == FLOAT:
            node.attr["dtype"].type = BFLOAT16
            _fill(nodes, by_name, node, result)
    _drop_idle_casts(nodes)


def _drop_idle_casts(nodes: Any) -> None:
    """The casts that nothing takes since what they read is bfloat16 itself."""
    waited = {edge[1:] for node in nodes for edge in node.input if edge.startswith("^")}
    for i in reversed(range(len(nodes))):
        if _is_cast(nodes[i], BFLOAT16, BFLOAT16) and nodes[i].name not in waited:
            del nodes[i]


def _hand_on(nodes: Any, read: str, result: Callable[[str, str], str], ret: Any) -> None:
    """What follows a tensor that is bfloat16 now: casts to it go, savers save it, everything else gets float32."""
    other = [e for e in ret if ret[e] == read]
    takers = []
    # Taken before anything moves: what a cast's takers get is the same tensor.
    for node, i in [(n, i) for n in nodes for i, edge in enumerate(n.input) if edge == read]:
        if _is_cast(node, FLOAT, BFLOAT16):
            _skip(nodes, result(node.name, "y"), read, ret)
            node.attr["SrcT"].type = BFLOAT16  # nobody takes it any more
        elif node.op == "Identity" and _only_saved(nodes, node, result, ret):
            node.attr["T"].type = BFLOAT16
            _hand_on(nodes, result(node.name, "output"), result, ret)
        elif node.op == "SaveV2":
            node.attr["dtypes"].list.type[i - 3] = BFLOAT16
        else:
            takers.append((node, i))
    if takers or other:
        cast = _cast(nodes, read, BFLOAT16, FLOAT)
        for node, i in takers:
            node.input[i] = result(cast, "y")
        for e in other:
            ret[e] = result(cast, "y")


def _only_saved(nodes: Any, node: Any, result: Callable[[str, str], str], ret: Any) -> bool:
    made = result(node.name, "output")
    takers = [n for n in nodes if made in n.input]
    if not takers or made in ret.values():
        return False
    return all(n.op == "SaveV2" or (n.op == "Identity" and _only_saved(nodes, n, result, ret)) for n in takers)


def _fill(nodes: Any, by_name: Mapping[str, Any], assign: Any, result: Callable[[str, str], str]) -> None:
    """What is assigned: the checkpoint's value as it is now, anything else cast."""
    way = []
    edge = assign.input[1]
    node = by_name.get(edge.split(":")[0])
    while node is not None and node.op == "Identity":
        way.append(node)
        edge = node.input[0]
        node = by_name.get(edge.split(":")[0])
    if node is None or node.op != "RestoreV2":
        assign.input[1] = result(_cast(nodes, assign.input[1], FLOAT, BFLOAT16), "y")
        return
    number = edge.rpartition(":")[2]
    node.attr["dtypes"].list.type[int(number) if number.isdecimal() else 0] = BFLOAT16
    for passing in way:
        passing.attr["T"].type = BFLOAT16
    for changed in (node, *way):
        changed.attr.pop("_output_shapes", None)


def _skip(nodes: Any, old: str, new: str, ret: Any) -> None:
    for node in nodes:
        for i, edge in enumerate(node.input):
            if edge == old:
                node.input[i] = new
    for key in [k for k in ret if ret[k] == old]:
        ret[key] = new


def _cast(nodes: Any, tensor: str, source: int, to: int) -> str:
    suffix = "bfloat16" if to == BFLOAT16 else "float32"
    name = f"{tensor.replace(':', '_')}/variable_to_{suffix}"
    if not any(n.name == name for n in nodes):
        made = nodes.add(op="Cast", name=name)
        made.input.append(tensor)
        made.attr["SrcT"].type, made.attr["DstT"].type = source, to
        made.attr["Truncate"].b = False
    return name
