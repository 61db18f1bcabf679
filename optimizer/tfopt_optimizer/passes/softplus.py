"""Softplus(x) -> max(x, 0) + log(1 + exp(-|x|)): LiteRT's log(1 + exp(x)) is infinite from 89 on, where x is meant."""

from __future__ import annotations

from typing import Any

from tfopt_optimizer.passes import bodies
from tfopt_optimizer.passes.bodies import Body


def run(graph: Any) -> int:
    """Rewrites a GraphDef and its functions in place; returns how many nodes were changed."""
    return sum(_rewritten(body) for body in bodies.of(graph))


def _rewritten(body: Body) -> int:
    found = [node for node in body.nodes if node.op == "Softplus"]
    for node in found:
        _rewrite(body, node)
    return len(found)


def _rewrite(body: Body, node: Any) -> None:
    dtype, x = node.attr["T"].type, node.input[0]

    def add(op: str, given: str) -> str:
        return body.add(op, f"{node.name}/tfopt_{op.lower()}", [given], dtype)

    body.become(node, "AddV2", [add("Relu", x), add("Log1p", add("Exp", add("Neg", add("Abs", x))))])
