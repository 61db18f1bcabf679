"""Which tensors are computed from operations of a kind, each result of a function by itself. Pure.

    rounded = Lineage(graph, lambda node: node.op == "Cast")
    rounded.below("StatefulPartitionedCall:1", fed)      # whether that result is, whatever the others are

Loops and branches count as a whole: what lies in any of their functions counts for all of their results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tfopt_optimizer.graphs import Graph, calls, source


class Lineage:
    def __init__(self, graph: Graph, wanted: Callable[[Any], bool]) -> None:
        self._graph, self._wanted = graph, wanted
        self._results: dict[tuple[str, int], tuple[bool, frozenset[int]]] = {}
        self._bodies: dict[str, bool] = {}

    def below(self, tensor: str, fed: Iterable[str]) -> bool:
        """Not beyond the tensors `fed`."""
        return self._walk(self._graph.nodes, tensor, frozenset(map(_tensor, fed)))[0]

    def _walk(self, nodes: Mapping[str, Any], start: str, fed: frozenset[str]) -> tuple[bool, set[str]]:
        """Whether a wanted node is among those that an edge depends on, and what else it begins at: arguments."""
        arguments, seen, todo = set[str](), set[str](), [start]
        while todo:
            edge = todo.pop()
            name = source(edge)
            node = nodes.get(name)
            if edge.startswith("^") or _tensor(edge) in fed:
                continue
            if node is None:
                arguments.add(name)
                continue
            function = _called(node, self._graph)
            place = edge if function is not None else name
            if place in seen:
                continue
            seen.add(place)
            if function is not None:
                found, used = self._result(function, _number(edge, function))
                todo += [node.input[i] for i in used if i < len(node.input)]
            else:
                found = self._wanted(node) or any(map(self._inside, calls(node)))
                todo += node.input
            if found:
                return True, arguments
        return False, arguments

    def _result(self, function: Any, number: int) -> tuple[bool, frozenset[int]]:
        """Of one result of a function: whether it is computed so inside, and the numbers of the arguments it needs."""
        key = (function.signature.name, number)
        if key not in self._results:
            names = [argument.name for argument in function.signature.input_arg]
            self._results[key] = (False, frozenset(range(len(names))))  # for one that calls itself
            nodes = {node.name: node for node in function.node_def}
            result = function.ret[function.signature.output_arg[number].name]
            found, used = self._walk(nodes, result, frozenset())
            self._results[key] = (found, frozenset(i for i, name in enumerate(names) if name in used))
        return self._results[key]

    def _inside(self, name: str) -> bool:
        """Whether a function, or one that it calls, has a wanted node."""
        function = self._graph.functions.get(name)
        if function is None:
            return False
        if name not in self._bodies:
            self._bodies[name] = False
            nodes = function.node_def
            self._bodies[name] = any(self._wanted(n) or any(map(self._inside, calls(n))) for n in nodes)
        return self._bodies[name]


def _called(node: Any, graph: Graph) -> Any:
    """The function of a node that does nothing but call it."""
    name = node.attr["f"].func.name if "PartitionedCall" in node.op and "f" in node.attr else node.op
    return graph.functions.get(name)


def _number(edge: str, function: Any) -> int:
    """Which of a function's results: "call:2" in a graph, "call:output:2" or "call:result:0" in a function's body."""
    parts = edge.split(":")
    names = [argument.name for argument in function.signature.output_arg]
    if len(parts) == 3 and parts[1] in names:
        return names.index(parts[1])
    return int(parts[-1]) if len(parts) > 1 else 0


def _tensor(edge: str) -> str:
    return edge if ":" in edge else f"{edge}:0"
