"""Erfc(x) -> 1 - Erf(x): ONNX has no Erfc, and TensorFlow's exact GELU is made of it since 2.16.

The difference cancels for large x, where Erfc is 1e-8 and this gives 0: an error of the size of float32 rounding beside
the values that a GELU multiplies it with. The gate has the last word.
"""

from __future__ import annotations

from typing import Any

from tfopt_optimizer.passes import constants


def run(graph: Any) -> int:
    """Rewrites a GraphDef in place; returns how many nodes were changed. Function bodies are left alone."""
    found = [node for node in graph.node if node.op == "Erfc"]
    for node in found:
        dtype = node.attr["T"].type
        one = constants.scalar(graph, f"{node.name}/tfopt_one", dtype, 1.0)
        erf = constants.add(graph, "Erf", f"{node.name}/tfopt_erf", [node.input[0]], dtype)
        constants.become(node, "Sub", [one, erf])
    return len(found)
