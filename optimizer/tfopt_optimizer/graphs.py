"""What is below the outputs of a SavedModel's signature: its nodes, function bodies included, and the inputs they use.

Works on the messages of the private pool, so it needs no TensorFlow. Names of edges: "node", "node:1" (a graph),
"node:output:0" (a function's body), "^node" (control).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

MAIN = ""  # the scope of the graph itself


@dataclasses.dataclass(frozen=True)
class Placed:
    """A node and the function whose body it stands in (MAIN: the graph itself)."""

    scope: str
    node: Any

    @property
    def where(self) -> str:
        return f"{self.scope}/{self.node.name}" if self.scope else str(self.node.name)


class Graph:
    """A MetaGraphDef's graph with its functions, indexed by name."""

    def __init__(self, meta_graph: Any) -> None:
        self.meta_graph = meta_graph
        self.nodes: Mapping[str, Any] = {node.name: node for node in meta_graph.graph_def.node}
        self.functions: Mapping[str, Any] = {f.signature.name: f for f in meta_graph.graph_def.library.function}
        self._used: dict[str, frozenset[int]] = {}

    def below(self, tensors: Iterable[str], fed: Iterable[str] = ()) -> dict[str, Any]:
        """The graph's own nodes that these tensors depend on, control edges included, by name; not beyond `fed`.

        TF1 signatures may feed tensors in the middle of a graph: what would compute those never runs.
        """
        return _closure(self.nodes, tensors, frozenset(map(_tensor, fed)))

    def reached(self, tensors: Iterable[str], fed: Iterable[str] = ()) -> list[Placed]:
        """Every node that these tensors depend on; of a called function those that its results or effects need."""
        found = [Placed(MAIN, node) for node in self.below(tensors, fed).values()]
        entered: set[str] = set()
        todo = [name for placed in found for name in calls(placed.node)]
        while todo:
            name = todo.pop()
            function = self.functions.get(name)
            if function is None or name in entered:
                continue
            entered.add(name)
            body = self.body(function)
            found += [Placed(name, node) for node in body.values()]
            todo += [called for node in body.values() for called in calls(node)]
        return found

    def body(self, function: Any) -> dict[str, Any]:
        """The nodes of a function that its results or its control results depend on."""
        nodes = {node.name: node for node in function.node_def}
        return _closure(nodes, [*function.ret.values(), *function.control_ret.values()])

    def used_arguments(self, name: str) -> frozenset[int]:
        """Numbers of a function's arguments that its results or effects depend on, through the functions it calls."""
        if name in self._used:
            return self._used[name]
        function = self.functions[name]
        self._used[name] = frozenset(range(len(function.signature.input_arg)))  # for one that calls itself
        body = self.body(function)
        used = {source(edge) for edge in [*function.ret.values(), *function.control_ret.values()]}
        for node in body.values():
            used.update(source(edge) for edge in self.used_edges(node))
        arguments = [arg.name for arg in function.signature.input_arg]
        self._used[name] = frozenset(i for i, arg in enumerate(arguments) if arg in used)
        return self._used[name]

    def used_edges(self, node: Any) -> list[str]:
        """A node's incoming edges, without those into arguments that the function it calls ignores."""
        called = node.attr["f"].func.name if "Call" in node.op and "f" in node.attr else node.op
        function = self.functions.get(called)
        edges = list(node.input)
        if function is None:
            return edges
        used = self.used_arguments(called)
        count = len(function.signature.input_arg)
        return [edge for i, edge in enumerate(edges) if i >= count or i in used]

    def used(self, tensors: Iterable[str], fed: Sequence[str]) -> set[str]:
        """Which of the tensors `fed` these depend on; a call's unused arguments do not count."""
        names = {_tensor(tensor) for tensor in fed}
        seen: set[str] = set()
        found: set[str] = set()
        todo = list(tensors)
        while todo:
            edge = todo.pop()
            if not edge.startswith("^") and _tensor(edge) in names:
                found.add(_tensor(edge))
                continue
            name = source(edge)
            if name not in seen and name in self.nodes:
                seen.add(name)
                todo += self.used_edges(self.nodes[name])
        return {tensor for tensor in fed if _tensor(tensor) in found}

    def initialized(self) -> set[str]:
        """Variables that loading fills as a TF1 session does: by the restore operation and the model's initializer."""
        roots = [self.meta_graph.saver_def.restore_op_name]
        for key in ("saved_model_main_op", "legacy_init_op"):
            collection = self.meta_graph.collection_def.get(key)
            roots += list(collection.node_list.value) if collection is not None else []
        definition = self.meta_graph.signature_def.get("__saved_model_init_op")
        roots += [info.name for info in definition.outputs.values()] if definition is not None else []
        return {name for name, node in self.below(r for r in roots if r).items() if is_variable(node)}


def is_variable(node: Any) -> bool:
    return node.op in ("VarHandleOp", "VariableV2", "Variable")


def source(edge: str) -> str:
    """The node (or argument) that an edge comes from."""
    return edge.lstrip("^").split(":")[0]


def calls(node: Any) -> Iterator[str]:
    """Names of the functions that a node may call; any operation's name may be one."""
    yield node.op
    for _, value in sorted(node.attr.items()):
        if value.HasField("func"):
            yield value.func.name
        yield from (f.name for f in value.list.func)


def _tensor(edge: str) -> str:
    """A graph's edge with its output number: "x" is "x:0"."""
    return edge if ":" in edge else f"{edge}:0"


def _closure(nodes: Mapping[str, Any], edges: Iterable[str], fed: frozenset[str] = frozenset()) -> dict[str, Any]:
    """In the order of `nodes`: maps of protobuf have none of their own, and reports should not change between runs."""
    found: set[str] = set()
    todo = list(edges)
    while todo:
        edge = todo.pop()
        name = source(edge)
        if name in found or name not in nodes or (fed and _tensor(edge) in fed):
            continue
        found.add(name)
        todo += nodes[name].input
    return {name: node for name, node in nodes.items() if name in found}
