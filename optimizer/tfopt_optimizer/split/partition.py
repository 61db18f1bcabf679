"""Where each operation of a signature runs: the cut into host and device segments. Pure policy.

Rules, in this order:
- what a compiler cannot take stays on the host: strings, tables, operations without a kernel, results whose shape
  depends on values, and side effects (an Assert must speak before the answer goes out);
- everything else goes to the device, at the first segment that has all it needs. Segments alternate, so every segment
  is convex: data flows from one to the next and never back;
- what no input reaches is the same in every call and belongs to whoever asks for it;
- a list of tensors (a variant) never crosses: who makes it and who takes it are on the host together if one has to be;
- a device part without an operation worth the trip (a product, a convolution, a look-up in weights) returns to the
  host, if the host can run it;
- what may stand on either side of a border, or in either of two device segments, stands where least crosses
  (borders.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

from tfopt_optimizer.split import borders
from tfopt_optimizer.split.graph import Graph, Node, crosses, node_of

HOST, DEVICE = "host", "device"
LESS = "less crosses when it is there"
LIGHT = "too little work for a trip to the device"

# A result's shape depends on values: XLA lowers these with bounded dimensions, which then do not compile.
UNBOUNDED = frozenset({
    "Where", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2", "NonMaxSuppression", "NonMaxSuppressionV2",
    "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5", "DynamicPartition", "ListDiff", "SetSize",
    "DenseToDenseSetOperation", "StringSplit", "StringSplitV2", "CombinedNonMaxSuppression",
})  # fmt: skip
EFFECTS = frozenset({"Assert", "Print", "PrintV2", "StringFormat", "PyFunc", "EagerPyFunc", "PyFuncStateless"})
# What is worth a trip to the device. Gathers count: the table they look up in are weights.
HEAVY = frozenset({
    "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D", "Conv3D", "DepthwiseConv2dNative",
    "Conv2DBackpropInput", "GatherV2", "Gather", "ResourceGather", "GatherNd", "ResourceGatherNd",
    "TensorScatterUpdate", "While", "StatelessWhile", "XlaDotV2", "XlaConvV2", "_FusedMatMul", "CudnnRNNV3", "Cumsum",
})  # fmt: skip
_OPAQUE = ("string", "resource")  # variants are lists of tensors between operations that XLA knows
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})  # their bodies are looked at themselves


@dataclasses.dataclass(frozen=True)
class Segment:
    """Nodes that run in one go, in order. `inputs` are tensors of earlier segments or of the request, `outputs` those
    that later segments or the answer ask for."""

    where: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cut:
    """`reasons`: node -> why it is on the host."""

    segments: tuple[Segment, ...]
    reasons: Mapping[str, str]

    @property
    def device_nodes(self) -> int:
        return sum(len(s.nodes) for s in self.segments if s.where == DEVICE)


def host_reason(graph: Graph, node: Node, kernels: Collection[str]) -> str:
    """Why a node has to stay on the host, "" when a device can take it. `kernels`: operations that compilers know."""
    if node.op in EFFECTS:
        return f"{node.op} acts beyond its result"
    if node.op in UNBOUNDED:
        return f"the shape of {node.op}'s result depends on values"
    for tensor in node.inputs:
        if graph.tensor(tensor).dtype == "resource" and node_of(tensor) not in graph.variables:
            return f"{node.op} reads a table"
    inputs = [graph.tensor(t).dtype for t in node.inputs]
    # Loops hand the variables that they were given on.
    opaque = _OPAQUE[:1] if "resource" in inputs else _OPAQUE
    inputs = [graph.tensor(t).dtype for t in node.inputs if node_of(t) not in graph.variables]
    found = next((d for d in (*inputs, *(t.dtype for t in node.outputs)) if d in opaque), "")
    if found:
        return f"{node.op} works on {found} tensors"
    unknown = sorted(({node.op} | node.inner) - _CALLS - set(kernels))
    if unknown:
        return f"compilers have no kernel for {unknown[0]}"
    inside = sorted(node.inner & (EFFECTS | UNBOUNDED))
    return f"{node.op} has {inside[0]} inside" if inside else ""


def partition(
    graph: Graph,
    kernels: Collection[str],
    runs_on_host: Callable[[Node], bool],
    forced: Mapping[str, str] | None = None,
) -> Cut:
    """The cut. `forced`: nodes that a compiler refused, with its words. `runs_on_host`: what may return to the host."""
    reasons = dict(forced or {})
    for node in graph.nodes.values():
        if node.name in graph.bound and node.name not in graph.fed and node.name not in reasons:
            reason = host_reason(graph, node, kernels)
            if reason:
                reasons[node.name] = reason
    for _ in range(len(graph.nodes)):
        _keep_together(graph, reasons)
        levels = _levels(graph, reasons)
        light = _light(graph, levels, runs_on_host)
        if not light:
            break
        reasons |= dict.fromkeys(light, LIGHT)
    levels = _arranged(graph, levels, reasons, runs_on_host)
    return Cut(_segments(graph, levels), reasons)


def _arranged(
    graph: Graph, levels: Mapping[str, int], reasons: dict[str, str], runs_on_host: Callable[[Node], bool]
) -> dict[str, int]:
    """The levels with less that crosses, and the reasons of those who moved for that."""
    free = [n for n in levels if n not in graph.fed and reasons.get(n, LIGHT) == LIGHT]
    either = {n for n in free if not ({graph.nodes[n].op} | graph.nodes[n].inner) & HEAVY}
    either = {n for n in either if runs_on_host(graph.nodes[n])}
    found = borders.arranged(graph, levels, either, [n for n in free if levels[n] % 2])
    for name in free:
        if found[name] % 2:
            reasons.pop(name, None)
        else:
            reasons.setdefault(name, LESS)
    return found


def _keep_together(graph: Graph, reasons: dict[str, str]) -> None:
    """Adds to the reasons those who share a handle with somebody on the host."""
    pairs = [(node_of(t), n.name) for n in graph.nodes.values() for t in n.inputs if not crosses(graph.tensor(t))]
    pairs = [(a, b) for a, b in pairs if {a, b} <= graph.bound and a not in graph.fed]
    changed = True
    while changed:
        changed = False
        for pair in pairs:
            away = [name for name in pair if name not in reasons]
            if len(away) == 1:
                (other,) = set(pair) - set(away)
                reasons[away[0]] = f"it shares a handle with {graph.nodes[other].op}, which is on the host"
                changed = True


def _levels(graph: Graph, reasons: Collection[str]) -> dict[str, int]:
    """Even numbers are host segments, odd ones device segments. Nodes that no input reaches have none."""
    found: dict[str, int] = {}
    for node in graph.nodes.values():
        if node.name not in graph.bound:
            continue
        if node.name in graph.fed:
            found[node.name] = 0
            continue
        before = [found[n] for t in node.inputs if (n := node_of(t)) in found]
        least, parity = max(before, default=0), 0 if node.name in reasons else 1
        found[node.name] = least if least % 2 == parity else least + 1
    return _with_takers(graph, found)


def _with_takers(graph: Graph, levels: dict[str, int]) -> dict[str, int]:
    """Who makes a handle waits for the segment of those who take it, which a later one may be."""
    takers: dict[str, list[int]] = {}
    for node in reversed(list(graph.nodes.values())):
        own = levels.get(node.name)
        if own is None:
            continue
        if node.name in takers and not all(crosses(t) for t in node.outputs) and node.name not in graph.fed:
            own = levels[node.name] = max(own, min(level - (level - own) % 2 for level in takers[node.name]))
        for tensor in node.inputs:
            takers.setdefault(node_of(tensor), []).append(own)
    return levels


def _light(graph: Graph, levels: Mapping[str, int], runs_on_host: Callable[[Node], bool]) -> list[str]:
    """The nodes of device parts, connected within their segment, that hold nothing heavy and that the host can run."""
    found = []
    for part in _parts(graph, levels):
        nodes = [graph.nodes[name] for name in part]
        if all(not ({n.op} | n.inner) & HEAVY and runs_on_host(n) for n in nodes):
            found += part
    return found


def _parts(graph: Graph, levels: Mapping[str, int]) -> list[list[str]]:
    parent: dict[str, str] = {name: name for name, level in levels.items() if level % 2}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for name in parent:
        for tensor in graph.nodes[name].inputs:
            other = node_of(tensor)
            if other in parent and levels[other] == levels[name]:
                parent[root(other)] = root(name)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())


def _segments(graph: Graph, levels: Mapping[str, int]) -> tuple[Segment, ...]:
    used = [(levels[name], t) for name in levels for t in graph.nodes[name].inputs]
    answers = set(graph.outputs.values())
    found = []
    for level in sorted({v for n, v in levels.items() if n not in graph.fed}):
        names = tuple(n for n, v in levels.items() if v == level and n not in graph.fed)
        own = set(names)
        inputs = dict.fromkeys(
            t for n in names for t in graph.nodes[n].inputs if (o := node_of(t)) in graph.bound and o not in own
        )
        wanted = {t for where, t in used if where > level} | answers
        outputs = [t for n in names for t in (f"{n}:{p}" for p in range(len(graph.nodes[n].outputs))) if t in wanted]
        found.append(Segment(DEVICE if level % 2 else HOST, names, tuple(inputs), tuple(outputs)))
    return tuple(found)


def without_passing(graph: Graph) -> Graph:
    """Every Identity on the way skipped: they cost a host a step each and hide who holds a resource."""
    origin: dict[str, str] = {}

    def true(tensor: str) -> str:
        return origin.get(tensor, tensor)

    nodes: dict[str, Node] = {}
    for node in graph.nodes.values():
        inputs = tuple(true(t) for t in node.inputs)
        if node.op in ("Identity", "StopGradient", "PreventGradient", "Snapshot") and node.name not in graph.fed:
            origin[f"{node.name}:0"] = inputs[0]
        nodes[node.name] = dataclasses.replace(node, inputs=inputs)
    outputs = {name: true(t) for name, t in graph.outputs.items()}
    return dataclasses.replace(graph, nodes=nodes, outputs=outputs)
