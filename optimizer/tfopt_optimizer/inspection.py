"""What is in a SavedModel: signatures, their operations and where these can run, variables and files. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfopt_optimizer import alternation, placement
from tfopt_optimizer.alternation import Part
from tfopt_optimizer.doctor.patient import Patient
from tfopt_optimizer.graphs import MAIN, is_variable
from tfopt_optimizer.plan import SignatureInfo


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why operations stay on the host, how many do for it, and where the first one stands."""

    why: str
    count: int
    first: str


@dataclasses.dataclass(frozen=True)
class SignatureView:
    """A signature; `host` and `device` count its operations by kind, calls and constants left out.

    The sides are those of the static rule (placement.py): what a compiler could take, not what a plan has chosen.
    `parts` are the segments that a cut would have by it, in the order in which they run.
    """

    signature: SignatureInfo
    host: Mapping[str, int]
    device: Mapping[str, int]
    reasons: tuple[Reason, ...]
    parts: tuple[Part, ...] = ()


@dataclasses.dataclass(frozen=True)
class VariableView:
    """A tensor of the checkpoint. `name`: the graph's variable that it fills, `read_by`: the signatures that read that;
    "" and None where the graph does not tell."""

    key: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    read_by: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    model: str
    tags: tuple[str, ...]
    tensorflow_version: str
    bytes: int
    nodes: int
    functions: int
    signatures: tuple[SignatureView, ...]
    variables: tuple[VariableView, ...]
    checkpoint_problem: str
    files: Mapping[str, int]


def inspect(model: Patient) -> Inspection:
    """Variables come largest first, signatures and files by name."""
    graph = model.graph.meta_graph.graph_def
    return Inspection(
        model=str(model.folder),
        tags=tuple(sorted(model.meta.tags)),
        tensorflow_version=str(model.meta.tensorflow_version),
        bytes=sum(model.files.values()),
        nodes=len(graph.node) + sum(len(f.node_def) for f in graph.library.function),
        functions=len(graph.library.function),
        signatures=tuple(_signature(model, s) for s in model.signatures),
        variables=_variables(model),
        checkpoint_problem=model.checkpoint_problem,
        files=model.files,
    )


def _signature(model: Patient, signature: SignatureInfo) -> SignatureView:
    nodes = model.reached[signature.key]
    host, device = placement.counts(nodes, model.graph, model.registry)
    found = placement.host_reasons(nodes, model.graph, model.registry)
    reasons = [Reason(why, len(places), places[0].where) for why, places in found.items()]
    parts = alternation.parts(model.graph, model.registry, signature)
    return SignatureView(signature, host, device, tuple(sorted(reasons, key=lambda r: (-r.count, r.why))), parts)


def _variables(model: Patient) -> tuple[VariableView, ...]:
    readers = _readers(model)
    names = {key: name for name, key in model.restored.key_of.items()}
    views = [
        VariableView(e.key, names.get(e.key, ""), e.dtype, e.shape, e.size, readers.get(e.key))
        for e in model.checkpoint.values()
    ]
    return tuple(sorted(views, key=lambda v: (-v.bytes, v.key)))


def _readers(model: Patient) -> dict[str, tuple[str, ...]]:
    """Checkpoint key -> the signatures that read it, for keys whose variable is known."""
    found: dict[str, list[str]] = {key: [] for key in model.restored.key_of.values()}
    for signature, nodes in model.reached.items():
        for key in _keys(model, {p.node.name for p in nodes if p.scope == MAIN and is_variable(p.node)}):
            found[key].append(signature)
    return {key: tuple(sorted(names)) for key, names in found.items()}


def _keys(model: Patient, variables: set[str]) -> set[str]:
    return {key for name, key in model.restored.key_of.items() if name in variables}
