"""The host and device segments that a signature falls into by the static rule, in the order in which they run.

No TensorFlow: functions are walked through as they are called. The split itself (split/partition.py) knows more, such
as shapes and what compilers say, and may move operations from here to the host.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tfopt_protos import dtypes

from tfopt_optimizer import placement
from tfopt_optimizer.graphs import Graph, calls, source
from tfopt_optimizer.ops import Registry
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.split.partition import DEVICE, HEAVY, HOST, UNBOUNDED

_ROUNDS = 20
_STRINGS = frozenset({dtypes.NUMBERS["string"]})


@dataclasses.dataclass(frozen=True)
class Part:
    """One segment; `kinds` counts its operations, the most frequent first."""

    where: str
    kinds: Mapping[str, int]


def parts(graph: Graph, registry: Registry, signature: SignatureInfo) -> tuple[Part, ...]:
    """Device work without a product, a convolution or a look-up counts as the host's, as in a cut."""
    light: set[str] = set()
    for _ in range(_ROUNDS):
        walk = _Walk(graph, registry, light)
        walk.signature(signature)
        more = {n for level, names in walk.names.items() if level % 2 and level not in walk.heavy for n in names}
        if not more - light:
            break
        light |= more
    found = []
    for level, kinds in sorted(walk.kinds.items()):
        ordered = dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
        found.append(Part(DEVICE if level % 2 else HOST, ordered))
    return tuple(found)


class _Walk:
    """Levels of all operations: even ones are host segments, odd ones device segments."""

    def __init__(self, graph: Graph, registry: Registry, light: Collection[str]) -> None:
        self._graph, self._registry, self._light = graph, registry, light
        self.kinds: dict[int, Counter[str]] = {}
        self.names: dict[int, list[str]] = {}
        self.heavy: set[int] = set()

    def signature(self, info: SignatureInfo) -> None:
        fed = [t.tensor for t in info.inputs]
        nodes = self._graph.below([t.tensor for t in info.outputs], fed)
        self._levels(nodes, {source(tensor): 0 for tensor in fed}, "", ())

    def _levels(
        self, nodes: Mapping[str, Any], given: Mapping[str, int | None], path: str, within: Sequence[str]
    ) -> dict[str, list[int | None]]:
        """Node -> the levels of its outputs (one for all, but for calls). None: the same in every call."""
        found: dict[str, list[int | None]] = {name: [level] for name, level in given.items()}
        for name in _ordered(nodes, given):
            node = nodes[name]
            before = [_level(found, edge) for edge in node.input if not edge.startswith("^")]
            function = _called(self._graph, node)
            if function is not None and function.signature.name not in within:
                found[name] = self._call(function, before, f"{path}/{name}", within)
            else:
                found[name] = [self._place(node, f"{path}/{name}", [b for b in before if b is not None])]
        return found

    def _call(self, function: Any, before: Sequence[int | None], path: str, within: Sequence[str]) -> list[int | None]:
        arguments = [arg.name for arg in function.signature.input_arg]
        given = dict(zip(arguments, before, strict=False))
        levels = self._levels(self._graph.body(function), given, path, (*within, function.signature.name))
        return [_level(levels, function.ret[out.name]) for out in function.signature.output_arg]

    def _place(self, node: Any, place: str, before: Sequence[int]) -> int | None:
        if not before:
            return None
        least = max(before)
        if node.op in placement.NEUTRAL:
            return least
        on_host = place in self._light or node.op in UNBOUNDED
        # Lists of tensors (variants) are fine within a segment, as in every recurrent network.
        on_host = on_host or bool(placement.why_on_host(node, self._graph, self._registry, _STRINGS))
        level = least if least % 2 == (not on_host) else least + 1
        self.kinds.setdefault(level, Counter())[node.op] += 1
        self.names.setdefault(level, []).append(place)
        if HEAVY & {node.op, *_inside(self._graph, node)}:
            self.heavy.add(level)
        return level


def _level(found: Mapping[str, Sequence[int | None]], edge: str) -> int | None:
    """Of an edge; its last part is the number of the output, where it has one."""
    levels = found.get(source(edge), [None])
    number = edge.rpartition(":")[2]
    return levels[int(number)] if number.isdigit() and ":" in edge and int(number) < len(levels) else levels[0]


def _called(graph: Graph, node: Any) -> Any:
    """The function that a call computes; None for loops and branches, which run on one side as a whole."""
    if "PartitionedCall" in node.op:
        return graph.functions.get(node.attr["f"].func.name)
    return graph.functions.get(node.op)


def _inside(graph: Graph, node: Any) -> set[str]:
    kinds, todo, seen = set[str](), list(calls(node)), set[str]()
    while todo:
        name = todo.pop()
        if name in graph.functions and name not in seen:
            seen.add(name)
            for inner in graph.functions[name].node_def:
                kinds.add(inner.op)
                todo += calls(inner)
    return kinds


def _ordered(nodes: Mapping[str, Any], given: Collection[str]) -> list[str]:
    """Nodes after those that they need, without what is given. TF1's loops are entered once."""
    found: dict[str, None] = {}
    begun = set(given)
    for root in nodes:
        todo = [root]
        while todo:
            name = todo[-1]
            if name in begun:
                todo.pop()
                if name not in given:
                    found[name] = None
                continue
            begun.add(name)
            todo += [n for edge in nodes[name].input if (n := source(edge)) in nodes and n not in begun]
    return list(found)
