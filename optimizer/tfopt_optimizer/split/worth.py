"""Whether a signature is worth a split at all, from the SavedModel alone: it has work for a host, or many inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfopt_optimizer import graphs, ops, placement, saved_model
from tfopt_optimizer.plan import SignatureInfo

FEW_INPUTS = 4  # up to so many, packing alone is worth no split


def worth_splitting(model_dir: Path, tags: Sequence[str], signatures: Sequence[SignatureInfo]) -> frozenset[str]:
    """The keys of such signatures."""
    graph, registry = graphs.Graph(saved_model.meta_graph(model_dir, tags)), ops.registry()
    found = []
    for info in signatures:
        below = graph.reached([t.tensor for t in info.outputs], [t.tensor for t in info.inputs])
        if len(info.inputs) > FEW_INPUTS or placement.host_reasons(below, graph, registry):
            found.append(info.key)
    return frozenset(found)
