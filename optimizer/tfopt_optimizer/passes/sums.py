"""Sums of 32-bit whole numbers wrap around in TensorFlow; ONNX Runtime's stay at 2^31 - 1.

They are taken in 64 bits, of which the conversion back keeps the lower half. Sums inside loops and branches stay as
they are: there a node's consumers name its output as its operation does.
"""

from __future__ import annotations

from typing import Any

from tfopt_optimizer.passes import constants

_INT32, _INT64 = 3, 9  # DataType


def run(graph: Any) -> int:
    """Rewrites a GraphDef; returns how many sums there are."""
    found = [node for node in graph.node if node.op == "Sum" and node.attr["T"].type == _INT32]
    for node in found:
        _widen(graph, node)
    return len(found)


def _widen(graph: Any, node: Any) -> None:
    wide = graph.node.add(op="Cast", name=f"{node.name}/tfopt_wide", input=node.input[:1])
    wide.attr["SrcT"].type, wide.attr["DstT"].type = _INT32, _INT64
    total = graph.node.add(op="Sum", name=f"{node.name}/tfopt_sum", input=[wide.name, node.input[1]])
    for name in ("Tidx", "keep_dims"):
        total.attr[name].CopyFrom(node.attr[name])
    total.attr["T"].type = _INT64
    constants.become(node, "Cast", [total.name])
    node.ClearField("attr")
    node.attr["SrcT"].type, node.attr["DstT"].type = _INT64, _INT32
