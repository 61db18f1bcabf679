"""Takes the TPU operations out of a converted graph again, so that a CPU can run exactly what would run on the TPU.

TPUPartitionedCall becomes a plain call, compiled by XLA where asked for (the TPU has no other way to run it); the
replicated inputs and outputs become Identity; the rest of the bookkeeping goes. A batch operation becomes a call of the
function that it batches: what a lone request gets, without waiting for company.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfopt_optimizer.tpu import nodes
from tfopt_optimizer.tpu.graph import MUST_COMPILE

BATCH = "BatchFunction"
_GONE = frozenset({"TPUOrdinalSelector", "TPUReplicateMetadata", "TPUCompilationResult"})
_PLAIN = frozenset({"TPUReplicatedInput", "TPUReplicatedOutput"})
_RESULTS = {"TPUReplicatedOutput": "outputs", BATCH: "out_tensors"}  # what they call their results
_TAGS = ("_tpu", "_pivot", "_has_manual_control_dependencies")


def emulate(meta: Any, compiled: bool, batched: bool = False) -> None:
    """Changes a MetaGraphDef in place. `batched` keeps the batch operations, which run on every device."""
    results = {op: name for op, name in _RESULTS.items() if op != BATCH or not batched}
    placed = {called for f in meta.graph_def.library.function for called in _function(f, compiled, results)}
    for function in meta.graph_def.library.function:
        if compiled and function.signature.name in placed:
            function.attr[MUST_COMPILE].CopyFrom(nodes.value(True))


def _function(function: Any, compiled: bool, replaced: Mapping[str, str]) -> list[str]:
    gone = {n.name for n in function.node_def if n.op in _GONE}
    results = {n.name: replaced[n.op] for n in function.node_def if n.op in replaced}
    kept = [_node(n, gone, results, compiled) for n in function.node_def if n.op not in _GONE]
    placed = [n.attr["f"].func.name for n in function.node_def if n.op == "TPUPartitionedCall"]
    del function.node_def[:]
    function.node_def.extend(kept)
    for result, edge in list(function.ret.items()):
        function.ret[result] = _result(edge, results)
    for result, node in list(function.control_ret.items()):
        if node in gone:
            del function.control_ret[result]
            function.signature.control_output.remove(result)
    return placed


def _node(node: Any, gone: set[str], results: Mapping[str, str], compiled: bool) -> Any:
    changed = _copy(node)
    edges = [e for e in node.input if e.lstrip("^").split(":")[0] not in gone]
    del changed.input[:]
    changed.input.extend(_result(e, results) for e in edges)
    for key in [k for k in changed.attr if k.startswith(_TAGS)]:
        del changed.attr[key]
    if "TPU" in changed.device:
        changed.device = ""
    if node.op == "TPUPartitionedCall":
        changed.op = "StatefulPartitionedCall"
        changed.attr.pop("autotuner_thresh", None)
        if compiled:
            changed.attr[MUST_COMPILE].CopyFrom(nodes.value(True))
    elif node.op == BATCH and node.name in results:
        _call_directly(node, changed)
    elif node.op in _PLAIN:
        kind = node.attr["T"].type
        changed.op = "Identity"
        changed.attr.clear()
        changed.attr["T"].CopyFrom(nodes.dtype(kind))
    return changed


def _call_directly(batch: Any, call: Any) -> None:
    call.op = "StatefulPartitionedCall"
    call.attr.clear()
    call.attr["f"].CopyFrom(batch.attr["f"])
    call.attr["Tin"].CopyFrom(nodes.types([*batch.attr["Tin"].list.type, *batch.attr["Tcaptured"].list.type]))
    call.attr["Tout"].CopyFrom(batch.attr["Tout"])


def _result(edge: str, results: Mapping[str, str]) -> str:
    """An edge by the name that the replacement gives its results."""
    name, _, rest = edge.partition(":")
    old, _, number = rest.rpartition(":")
    return f"{name}:output:{number}" if results.get(name) == old and old else edge


def _copy(node: Any) -> Any:
    copied = type(node)()
    copied.CopyFrom(node)
    return copied
