"""Checks of the variables: is everything there that loading and the signatures need, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator

from tfopt_optimizer.checkpoint import OBJECT_GRAPH
from tfopt_optimizer.doctor.findings import HERE, SERVING, TENSORFLOW, Check, Found, error, info, warning
from tfopt_optimizer.doctor.patient import Patient
from tfopt_optimizer.graphs import MAIN, is_variable
from tfopt_optimizer.wording import count, size

_WORTH_SAYING = 1_000_000  # bytes


def checkpoint(model: Patient) -> Iterator[Found]:
    if model.checkpoint_problem:
        yield error("the checkpoint cannot be read", [model.checkpoint_problem])
        return
    absent = [key for key in model.restored.wanted if key not in model.checkpoint and key != OBJECT_GRAPH]
    if absent:
        yield error(f"{count(len(absent), 'variable')} without an entry in the checkpoint", absent)
    cut = [
        f"{e.key} in data file {e.shard}"
        for e in model.checkpoint.values()
        if e.offset + e.size > model.shards.get(e.shard, -1)
    ]
    if cut:
        yield error(f"{count(len(cut), 'variable')} beyond the end of the data files, or in a missing one", cut)


def uninitialized(model: Patient) -> Iterator[Found]:
    filled = model.graph.initialized()
    used = [p.node for p in model.all_reached() if p.scope == MAIN and is_variable(p.node)]
    empty = [node for node in used if node.name not in filled]
    if not empty:
        return
    names = [node.name for node in empty]
    if filled and model.graph.meta_graph.object_graph_def.nodes:
        what = "two handles per variable: a session fills those that the signatures do not read, so a TF1 loader "
        yield warning(f"{what}(TensorFlow Serving's) answers with an error", names)
    else:
        yield error(f"{count(len(names), 'variable')} that nothing initializes", names)


def duplicates(model: Patient) -> Iterator[Found]:
    first: dict[tuple[str, tuple[int, ...], int], str] = {}
    twice, saved = [], 0
    for entry in sorted(model.checkpoint.values(), key=lambda e: (-e.size, e.key)):
        original = first.setdefault((entry.dtype, entry.shape, entry.crc32c), entry.key)
        if original != entry.key and entry.elements > 1:
            twice.append(f"{entry.key} is {original}, {size(entry.size)}")
            saved += entry.size
    if saved >= _WORTH_SAYING:
        yield info(f"{size(saved)} of the checkpoint are copies of other entries", twice)


def unused(model: Patient) -> Iterator[Found]:
    """Only where every read can be followed to its key: variables that the graph holds and no signature reads."""
    read = {p.node.name for p in model.all_reached() if p.scope == MAIN and is_variable(p.node)}
    keys = {key for name, key in model.restored.key_of.items() if name in read}
    if not keys or read - model.restored.key_of.keys():
        return
    content = {_content(model, key) for key in keys}
    idle = [
        model.checkpoint[key]
        for key in sorted(set(model.restored.key_of.values()) - keys)
        if key in model.checkpoint and _content(model, key) not in content
    ]
    total = sum(e.size for e in idle)
    if total >= _WORTH_SAYING:
        yield info(f"{size(total)} of variables that no signature reads", [f"{e.key} {size(e.size)}" for e in idle])


def _content(model: Patient, key: str) -> tuple[object, ...]:
    entry = model.checkpoint.get(key)
    return (entry.dtype, entry.shape, entry.crc32c) if entry is not None else (key,)


CHECKS = (
    Check(
        "checkpoint",
        "Copy the whole variables/ folder again, or export again: the model cannot load like this.",
        TENSORFLOW,
        checkpoint,
    ),
    Check(
        "uninitialized",
        "Keras 3 models: export with model.export(path) instead of tf.saved_model.save(model, path). Here such models "
        "are served by the function loader.",
        SERVING,
        uninitialized,
    ),
    Check(
        "duplicates",
        "Keras's model.export writes each variable under two names. Only the download grows; to avoid it, save a "
        "tf.Module that holds the variables once.",
        HERE,
        duplicates,
    ),
    Check(
        "unused-variables",
        "Leave out of the saved object what serving does not read: it is downloaded and restored at every start.",
        HERE,
        unused,
    ),
)
