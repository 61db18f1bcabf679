"""Negative indices become larger than any table: ONNX counts them from a table's end, TensorFlow refuses them, and what
is beyond a table both refuse. In loops and branches too, where what is looked up may change from turn to turn. Those of
tf.one_hot as well, which gives zeros for them and for what is beyond."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from tfopt_optimizer.engines.indices import Graph
from tfopt_optimizer.passes import constants

# Which input the indices are, and the attribute with their type.
_LOOK_UPS = {
    "Gather": (1, "Tindices"),
    "GatherV2": (1, "Tindices"),
    "GatherNd": (1, "Tindices"),
    "OneHot": (0, "TI"),
}
_SIGNED = frozenset({3, 9})  # DataType: int32, int64
# How a function's nodes name the results of others, where a graph's say no more than the node.
_PLAIN: Mapping[str, str] = {"Const": "", "Less": "", "SelectV2": ""}
_IN_FUNCTIONS: Mapping[str, str] = {"Const": ":output:0", "Less": ":z:0", "SelectV2": ":output:0"}


def run(graph: Any, inputs: Iterable[str]) -> int:
    """Rewrites a GraphDef; returns how many look-ups by what `inputs` (names of nodes) say there are, and by anything
    but constants in its functions."""
    nodes = {node.name: node for node in graph.node}
    origins = Graph(nodes, {name: name for name in inputs}, {})
    found = [node for node in graph.node if _looks_up(node) and origins.depends(_indices(node))]
    for node in found:
        _guard(graph, node, _PLAIN)
    return len(found) + sum(_inside(function) for function in graph.library.function)


def _inside(function: Any) -> int:
    fixed = {node.name for node in function.node_def if node.op == "Const"}
    looking = [node for node in function.node_def if _looks_up(node)]
    found = [node for node in looking if _indices(node).partition(":")[0] not in fixed]
    for node in found:
        _guard(SimpleNamespace(node=function.node_def), node, _IN_FUNCTIONS)
    return len(found)


def _looks_up(node: Any) -> bool:
    return node.op in _LOOK_UPS and node.attr[_LOOK_UPS[node.op][1]].type in _SIGNED


def _indices(node: Any) -> str:
    return str(node.input[_LOOK_UPS[node.op][0]])


def _guard(graph: Any, node: Any, result: Mapping[str, str]) -> None:
    place, kind = _LOOK_UPS[node.op]
    dtype, index, name = node.attr[kind].type, node.input[place], f"{node.name}/tfopt_index"
    zero = constants.scalar(graph, f"{name}/zero", dtype, 0) + result["Const"]
    beyond = constants.scalar(graph, f"{name}/beyond", dtype, (1 << 31) - 1) + result["Const"]
    less = constants.add(graph, "Less", f"{name}/negative", [index, zero], dtype) + result["Less"]
    node.input[place] = constants.add(graph, "SelectV2", name, [less, beyond, index], dtype) + result["SelectV2"]
