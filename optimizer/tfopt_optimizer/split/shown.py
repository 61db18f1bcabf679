"""The cut as the plan keeps it for people: what runs where, why each operation is on the host, what crosses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from tfopt_optimizer.plan import Crossing, HostOperation, Segment
from tfopt_optimizer.split.graph import Graph, node_of
from tfopt_optimizer.split.packing import Input
from tfopt_optimizer.split.partition import DEVICE, Cut

_WRAPPERS = re.compile(r"(Func|StatefulPartitionedCall(_\d+)?|PartitionedCall(_\d+)?|None_Lookup)/")


def segments(
    graph: Graph, cut: Cut, inputs: Mapping[int, Sequence[Input]], in_session: Collection[int] = ()
) -> tuple[Segment, ...]:
    """`in_session`: places of the host segments that run in TensorFlow."""
    found = []
    for index, segment in enumerate(cut.segments):
        kinds = Counter(graph.nodes[n].op for n in segment.nodes if graph.nodes[n].op != "Identity")
        device = segment.where == DEVICE
        operations = () if device else tuple(_operation(graph, cut, n) for n in segment.nodes)
        takes = [_packed(graph, i) for i in inputs.get(index, ())]
        gives = [_given(graph, t) for t in segment.outputs]
        found.append(
            Segment(
                segment.where,
                "" if device else "tensorflow" if index in in_session else "python",
                dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
                operations,
                tuple(takes) if device else tuple(_given(graph, t) for t in segment.inputs),
                tuple(gives),
            )
        )
    return tuple(found)


def name(graph: Graph, tensor: str) -> str:
    """The signature's own name for its inputs; for others the node's, without the calls that it was inlined from."""
    own = {t: n for n, t in graph.inputs.items()}
    return own.get(tensor) or _short(node_of(tensor))


def _short(node: str) -> str:
    return _WRAPPERS.sub("", node) or node


def _given(graph: Graph, tensor: str) -> Crossing:
    found = graph.tensor(tensor)
    return Crossing(name(graph, tensor), found.dtype, graph.shape(tensor), (name(graph, tensor),))


def _packed(graph: Graph, one: Input) -> Crossing:
    return Crossing(one.name, one.dtype, one.shape, tuple(name(graph, t) for t in one.parts))


def _operation(graph: Graph, cut: Cut, node: str) -> HostOperation:
    return HostOperation(_short(node), graph.nodes[node].op, cut.reasons[node])
