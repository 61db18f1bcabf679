"""Whole numbers are divided downward: TensorFlow's -7 // 2 is -4 and its -7 % 2 is 1, what tf2onnx makes of them is -3
and -1, ONNX's division being toward zero.

Where the remainder of that is not 0 and has another sign than the divisor, the quotient is one too large, and the
remainder lacks a divisor. Neither leaves its type when that is mended.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tfopt_optimizer.passes import constants

_SIGNED = frozenset({3, 5, 6, 9})  # DataType: int32, int16, int8, int64


def run(graph: Any) -> int:
    """Rewrites a GraphDef and its functions; returns how many divisions and remainders there are."""
    bodies = [SimpleNamespace(node=function.node_def) for function in graph.library.function]
    return _rewritten(graph, inside=False) + sum(_rewritten(body, inside=True) for body in bodies)


def _rewritten(graph: Any, inside: bool) -> int:
    found = [n for n in graph.node if n.op in ("FloorDiv", "FloorMod") and n.attr["T"].type in _SIGNED]
    for node in found:
        _floor(graph, node, inside)
    return len(found)


def _floor(graph: Any, node: Any, inside: bool) -> None:
    dtype, (x, by) = node.attr["T"].type, node.input[:2]
    # A function's nodes name the results of others, a graph's no more than the node.
    named = {"Const": ":output:0", "SelectV2": ":output:0", "Sign": ":y:0"} if inside else {}
    other = ":z:0" if inside else ""

    def add(name: str, op: str, *given: str) -> str:
        return constants.add(graph, op, f"{node.name}/tfopt_{name}", list(given), dtype) + named.get(op, other)

    def scalar(name: str, value: int) -> str:
        return constants.scalar(graph, f"{node.name}/tfopt_{name}", dtype, value) + named.get("Const", other)

    quotient, zero = add("quotient", "TruncateDiv", x, by), scalar("zero", 0)
    remainder = add("remainder", "Sub", x, add("multiple", "Mul", quotient, by))
    apart = add("apart", "Less", add("signs", "Mul", add("sign", "Sign", remainder), by), zero)
    if node.op == "FloorDiv":
        constants.become(node, "Sub", [quotient, add("excess", "SelectV2", apart, scalar("one", 1), zero)])
    else:
        constants.become(node, "AddV2", [remainder, add("lack", "SelectV2", apart, by, zero)])
