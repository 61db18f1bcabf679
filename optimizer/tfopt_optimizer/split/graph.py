"""A signature's graph as the split sees it: operations, the tensors between them, and nothing of TensorFlow's library.

Called functions are inlined before (source.py); those of control flow (While, If) stay, as the operations they are made
of. A tensor is written "node:port", as in a GraphDef.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from tfopt_optimizer.plan import Shape

# Operations whose result has the shape of their first input.
SAME_SHAPE = frozenset({
    "Identity", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "Cast", "StringLower", "StringUpper",
    "StringStrip", "StringToHashBucketFast", "StringToHashBucketStrong", "StringToHashBucket", "AsString",
    "StringToNumber", "StringLength", "RegexFullMatch", "StaticRegexFullMatch", "RegexReplace", "StaticRegexReplace",
    "ZerosLike", "OnesLike", "LogicalNot", "Neg", "Abs", "Sign", "Log", "Log1p", "Exp", "Sqrt", "Rsqrt", "Square",
    "Relu", "Sigmoid", "Tanh", "IsNan", "IsFinite", "IsInf", "Floor", "Ceil", "Round",
})  # fmt: skip
SHAPES = frozenset({"Shape", "Size", "Rank"})
_LOOKUPS = frozenset({"LookupTableFindV2", "LookupTableFind"})  # ... of their second: the first is the table


@dataclasses.dataclass(frozen=True)
class Tensor:
    """`dtype` by TensorFlow's name ("float", "string", "resource"), `shape` None for an unknown rank."""

    dtype: str
    shape: Shape | None


@dataclasses.dataclass(frozen=True)
class Node:
    """`inner` names the kinds of operations in the functions that it calls, however deep."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    inner: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Graph:
    """`nodes` in an order in which every node comes after its inputs. `inputs` and `outputs`: the signature's names to
    tensors. `variables` and `tables`: nodes that only hold such a resource's handle. `effects`: nodes that act beyond
    their result and that an answer waits for. `seen`: shapes of tensors as records showed them, with None for what
    differed; `rows`: those of them whose first dimension was always the request's number of rows."""

    nodes: Mapping[str, Node]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    variables: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    effects: tuple[str, ...] = ()
    seen: Mapping[str, Shape] = dataclasses.field(default_factory=dict)
    rows: frozenset[str] = frozenset()

    @functools.cached_property
    def fed(self) -> frozenset[str]:
        """The nodes that a request's tensors come in by."""
        return frozenset(node_of(t) for t in self.inputs.values())

    def tensor(self, name: str) -> Tensor:
        node, _, port = name.partition(":")
        return self.nodes[node].outputs[int(port or 0)]

    @functools.cached_property
    def bound(self) -> frozenset[str]:
        """The nodes that depend on what is fed, or read a table. All others are the same in every call."""
        found = set(self.fed)
        for node in self.nodes.values():
            if any((n := node_of(t)) in found or n in self.tables for t in node.inputs):
                found.add(node.name)
        return frozenset(found)

    @functools.cached_property
    def likeness(self) -> Mapping[str, str]:
        """Tensor -> the tensor that it has the shape of for sure (itself if none)."""
        found: dict[str, str] = {}
        for node in self.nodes.values():
            source = shape_source(node)
            for port in range(len(node.outputs)):
                name = f"{node.name}:{port}"
                found[name] = found.get(source, source) if source and port == 0 else name
        return found

    def shape(self, tensor: str) -> Shape | None:
        """The shape as far as it is known, with that of the tensor it is like."""
        if tensor in self.seen:
            return self.seen[tensor]
        own = self.tensor(tensor).shape
        return own if own is not None else self.tensor(self.likeness[tensor]).shape

    def has_rows(self, tensor: str) -> bool:
        """Whether the first dimension is that of a fed tensor with an unknown number of rows: for sure, or in every
        record that was seen."""
        if tensor in self.seen:
            return tensor in self.rows
        origin = self.likeness[tensor]
        shape = self.tensor(origin).shape
        return node_of(origin) in self.fed and bool(shape) and shape is not None and shape[0] is None


def node_of(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]


def shape_source(node: Node) -> str:
    """The input whose shape the node's first output has, "" when no input's."""
    if node.op in SAME_SHAPE and node.inputs:
        return node.inputs[0]
    return node.inputs[1] if node.op in _LOOKUPS and len(node.inputs) > 1 else ""


def crosses(tensor: Tensor) -> bool:
    """Whether it can be handed from one side to the other. Lists of tensors and stacks are handles of their maker's."""
    return tensor.dtype not in ("resource", "variant")


def needed(graph: Graph) -> Graph:
    """The graph without the nodes that neither an output nor an effect depends on."""
    seen: set[str] = set()
    todo = [node_of(t) for t in graph.outputs.values()] + list(graph.effects)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [node_of(t) for t in graph.nodes[name].inputs]
    kept = {n: node for n, node in graph.nodes.items() if n in seen or n in graph.fed}
    return dataclasses.replace(graph, nodes=kept)


def numeric_shapes(graph: Graph) -> Graph:
    """`Shape` of strings becomes `Shape` of numbers that are like them, where there are such.

    A device can tell the shape of what it is given, and the shape of a string tensor would have to be handed over as
    values, which compilers refuse as the shape of something else.
    """
    numbers: dict[str, str] = {}
    for node in graph.nodes.values():
        for port, tensor in enumerate(node.outputs):
            name = f"{node.name}:{port}"
            if tensor.dtype not in ("string", "resource", "variant") and graph.likeness[name] != name:
                numbers.setdefault(graph.likeness[name], name)
    done: dict[str, Node] = {}
    for node in graph.nodes.values():
        done[node.name] = node
        if node.op in SHAPES and graph.tensor(node.inputs[0]).dtype == "string":
            like = numbers.get(graph.likeness[node.inputs[0]])
            if like:
                done[node.name] = dataclasses.replace(node, inputs=(like,))
    return dataclasses.replace(graph, nodes=_ordered(done))


def _ordered(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Nodes after their inputs, by names alone otherwise: TensorFlow lists a graph in another order in every process.
    Without recursion: graphs are deeper than Python's stack. ValueError for a circle."""
    found: dict[str, Node] = {}
    begun = set[str]()
    for root in sorted(nodes):
        todo = [root]
        while todo:
            name = todo[-1]
            missing = [n for t in nodes[name].inputs if (n := node_of(t)) in nodes and n not in found]
            if name in found or not missing:
                todo.pop()
                found.setdefault(name, nodes[name])
            elif name in begun:
                raise ValueError(f"the graph runs in a circle through {name}")
            else:
                begun.add(name)
                todo += missing
    return found


def ordered(graph: Graph) -> Graph:
    """The same graph with every node after what it needs."""
    return dataclasses.replace(graph, nodes=_ordered(graph.nodes))
