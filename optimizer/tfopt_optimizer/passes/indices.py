"""Negative indices become larger than any table: ONNX counts them from a table's end, TensorFlow refuses them, and what
is beyond a table both refuse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tfopt_optimizer.engines.indices import Graph
from tfopt_optimizer.passes import constants

_LOOK_UPS = frozenset({"Gather", "GatherV2", "GatherNd"})


def run(graph: Any, inputs: Iterable[str]) -> int:
    """Rewrites a GraphDef; returns how many look-ups by what `inputs` (names of nodes) say there are."""
    nodes = {node.name: node for node in graph.node}
    origins = Graph(nodes, {name: name for name in inputs}, {})
    found = [node for node in graph.node if node.op in _LOOK_UPS and origins.depends(node.input[1])]
    for node in found:
        _guard(graph, node)
    return len(found)


def _guard(graph: Any, node: Any) -> None:
    dtype, index, name = node.attr["Tindices"].type, node.input[1], f"{node.name}/tfopt_index"
    zero = constants.scalar(graph, f"{name}/zero", dtype, 0)
    beyond = constants.scalar(graph, f"{name}/beyond", dtype, (1 << 31) - 1)
    less = constants.add(graph, "Less", f"{name}/negative", [index, zero], dtype)
    node.input[1] = constants.add(graph, "SelectV2", name, [less, beyond, index], dtype)
