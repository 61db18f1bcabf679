"""The bodies of a graph: its own nodes and those of its functions, to which passes add operations alike.

Edges are named differently in them: "node" in a graph, "node:y:0" in a function, after the operation's output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from types import SimpleNamespace
from typing import Any

from tfopt_optimizer.passes import constants

_OUTPUTS = (
    ("output", "Const Identity"),
    ("activations", "Relu Softplus"),
    ("y", "Abs Exp Log1p Neg Reciprocal Rsqrt Sign Sqrt"),
    ("z", "AddV2 FloorDiv FloorMod Less Mul Pow RealDiv Sub TruncateDiv"),
)
_OUTPUT = {op: name for name, ops in _OUTPUTS for op in ops.split()} | {"SelectV2": "output"}


class Body:
    """`results`: what a function returns, by name -> edge; None in a graph."""

    def __init__(self, node: Any, results: MutableMapping[str, str] | None = None) -> None:
        self._holder, self._results = SimpleNamespace(node=node), results
        self.nodes: Iterable[Any] = node

    def add(self, op: str, name: str, inputs: list[str], dtype: int) -> str:
        """Adds an operation with the one type attribute `T`; returns its edge."""
        return self._edge(op, constants.add(self._holder, op, name, inputs, dtype))

    def scalar(self, name: str, dtype: int, value: float) -> str:
        """Adds a constant of one value; returns its edge."""
        return self._edge("Const", constants.scalar(self._holder, name, dtype, value))

    def become(self, node: Any, op: str, inputs: list[str]) -> None:
        """Turns a node into another operation of the same type; who reads it reads that."""
        before, after = self._edge(node.op, node.name), self._edge(op, node.name)
        constants.become(node, op, inputs)
        if before != after and self._results is not None:
            self._rename(before, after)

    def _edge(self, op: str, name: str) -> str:
        return name if self._results is None else f"{name}:{_OUTPUT[op]}:0"

    def _rename(self, before: str, after: str) -> None:
        assert self._results is not None
        for node in self.nodes:
            for place, edge in enumerate(node.input):
                if edge == before:
                    node.input[place] = after
        for name, edge in self._results.items():
            if edge == before:
                self._results[name] = after


def of(graph: Any) -> Iterator[Body]:
    """Of a GraphDef."""
    yield Body(graph.node)
    for function in graph.library.function:
        yield Body(function.node_def, function.ret)
