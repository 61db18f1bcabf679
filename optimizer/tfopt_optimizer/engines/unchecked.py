"""Which engines would answer where plain TensorFlow refuses a request for its values (engines/guards.py), read off the
SavedModel without TensorFlow: an assertion that a converter drops, a check of values that its kernels do not make.

    reasons(model_dir, tags, signatures)["serving_default"]["litert"]    # "it asserts something of its inputs ..."

Engines that look at a signature's graph by themselves, as XLA does, are in no list. Look-ups are left to all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer import graphs, saved_model
from tfopt_optimizer.engines import guards
from tfopt_optimizer.engines.guards import WHOLE
from tfopt_optimizer.plan import SignatureInfo

Reasons = Mapping[str, Mapping[str, str]]


def reasons(model_dir: Path, tags: Sequence[str], signatures: Sequence[SignatureInfo]) -> Reasons:
    """Per signature the engines that must not take it whole, each with the reason."""
    graph = graphs.Graph(saved_model.meta_graph(model_dir, tags))
    return {info.key: _of(graph, info) for info in signatures}


def _of(graph: graphs.Graph, info: SignatureInfo) -> dict[str, str]:
    fed = {graphs.source(t.tensor): t.name for t in info.inputs if graphs.source(t.tensor) in graph.nodes}
    below = graph.below([t.tensor for t in info.outputs], [t.tensor for t in info.inputs])
    nodes = {**below, **{name: graph.nodes[name] for name in fed}}.values()
    tables = _variables(nodes)
    found = {engine: guards.find(nodes, fed, tables, graph.functions, blind=blind) for engine, blind in WHOLE.items()}
    return {engine: guarded.refusal for engine, guarded in found.items() if guarded.refusal}


def _variables(nodes: Iterable[Any]) -> dict[str, tuple[int | None, ...]]:
    """The shapes of those that the nodes hold."""
    shapes = {node.name: node.attr["shape"].shape for node in nodes if node.op == "VarHandleOp"}
    return {
        name: tuple(int(dim.size) if dim.size >= 0 else None for dim in shape.dim)
        for name, shape in shapes.items()
        if not shape.unknown_rank
    }
