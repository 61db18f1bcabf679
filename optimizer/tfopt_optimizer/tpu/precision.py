"""What of a model computes and is stored in bfloat16: bodies for the TPU, host functions (scope ALL), variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt_optimizer.split.partition import EFFECTS
from tfopt_optimizer.tpu import bf16, bf16_checkpoint, bf16_variables, objects
from tfopt_optimizer.tpu.bf16_variables import Handles, Selected
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.options import Bfloat16
from tfopt_optimizer.tpu.report import Bfloat16Function, Bfloat16Variables

_NONE = Selected(frozenset(), {})


@dataclasses.dataclass(frozen=True)
class Precision:
    """`bodies`: what runs on the TPU for each function. `variables` are selected, not changed yet: see `finish`."""

    bodies: Mapping[str, Any]
    functions: tuple[Bfloat16Function, ...] = ()
    variables: Selected = _NONE
    cautions: tuple[str, ...] = ()


def apply(graph: ModelGraph, names: list[str], wanted: Bfloat16, keys: Mapping[str, int]) -> Precision:
    """Before functions are placed. `keys`: see objects.checkpoint_keys. ConversionError when it was demanded and cannot
    be. Scope ALL changes host functions in the graph."""
    bodies = {name: graph.functions[name] for name in names}
    if not wanted.enabled:
        return Precision(bodies)
    on_host = _outermost(graph, names) if wanted.scope == "ALL" else []
    obstacles = {n: why for n in (*names, *on_host) if (why := _obstacle(graph, n, wanted, n in on_host))}
    if obstacles and wanted.demanded:
        raise ConversionError([f"bfloat16_optimization: {n!r} {why}" for n, why in obstacles.items()])
    changed = []
    for name in sorted(set(names) - set(obstacles)):
        bodies[name], rewritten = bf16.body(graph, name, wanted.keep)
        changed.append(Bfloat16Function(name, rewritten.changed, rewritten.kept, rewritten.casts))
    for name in sorted(set(on_host) - set(obstacles)):
        body, rewritten = bf16.body(graph, name, wanted.keep, leave=names, on_cpu=True)
        graph.functions[name].CopyFrom(body)
        changed.append(Bfloat16Function(name, rewritten.changed, rewritten.kept, rewritten.casts, on_host=True))
    selected = bf16_variables.select(graph, bodies, {f.name for f in changed}, handles(graph, keys))
    told = tuple(f"bfloat16_optimization is not applied to {n!r}: it {why}" for n, why in obstacles.items())
    return Precision(bodies, tuple(changed), selected, told)


def finish(graph: ModelGraph, selected: Selected, keys: Mapping[str, int], model: Path) -> Bfloat16Variables | None:
    """After placing and batching: changes the variables in the graph and in the checkpoint of the folder `model`.

    The graph has to be written afterwards. None when no variable changes.
    """
    kept = tuple((str(graph.objects.nodes[n].variable.name), why) for n, why in selected.kept.items())
    if not selected.changed:
        return Bfloat16Variables(0, 0, 0, kept) if kept else None
    bf16_variables.apply(graph, selected.changed, handles(graph, keys))
    before, after = bf16_checkpoint.rewrite(model, selected.changed)
    return Bfloat16Variables(len(selected.changed), before, after, kept)


def handles(graph: ModelGraph, keys: Mapping[str, int]) -> Handles:
    nodes = objects.handles(graph, keys)
    return Handles(nodes, objects.arguments(graph, nodes))


def _outermost(graph: ModelGraph, names: list[str]) -> list[str]:
    """Host functions that the main graph calls for a signature; those that they call are inlined into them."""
    on_host = bf16_variables.host_functions(graph, names)
    return sorted(on_host - {inner for name in on_host for inner in graph.called_by(name)})


def _obstacle(graph: ModelGraph, name: str, wanted: Bfloat16, on_host: bool) -> str:
    if written := bf16.writes(graph, name):
        return f"writes state ({', '.join(written)})"
    if not wanted.skip_safety_checks and bf16.holds_bfloat16(graph, name):
        return "holds bfloat16 already; set skip_safety_checks to convert the rest of it"
    if on_host and (acts := sorted(EFFECTS & bf16.operations(graph, name))):
        return f"acts beyond its result ({', '.join(acts)})"
    return ""
