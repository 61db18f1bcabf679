"""Which variable of the graph is filled from which entry of the checkpoint, read off the restore operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfopt_protos import tensors

from tfopt_optimizer.graphs import Graph, source

_ASSIGN = ("AssignVariableOp", "Assign")


@dataclasses.dataclass(frozen=True)
class Restored:
    """`wanted`: every checkpoint key that restoring reads. `key_of`: variable (node name) -> its key, where known."""

    wanted: tuple[str, ...]
    key_of: Mapping[str, str]


def read(graph: Graph) -> Restored:
    """Follows the saver's restore operation, through the function that TF2 puts around it."""
    root = graph.meta_graph.saver_def.restore_op_name
    if not root:
        return Restored((), {})
    wanted: dict[str, None] = {}
    key_of: dict[str, str] = {}
    main = graph.below([root])
    _scope(main, {name: name for name in main}, wanted, key_of)
    for call in list(main.values()):
        function = graph.functions.get(call.attr["f"].func.name) if "f" in call.attr else None
        if function is None:
            continue
        arguments = [arg.name for arg in function.signature.input_arg]
        handles = {arg: source(edge) for arg, edge in zip(arguments, call.input, strict=False)}
        _scope({n.name: n for n in function.node_def}, handles, wanted, key_of)
    return Restored(tuple(wanted), key_of)


def _scope(
    nodes: Mapping[str, Any], handles: Mapping[str, str], wanted: dict[str, None], key_of: dict[str, str]
) -> None:
    """Adds what the restore operations of one scope read, and the variables that they fill."""
    keys = {name: _keys(node, nodes) for name, node in nodes.items() if node.op == "RestoreV2"}
    for names in keys.values():
        wanted.update(dict.fromkeys(names))
    for node in nodes.values():
        if node.op not in _ASSIGN or len(node.input) < 2:
            continue
        origin, number = _origin(node.input[1], nodes)
        variable = handles.get(source(node.input[0]))
        if variable and origin in keys and number < len(keys[origin]):
            key_of[variable] = keys[origin][number]


def _keys(restore: Any, nodes: Mapping[str, Any]) -> list[str]:
    names = nodes.get(source(restore.input[1])) if len(restore.input) > 1 else None
    if names is None or names.op != "Const":
        return []
    try:
        values = tensors.to_numpy(names.attr["value"].tensor).ravel().tolist()
    except tensors.TensorError:
        return []
    return [value.decode("utf-8", "replace") for value in values if isinstance(value, bytes)]


def _origin(edge: str, nodes: Mapping[str, Any]) -> tuple[str, int]:
    """The node behind Identity nodes, and which of its outputs."""
    for _ in range(len(nodes)):
        name, _, number = edge.partition(":")
        node = nodes.get(name)
        if node is None or node.op not in ("Identity", "Cast") or not node.input:
            last = number.rpartition(":")[2]
            return name, int(last) if last.isdecimal() else 0
        edge = node.input[0]
    return "", 0
