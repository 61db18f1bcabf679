"""Computes what treats positions apart for those positions alone that rows have, whatever their lengths.

    texts of 30 and 90 tokens, [2, 90, 256]    ->    [120, 256] in products with weights, norms and activations;
                                                     [2, 90, ...] where positions meet (attention)

After lengths.py a batch is as long as its longest row, and the others are filled up to it. Here inputs more tell which
positions there are: TOKENS [count], where each lies among [rows * length] (OF_ROW, in which row; POSITION, where in
it), and PLACES [rows, length], which of them each place takes; a place behind a row's end takes one that stands for all
filling of that row. What goes back to [rows, length] is what it was but for the filling, of which there is one
position's alone in each row; what that adds was proven to count for nothing (rewriting.py), and the result is compared
with plain TensorFlow like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfopt_optimizer.passes import unread_nodes
from tfopt_optimizer.passes.lengths import Opening
from tfopt_optimizer.passes.order import sorted_nodes
from tfopt_optimizer.passes.packing_forms import PRODUCTS, Form, How, Read, form

TOKENS, PLACES = "tfopt_tokens", "tfopt_places"
OF_ROW, POSITION = "tfopt_of_row", "tfopt_position"
INPUTS = frozenset({TOKENS, OF_ROW, POSITION, PLACES})
_PACKED = "tfopt_packed"
_INT32 = 3  # DataType
_WHERE = {How.PACKED: TOKENS, How.BY_POSITION: POSITION, How.BY_ROW: OF_ROW}


def run(graph: Any, opening: Opening, outputs: Iterable[str]) -> int:
    """Rewrites a graph that `opening` has opened; returns how many products are smaller, 0 for a graph as it was.
    `outputs`: its nodes."""
    forms = _chosen(sorted_nodes(opening.nodes), opening)
    if forms:
        _Writer(graph, opening, forms).write()
        unread_nodes.prune(graph, frozenset(outputs))
    return sum(opening.nodes[name].op in PRODUCTS for name in forms)


def _chosen(order: list[Any], opening: Opening) -> dict[str, Form]:
    """Of the nodes that can do with packed positions those that hang together with a product."""
    able = {node.name: found for node in order if (found := form(node, opening)) is not None}
    chosen = {name for name in able if opening.nodes[name].op in PRODUCTS}
    for node in order:
        if node.name in able and any(name in chosen for name in _packed_sources(able[node.name])):
            chosen.add(node.name)
    for node in reversed(order):
        if node.name in chosen:
            chosen |= {name for name in _packed_sources(able[node.name]) if name in able}
    return {node.name: able[node.name] for node in order if node.name in chosen}


def _packed_sources(found: Form) -> list[str]:
    return [read.tensor.partition(":")[0] for read in found.reads if read.how is How.PACKED]


class _Writer:
    def __init__(self, graph: Any, opening: Opening, forms: Mapping[str, Form]) -> None:
        self._graph, self._opening, self._forms = graph, opening, forms
        self._inputs: dict[str, str] = {}
        self._made: dict[tuple[str, How], str] = {}  # of tensors that are not packed
        self._back: dict[str, str] = {}  # of those that are, for [rows, length]

    def write(self) -> None:
        others = [node for node in self._graph.node if node.name not in self._forms]
        self._input(TOKENS)
        self._input(PLACES)
        for name, found in self._forms.items():
            self._pack(self._opening.nodes[name], found)
        for node in others:
            for number, tensor in enumerate(node.input):
                if tensor.partition(":")[0] in self._forms:
                    node.input[number] = self._unpacked(node, number)

    def _input(self, name: str) -> str:
        if name not in self._inputs:
            node = self._graph.node.add(op="Placeholder", name=name)
            node.attr["dtype"].type = _INT32
            for _ in range(2 if name == PLACES else 1):
                node.attr["shape"].shape.dim.add(size=-1)
            self._inputs[name] = name
        return name

    def _pack(self, node: Any, found: Form) -> None:
        inputs = [self._read(node, read, f"{node.name}/{_PACKED}/{place}") for place, read in enumerate(found.reads)]
        made = self._graph.node.add(op=found.op, name=f"{node.name}/{_PACKED}", input=inputs)
        for key in found.keeps:
            made.attr[key].CopyFrom(node.attr[key])
        for key, (field, value) in found.attributes.items():
            if field == "list":
                made.attr[key].list.i[:] = value
            else:
                setattr(made.attr[key], field, value)

    def _read(self, node: Any, read: Read, base: str) -> str:
        tensor, how = read.tensor, read.how
        if how is How.NUMBERS:
            return self._opening.constant(base, read.numbers)
        if how is How.AS_IS:
            return tensor
        if how is How.PACKED and tensor.partition(":")[0] in self._forms:
            return _packed(tensor)
        if (tensor, how) not in self._made:
            kind = self._opening.kind(node, read.number)
            sizes = self._opening.constant(f"{base}/sizes", read.numbers)
            flat = self._opening.add("Reshape", f"{base}/flat", [tensor, sizes], T=kind, Tshape=_INT32)
            self._made[tensor, how] = flat if how is How.FLAT else self._taken(base, flat, _WHERE[how], kind)
        return self._made[tensor, how]

    def _unpacked(self, node: Any, number: int) -> str:
        tensor = node.input[number]
        if tensor not in self._back:
            base = f"{_packed(tensor).replace(':', '_')}_back"
            places = PLACES
            if self._opening.merged_of(tensor):
                sizes = self._opening.constant(f"{base}/sizes", [-1])
                places = self._opening.add("Reshape", f"{base}/places", [PLACES, sizes], T=_INT32, Tshape=_INT32)
            self._back[tensor] = self._taken(base, _packed(tensor), places, self._opening.kind(node, number))
        return self._back[tensor]

    def _taken(self, base: str, tensor: str, places: str, kind: int) -> str:
        if places in _WHERE.values():
            self._input(places)
        axis = self._opening.constant(f"{base}/axis", 0)
        return self._opening.add("GatherV2", base, [tensor, places, axis], Tparams=kind, Tindices=_INT32, Taxis=_INT32)


def _packed(tensor: str) -> str:
    name, _, result = tensor.partition(":")
    return f"{name}/{_PACKED}" + (f":{result}" if result else "")
