"""Branches that the values of a request decide: one `if` for all rows of a batch, so rows are not independent. Pure.

    answer = tf.cond(tf.reduce_sum(x) > 0, ...)      merged with another request, the sum is another one

No sample shows this for certain: the others in a batch may all lie on one side. What only a shape decides is no matter,
unless values decided the shape (how many lie above something); nor is an assertion, whose result nobody computes with.
Branches inside loops are left to the proof by running: a loop over the rows (`tf.map_fn`) decides for each row by
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfopt_optimizer.graphs import Graph, calls, source

# By operation, which of its inputs decides. A Switch whose predicate is a LoopCond is a loop of TF1.
_DECIDED_BY = {"If": 0, "StatelessIf": 0, "Case": 0, "StatelessCase": 0, "Switch": 1, "RefSwitch": 1}
_LOOPS = ("While", "StatelessWhile")
# Their results say nothing of their inputs' values.
_VALUELESS = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "TensorListLength", "LoopCond")
# As many results as the values say.
_VALUE_SHAPED = re.compile(r"Where|Unique.*|ListDiff|DynamicPartition|StringSplit.*|NonMaxSuppression.*|RaggedRange")
_HANDLES = (20, 21)  # resource and variant: a variable's value is not the request's


def decided(graph: Graph, outputs: Iterable[str], fed: Iterable[str]) -> tuple[str, ...]:
    """Names of the branches below `outputs` that the values of the tensors `fed` decide, sorted."""
    found: set[str] = set()
    scopes = [_Scope(graph.nodes, list(outputs), frozenset(map(_tensor, fed)))]
    entered: set[tuple[str, frozenset[str]]] = set()
    while scopes:
        scope = scopes.pop()
        for node in scope.computed():
            place = _DECIDED_BY.get(node.op)
            if place is not None and place < len(node.input) and scope.follows(node.input[place]):
                found.add(str(node.name))
            if node.op in _LOOPS:
                continue
            skipped = 1 if node.op in _DECIDED_BY else 0  # a branch's arguments come after what decides
            for name in calls(node):
                function = graph.functions.get(name)
                if function is None:
                    continue
                arguments = function.signature.input_arg
                following = frozenset(
                    argument.name
                    for argument, edge in zip(arguments, node.input[skipped:], strict=False)
                    if argument.type not in _HANDLES and scope.follows(edge)
                )
                if (name, following) not in entered:
                    entered.add((name, following))
                    nodes = {each.name: each for each in function.node_def}
                    scopes.append(_Scope(nodes, list(function.ret.values()), following))
    return tuple(sorted(found))


class _Scope:
    """A graph or a function's body. `fed`: the tensors, or the arguments, that carry values of the request."""

    def __init__(self, nodes: Mapping[str, Any], outputs: list[str], fed: frozenset[str]) -> None:
        self._nodes, self._outputs, self._fed = nodes, outputs, fed
        self._following: dict[str, bool] = {}
        self._shaped: dict[str, bool] = {}
        self._any_shaped = any(_VALUE_SHAPED.fullmatch(node.op) for node in nodes.values())

    def computed(self, *below: str) -> Iterator[Any]:
        """The nodes that these edges, or the outputs, are computed from: control edges do not count."""
        seen: set[str] = set()
        todo = list(below or self._outputs)
        while todo:
            edge = todo.pop()
            name = source(edge)
            if edge.startswith("^") or name in seen or name not in self._nodes or _tensor(edge) in self._fed:
                continue
            seen.add(name)
            yield self._nodes[name]
            todo += self._nodes[name].input

    def follows(self, edge: str) -> bool:
        """Whether a tensor's values depend on the request's."""
        known, begun = self._following, set[str]()
        todo = [edge]
        while todo:
            current = todo[-1]
            name = source(current)
            if self._is_fed(current):
                known[current] = True
            elif name in self._nodes and self._nodes[name].op in _VALUELESS:
                known[current] = self._any_shaped and any(map(self._shape_follows, self._nodes[name].input))
            elif current not in known and name in self._nodes:
                edges = [e for e in self._nodes[name].input if not e.startswith("^")]
                waiting = [e for e in edges if e not in known and e not in begun]
                if waiting:
                    begun.add(current)
                    todo += waiting
                    continue
                known[current] = any(known.get(e, False) for e in edges)
            else:
                known.setdefault(current, False)
            todo.pop()
        return known[edge]

    def _shape_follows(self, edge: str) -> bool:
        """Whether a tensor's shape depends on the request's values: below it lies what counts them."""
        if edge not in self._shaped:
            self._shaped[edge] = False  # what a loop comes back to
            counting = [node for node in self.computed(edge) if _VALUE_SHAPED.fullmatch(node.op)]
            self._shaped[edge] = any(self.follows(e) for node in counting for e in node.input if e[0] != "^")
        return self._shaped[edge]

    def _is_fed(self, edge: str) -> bool:
        return _tensor(edge) in self._fed or source(edge) in self._fed


def _tensor(edge: str) -> str:
    return edge if ":" in edge else f"{edge}:0"
