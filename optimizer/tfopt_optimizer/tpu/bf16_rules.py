"""Rewrites a graph from float32 to bfloat16: which operations change, and where casts stand between the two.

Pure: definitions of operations come as an argument. Nodes and graphs are GraphDef messages of any pool.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

FLOAT, BFLOAT16 = 1, 14
# Their types are the border of the graph, the purpose of the node, or a value's own type.
_BORDER = frozenset({"Placeholder", "_Arg", "_Retval", "Cast", "Const", "Bitcast"})
# What reads a variable reads the type that the variable has.
_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})
# Statistics of a batch normalization stay exact, as in TensorFlow's own mixed precision.
_KEPT_ATTRS = frozenset({("FusedBatchNormV3", "U"), ("FusedBatchNormV2", "U")})
# XLA of TensorFlow 2.21 has kernels of these for float32 and none for bfloat16, which their definitions allow.
UNCOMPILED = frozenset({
    "TruncatedNormal", "ParameterizedTruncatedNormal", "MaxPoolGradGrad", "MaxPoolGradGradV2", "MaxPool3DGradGrad",
})  # fmt: skip
# Whose bodies would have to change with them: they stay, with their arguments and results.
_CALLS = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "PartitionedCall"}) | {
    "StatefulPartitionedCall", "XlaCallModule", "XlaWhile", "XlaIf",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """How many operations of a kind changed to bfloat16, and stayed in float32; `casts` that were added."""

    changed: dict[str, int]
    kept: dict[str, int]
    casts: int


def anything(_op: str, _attr: str) -> bool:
    return True


def rewrite(
    graph: Any,
    keep: Collection[str],
    op_def: Callable[[str], Any],
    takes: Callable[[str, str], bool] = anything,
) -> Rewritten:
    """Changes a GraphDef in place. `keep` are kinds of operations that stay in float32. `takes(op, attribute)`: whether
    there is a kernel for bfloat16."""
    changed: collections.Counter[str] = collections.Counter()
    kept: collections.Counter[str] = collections.Counter()
    before = {n.name: list(_types(op_def(n.op).output_arg, n.attr)) for n in graph.node}
    for node in graph.node:
        node.attr.pop("_output_shapes", None)
        if FLOAT not in before[node.name] and FLOAT not in _types(op_def(node.op).input_arg, node.attr):
            continue
        if node.op in _BORDER | _READS:
            continue
        counted = changed if node.op not in keep and _flip(node, op_def(node.op), takes) else kept
        counted[node.op] += 1
    casts = _join(graph, op_def)
    return Rewritten(dict(sorted(changed.items())), dict(sorted(kept.items())), casts)


def holds(nodes: Any, kind: int = BFLOAT16) -> bool:
    """Whether any attribute of any node is of this type."""
    return any(
        value.type == kind or kind in value.list.type
        for node in nodes
        for value in node.attr.values()
        if value.WhichOneof("value") in ("type", "list")
    )


def _flip(node: Any, definition: Any, takes: Callable[[str, str], bool]) -> bool:
    """Float type attributes become bfloat16; False where the operation does not allow all of it."""
    if node.op in _CALLS | UNCOMPILED:
        return False
    attrs = [a for a in definition.attr if a.type == "type" and node.attr[a.name].type == FLOAT]
    attrs = [a for a in attrs if (node.op, a.name) not in _KEPT_ATTRS]
    if not attrs or any(a.HasField("allowed_values") and BFLOAT16 not in a.allowed_values.list.type for a in attrs):
        return False
    if not all(takes(node.op, a.name) for a in attrs):
        return False
    for attr in attrs:
        node.attr[attr.name].type = BFLOAT16
    return True


def _join(graph: Any, op_def: Callable[[str], Any]) -> int:
    """Adds one Cast per tensor that is read in the other type."""
    produced = {n.name: list(_types(op_def(n.op).output_arg, n.attr)) for n in graph.node}
    made: dict[tuple[str, int], str] = {}
    for node in list(graph.node):
        wanted = list(_types(op_def(node.op).input_arg, node.attr))
        for i, kind in enumerate(wanted):
            name, _, port = node.input[i].partition(":")
            have = produced[name][int(port or 0)]
            if {have, kind} == {FLOAT, BFLOAT16}:
                node.input[i] = _cast(graph, made, node.input[i], have, kind)
    return len(made)


def _cast(graph: Any, made: dict[tuple[str, int], str], tensor: str, have: int, want: int) -> str:
    if (tensor, want) not in made:
        suffix = "bfloat16" if want == BFLOAT16 else "float32"
        name = f"{tensor.replace(':', '_')}/to_{suffix}"
        node = graph.node.add(op="Cast", name=name)
        node.input.append(tensor)
        node.attr["SrcT"].type, node.attr["DstT"].type = have, want
        node.attr["Truncate"].b = False
        made[tensor, want] = name
    return made[tensor, want]


def _types(args: Any, attr: Any) -> Iterator[int]:
    """The types of a node's inputs or outputs, in order."""
    for arg in args:
        if arg.type_list_attr:
            yield from attr[arg.type_list_attr].list.type
            continue
        kind = attr[arg.type_attr].type if arg.type_attr else arg.type
        yield from [kind] * (attr[arg.number_attr].i if arg.number_attr else 1)
