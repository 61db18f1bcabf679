"""What a converted SavedModel says about itself: which functions run on a TPU, over how many cores, batched how.

    found = placed.read(meta_graph)       # None for a model that was not converted
    placed.unplace(Path("m_tpu/1"), Path("/tmp/m"))   # the same model without operations that only a TPU has

Reads models of this converter and of Google's alike: what counts is TensorFlow's own operations. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt_optimizer.graphs import Graph
from tfopt_optimizer.tpu import batch, files
from tfopt_optimizer.tpu.batch_rules import BatchOptions
from tfopt_optimizer.tpu.emulate import emulate
from tfopt_optimizer.tpu.graph import ModelGraph, calls
from tfopt_optimizer.tpu.options import Sharding
from tfopt_optimizer.tpu.unpack import unpack

_METADATA, _CALL = "TPUReplicateMetadata", "TPUPartitionedCall"
_OWN = "__saved_model_"  # signatures that loading uses


@dataclasses.dataclass(frozen=True)
class Placed:
    """`functions`: computations that a TPUPartitionedCall runs, with the cores that each is spread over.

    `signatures`: those that reach one of them. `batching`: by signature, the options of the first batch op on its way.
    """

    functions: Mapping[str, Sharding]
    signatures: frozenset[str]
    batching: Mapping[str, BatchOptions]


def read(meta: Any) -> Placed | None:
    """None when nothing of the MetaGraphDef runs on a TPU and nothing of it is batched."""
    model, graph = ModelGraph(meta), Graph(meta)
    functions: dict[str, Sharding] = {}
    for body in (meta.graph_def.node, *(f.node_def for f in model.functions.values())):
        for node in body:
            if node.op == _CALL:
                functions |= {f.name: _sharding(model, f.name) for f in calls(node) if f.name in model.functions}
    signatures, batching = set(), {}
    for key, signature in sorted(meta.signature_def.items()):
        if key.startswith(_OWN):
            continue
        below = [p.node for p in graph.reached([t.name for t in signature.outputs.values()])]
        if any(node.op == _CALL for node in below):
            signatures.add(key)
        batched = [batch.read(node) for node in below if node.op == batch.OP]
        if batched:
            batching[key] = batched[0]
    return Placed(functions, frozenset(signatures), batching) if functions or batching else None


def unplace(source: Path, to: Path) -> Placed | None:
    """`to` becomes the model of `source` as any device can run it, with links to its files: calls instead of TPU calls
    and of batch ops (whose options come back). None, and nothing is written, when it was not converted. ConversionError
    when there is no SavedModel."""
    saved_model = files.read(source)
    meta = files.meta_graph(saved_model, source)
    found = read(meta)
    if found is not None:
        emulate(meta, compiled=False)
        unpack(meta)
        files.link(source, saved_model, to)
    return found


def _sharding(model: ModelGraph, function: str) -> Sharding:
    for node in model.functions[function].node_def:
        if node.op == _METADATA:
            assignment = tuple(node.attr["device_assignment"].list.i)
            return Sharding(max(1, int(node.attr["num_cores_per_replica"].i)), assignment, node.attr["topology"].s)
    return Sharding()
