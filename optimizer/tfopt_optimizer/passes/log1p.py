"""Log1p(x) -> operations that ONNX has, without losing the digits that Log1p is there to keep.

With u = 1 + x, rounded: log(u) * x / (u - 1) is log1p(x) to the last digits, since the rounding errors of u cancel
(D. Goldberg, What Every Computer Scientist Should Know About Floating-Point Arithmetic, theorem 4). Where u is 1 the
answer is x. Above 1 nothing is lost in 1 + x, and log(u) alone also takes infinity.
"""

from __future__ import annotations

from typing import Any

from tfopt_optimizer.passes import constants


def run(graph: Any) -> int:
    """Rewrites a GraphDef in place; returns how many nodes were changed. Function bodies are left alone."""
    found = [node for node in graph.node if node.op == "Log1p"]
    for node in found:
        _rewrite(graph, node)
    return len(found)


def _rewrite(graph: Any, node: Any) -> None:
    dtype, x = node.attr["T"].type, node.input[0]

    def add(op: str, *inputs: str) -> str:
        return constants.add(graph, op, f"{node.name}/tfopt_{len(graph.node)}", list(inputs), dtype)

    one = constants.scalar(graph, f"{node.name}/tfopt_one", dtype, 1.0)
    u = add("AddV2", x, one)
    log, lost = add("Log", u), add("Sub", u, one)
    small = add("Mul", log, add("RealDiv", x, lost))
    exact = add("Greater", x, one)
    kept = add("SelectV2", exact, log, small)
    constants.become(node, "SelectV2", [add("Equal", u, one), x, kept])
