"""Computes no more of a tensor than is read of it: what reads the first token of the last layer alone (x[:, 0]) needs
the last layer's query, attention, output and feed-forward part for that token only.

    x = attention(h); x[:, 0]       ->       attention of h[:, 0:1] to all of h; x[:, 0]

Backward through the graph, each tensor learns what is read of it: all, or a few positions of one axis. An operation
that treats positions apart hands that on to what it reads (parts.py), any other is cut behind. Nothing is computed
twice: where somebody reads all of a tensor, it is computed, and cut for the others.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfopt_optimizer.passes import axes, constants, identities, picks, unread_nodes
from tfopt_optimizer.passes.dimensions import Dimensions, Shape, sources
from tfopt_optimizer.passes.parts import Part, needs, union

_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"})
_STRING = 7  # DataType


def run(graph: Any, shapes: Mapping[str, Shape | None], keep: Iterable[str]) -> int:
    """Rewrites a frozen GraphDef; returns how many products became smaller, 0 for a graph that is as it was.

    `shapes`: of all tensors ("node:0"), as TensorFlow infers them; inputs whose first length is None have the same
    number of rows. `keep`: names of the nodes that are the graph's outputs. What no output needs any more is removed,
    inputs are not.
    """
    nodes = {node.name: node for node in graph.node}
    try:
        order = [nodes[name] for name in graphlib.TopologicalSorter(_before(nodes)).static_order()]
    except graphlib.CycleError:  # loops of TensorFlow 1
        return 0
    passed = identities.skip(order)
    known, kept = Dimensions(order, shapes), frozenset(name.partition(":")[0] for name in keep)
    reading = _Reading(order, known, kept, frozenset())
    while wrong := reading.stuck or reading.useless():
        reading = _Reading(order, known, kept, reading.whole | wrong)
    if reading.less:
        unread_nodes.rewrite(graph, order, known, reading.less)
        unread_nodes.prune(graph, kept)
    else:
        identities.undo(passed)
    return sum(_is_product(nodes[name]) for name in reading.less)


def _before(nodes: Mapping[str, Any]) -> dict[str, set[str]]:
    return {name: {each.lstrip("^").partition(":")[0] for each in node.input} for name, node in nodes.items()}


def _is_product(node: Any) -> bool:
    return node.op in _PRODUCTS or (node.op == "Einsum" and len(sources(node)) > 1)


def _has_content(node: Any) -> bool:
    """Not strings, nor a weight that comes later (engines/weightless.py): what stands for that is found by its name."""
    proto = constants.told(node, "value").tensor
    told = proto.tensor_content or any(field.name.endswith("_val") for field, _ in proto.ListFields())
    return proto.dtype != _STRING and bool(told)


class _Reading:
    """What is read of each tensor. `less`: the nodes of which a part is enough; `whole`: those that are left alone;
    `stuck`: those that were to read a part of what is whole and cannot be cut to it."""

    def __init__(self, order: Sequence[Any], known: Dimensions, keep: frozenset[str], whole: frozenset[str]) -> None:
        self.whole, self.less = whole, dict[str, unread_nodes.Less]()
        self._known, self._nodes = known, {node.name: node for node in order}
        self.stuck = set[str]()
        # node -> what of which result, or None for all of it -> who asks
        self._asked: dict[str, dict[tuple[str, Part | None], set[str]]] = {}
        self._shaped: set[str] = set()  # nodes whose shape is read
        for name in keep:
            self._asked[name] = {(name, None): set()}
        for node in reversed(order):
            if node.name in self._asked or node.name in self._shaped:
                self._visit(node)

    def useless(self) -> frozenset[str]:
        """Of `less`: what hangs together, and has no product in it."""
        groups: dict[str, set[str]] = {}
        for name, less in self.less.items():
            group = groups.get(name, {name})
            for part, tensor in zip(less.needs, sources(self._nodes[name]), strict=False):
                if isinstance(part, Part) and (source := self._source(tensor)) in self.less:
                    group = group | groups.get(source, {source})
            groups |= dict.fromkeys(group, group)
        return frozenset(name for name in self.less if not any(_is_product(self._nodes[each]) for each in groups[name]))

    def _source(self, tensor: str) -> str:
        node = self._nodes[tensor.partition(":")[0]]
        return self._source(sources(node)[0]) if node.op == "Shape" else str(node.name)

    def _visit(self, node: Any) -> None:
        if node.op == "Shape":
            self._measure(node)
            return
        less = self._less(node)
        if less is not None:
            self.less[node.name] = less
        for tensor, part in self._wants(node, less):
            self._ask(tensor, part, node)
        self._ask_first(node)
        self._check_cuts(node, less)

    def _wants(self, node: Any, less: unread_nodes.Less | None) -> list[tuple[str, Part | None]]:
        if less is not None:
            wanted = zip(sources(node), less.needs, strict=True)
            return [(name, need) for name, need in wanted if need is None or isinstance(need, Part)]
        part = picks.picked(node, self._known)
        return [(name, None) for name in sources(node)] if part is None else picks.asks(node, part)

    def _check_cuts(self, node: Any, less: unread_nodes.Less | None) -> None:
        for (tensor, part), askers in self._asked.get(node.name, {}).items():
            dims = self._known.of(tensor)
            if part is None or dims is None or (less is not None and part == less.part):
                continue
            given, own = (dims, part) if less is None else (less.part.left(dims), part.within(less.part))
            if not own.cuttable(given):
                self.stuck |= askers

    def _less(self, node: Any) -> unread_nodes.Less | None:
        asked = [part for _, part in self._asked.get(node.name, ())]
        if not asked or None in asked or node.name in self.whole or picks.picked(node, self._known) is not None:
            return None
        part = union(part for part in asked if part is not None)
        if part is None or (node.name in self._shaped and not part.size.known):
            return None
        if node.op == "Const" and not _has_content(node):
            return None
        found = needs(node, part, self._known, self._nodes)
        return None if found is None else unread_nodes.Less(part, found)

    def _measure(self, node: Any) -> None:
        """Who asks for the shape of a part needs the part; who asks for the whole shape can be told it in any case."""
        (tensor,) = sources(node)
        for _, part in self._asked.get(node.name, ()):
            if part is not None:
                self._ask(tensor, part, node)
            else:
                self._shaped.add(tensor.partition(":")[0])
                if not tensor.endswith(":0"):
                    self._ask(tensor, None, node)
        self._ask_first(node)

    def _ask(self, tensor: str, part: Part | None, asker: Any) -> None:
        name, _, number = tensor.partition(":")
        told = int(number) < axes.results(self._nodes[name])
        found = self._asked.setdefault(name, {}).setdefault((tensor, part if told else None), set())
        found.add(str(asker.name))

    def _ask_first(self, node: Any) -> None:
        """What must have run before."""
        for name in node.input:
            if name.startswith("^"):
                self._ask(f"{name[1:]}:0", None, node)
