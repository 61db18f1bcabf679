"""Negative indices become larger than any table: ONNX counts them from a table's end, TensorFlow refuses them, and what
is beyond a table both refuse. In loops and branches too, where what is looked up may change from turn to turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from tfopt_optimizer.engines.indices import Graph
from tfopt_optimizer.passes import constants

_LOOK_UPS = frozenset({"Gather", "GatherV2", "GatherNd"})
# How a function's nodes name the results of others, where a graph's say no more than the node.
_PLAIN: Mapping[str, str] = {"Const": "", "Less": "", "SelectV2": ""}
_IN_FUNCTIONS: Mapping[str, str] = {"Const": ":output:0", "Less": ":z:0", "SelectV2": ":output:0"}


def run(graph: Any, inputs: Iterable[str]) -> int:
    """Rewrites a GraphDef; returns how many look-ups by what `inputs` (names of nodes) say there are, and by anything
    but constants in its functions."""
    nodes = {node.name: node for node in graph.node}
    origins = Graph(nodes, {name: name for name in inputs}, {})
    found = [node for node in graph.node if node.op in _LOOK_UPS and origins.depends(node.input[1])]
    for node in found:
        _guard(graph, node, _PLAIN)
    return len(found) + sum(_inside(function) for function in graph.library.function)


def _inside(function: Any) -> int:
    fixed = {node.name for node in function.node_def if node.op == "Const"}
    looking = [node for node in function.node_def if node.op in _LOOK_UPS]
    found = [node for node in looking if node.input[1].partition(":")[0] not in fixed]
    for node in found:
        _guard(SimpleNamespace(node=function.node_def), node, _IN_FUNCTIONS)
    return len(found)


def _guard(graph: Any, node: Any, result: Mapping[str, str]) -> None:
    dtype, index, name = node.attr["Tindices"].type, node.input[1], f"{node.name}/tfopt_index"
    zero = constants.scalar(graph, f"{name}/zero", dtype, 0) + result["Const"]
    beyond = constants.scalar(graph, f"{name}/beyond", dtype, (1 << 31) - 1) + result["Const"]
    less = constants.add(graph, "Less", f"{name}/negative", [index, zero], dtype) + result["Less"]
    node.input[1] = constants.add(graph, "SelectV2", name, [less, beyond, index], dtype) + result["SelectV2"]
