"""Roots of 0 as LiteRT computes them: 1 / sqrt(0) is infinite in TensorFlow, and NaN in XNNPACK.

XNNPACK takes a step of Newton's from an estimate, which is infinite there already. LiteRT's converter makes that
operation of a division by a root as well: an absolute value between the two, which a root is anyway, keeps it from
that. Both are XNNPACK's, and right. A root of what is at least a positive constant, or has one added (the norm of every
layer), is left as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfopt_optimizer.passes import bodies, constants
from tfopt_optimizer.passes.bodies import Body

_FLOAT = 1  # DataType
_MADE = "tfopt_root"
_GUARDS = frozenset({"Add", "AddV2", "Maximum"})
_POWERS = {0.5: "Sqrt", -0.5: "Rsqrt"}


def run(graph: Any) -> int:
    """Rewrites a GraphDef and its functions in place; returns how many roots were changed."""
    return sum(_rewritten(body) for body in bodies.of(graph))


def _rewritten(body: Body) -> int:
    nodes = {node.name: node for node in body.nodes}
    found = {node.name: kind for node in nodes.values() if (kind := _kind(nodes, node))}
    for name, kind in found.items():
        node = nodes[name]
        root = body.add("Sqrt", f"{name}/{_MADE}", [node.input[0]], _FLOAT)
        if kind == "Sqrt":
            body.become(node, "Abs", [root])
        else:
            body.become(node, "Reciprocal", [body.add("Abs", f"{name}/tfopt_size", [root], _FLOAT)])
    return len(found)


def _kind(nodes: dict[str, Any], node: Any) -> str:
    """Which of the two a node computes that may meet a 0; "" where it is none."""
    kind = node.op
    if kind == "Pow":
        exponents = set(_numbers(nodes, node.input[1]).tolist())
        kind = _POWERS.get(exponents.pop(), "") if len(exponents) == 1 else ""
    if kind not in _POWERS.values() or constants.told(node, "T").type != _FLOAT or node.name.endswith(_MADE):
        return ""
    return "" if _positive(nodes, node.input[0]) else kind


def _positive(nodes: dict[str, Any], edge: str) -> bool:
    node = _source(nodes, edge)
    if node is None or node.op not in _GUARDS:
        return False
    return any(len(numbers := _numbers(nodes, each)) and numbers.min() > 0 for each in node.input[:2])


def _source(nodes: dict[str, Any], edge: str) -> Any:
    node = nodes.get(edge.partition(":")[0])
    while node is not None and node.op == "Identity":
        node = nodes.get(node.input[0].partition(":")[0])
    return node


def _numbers(nodes: dict[str, Any], edge: str) -> np.ndarray:
    """Of a constant of floats; none where it is something else."""
    node = _source(nodes, edge)
    if node is None or node.op != "Const" or constants.told(node, "dtype").type != _FLOAT:
        return np.empty(0, np.float32)
    tensor = constants.told(node, "value").tensor
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, np.float32)
    return np.array(tensor.float_val, np.float32)
