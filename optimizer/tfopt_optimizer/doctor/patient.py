"""Everything that the doctor's checks look at, read once and without TensorFlow."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer import checkpoint, ops, restoring, saved_model
from tfopt_optimizer.checkpoint import CheckpointError, Entry
from tfopt_optimizer.graphs import Graph, Placed
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.saved_model import SavedModelError

MOST_FILES = 20_000  # a folder with more is somebody's home, not a SavedModel
_CHECKPOINT = Path("variables", "variables")


@dataclasses.dataclass(frozen=True)
class Warmup:
    """A model's warmup file. `problem` is why it fails the load; `runs` holds (signature, input names) per request."""

    records: int
    problem: str
    runs: tuple[tuple[str, frozenset[str]], ...]


@dataclasses.dataclass(frozen=True)
class Patient:
    """One SavedModel. `graph` is that of `tags`, or of the first tag set where there is none with `tags`.

    `signatures` are those that clients can call; `reached` holds the nodes below each one's outputs. `files` and
    `beside` map paths relative to the model's folder and to the base path around it to sizes in bytes; `beside` is
    empty when the folder is no version folder. `warmup` is None without a warmup file.
    """

    folder: Path
    tags: tuple[str, ...]
    tag_sets: tuple[frozenset[str], ...]
    graph: Graph
    signatures: tuple[SignatureInfo, ...]
    reached: Mapping[str, Sequence[Placed]]
    checkpoint: Mapping[str, Entry]
    checkpoint_problem: str
    restored: restoring.Restored
    shards: Mapping[int, int]
    files: Mapping[str, int]
    beside: Mapping[str, int]
    warmup: Warmup | None
    registry: ops.Registry

    @property
    def meta(self) -> Any:
        return self.graph.meta_graph.meta_info_def

    def all_reached(self) -> list[Placed]:
        """The nodes below any signature, each once."""
        return list({p.where: p for nodes in self.reached.values() for p in nodes}.values())


def read(folder: Path, tags: Sequence[str] = saved_model.DEFAULT_TAGS, warmup: Warmup | None = None) -> Patient:
    """SavedModelError when there is nothing to examine: no readable saved_model.pb, or one without a graph."""
    graphs = saved_model.read(folder).meta_graphs
    if not graphs:
        raise SavedModelError(f"{folder}: the SavedModel holds no graph")
    sets = tuple(frozenset(g.meta_info_def.tags) for g in graphs)
    meta_graph = next((g for g, own in zip(graphs, sets, strict=True) if own == set(tags)), graphs[0])
    graph = Graph(meta_graph)
    signatures = saved_model.signatures_of(meta_graph)
    entries, problem = _checkpoint(folder, graph)
    return Patient(
        folder=folder,
        tags=tuple(tags),
        tag_sets=sets,
        graph=graph,
        signatures=signatures,
        reached={s.key: graph.reached(*edges(s)) for s in signatures},
        checkpoint=entries,
        checkpoint_problem=problem,
        restored=restoring.read(graph),
        shards={n: p.stat().st_size for n, p in checkpoint.data_files(folder / _CHECKPOINT).items()},
        files=_files(folder, deep=True),
        beside=_files(folder.parent, deep=False) if folder.name.isdecimal() else {},
        warmup=warmup,
        registry=ops.registry(),
    )


def edges(signature: SignatureInfo) -> tuple[list[str], list[str]]:
    """The tensors that a signature answers with, and those that it feeds."""
    return [t.tensor for t in signature.outputs], [t.tensor for t in signature.inputs]


def _checkpoint(folder: Path, graph: Graph) -> tuple[Mapping[str, Entry], str]:
    """The checkpoint's entries; a problem only where the graph restores from one."""
    prefix = folder / _CHECKPOINT
    try:
        return checkpoint.read_index(prefix), ""
    except CheckpointError as error:
        return {}, str(error) if graph.meta_graph.saver_def.restore_op_name else ""


def _files(folder: Path, deep: bool) -> dict[str, int]:
    paths = folder.rglob("*") if deep else folder.glob("*")
    found = {}
    for path in itertools.islice(paths, MOST_FILES):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return dict(sorted(found.items()))
