"""Checks of the files: sizes, what training left behind, assets and vocabularies."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tfopt_optimizer.doctor.findings import HERE, TENSORFLOW, VERTEX, Check, Found, error, info, warning
from tfopt_optimizer.doctor.patient import Patient
from tfopt_optimizer.wording import count, size

HARD_LIMIT = 10_000_000_000
SOFT_LIMIT = 500_000_000
LARGE_GRAPH = 100_000_000  # saved_model.pb; protobuf refuses 2 GB
LARGE_ASSET = 50_000_000
LARGEST = 5  # variables named as evidence of a size

_LEFT = re.compile(
    r"(.*/)?(events\.out\.tfevents\..*|checkpoint|(model\.)?ckpt-.*|.*\.ckpt(-.*)?(\.(index|meta|data-.*))?"
    r"|.*\.tfrecords?|.*\.(h5|hdf5|keras)|graph\.pbtxt|train(ing)?\.log)"
)


def sizes(model: Patient) -> Iterator[Found]:
    total = sum(model.files.values())
    if total > HARD_LIMIT:
        yield error(f"the model is {size(total)}, more than {size(HARD_LIMIT)}", _largest(model))
    elif total > SOFT_LIMIT:
        yield warning(f"the model is {size(total)}, more than {size(SOFT_LIMIT)}", _largest(model))
    graph = sum(model.files.get(n, 0) for n in ("saved_model.pb", "saved_model.pbtxt"))
    if graph > LARGE_GRAPH:
        yield warning(f"the graph itself is {size(graph)}: its weights are constants", _constants(model))


def _largest(model: Patient) -> list[str]:
    entries = sorted(model.checkpoint.values(), key=lambda e: -e.size)[:LARGEST]
    if entries:
        return [f"{e.key} {e.dtype}{list(e.shape)} {size(e.size)}" for e in entries]
    return [f"{name} {size(bytes_)}" for name, bytes_ in sorted(model.files.items(), key=lambda i: -i[1])[:LARGEST]]


def _constants(model: Patient) -> list[str]:
    found = [(p.node.ByteSize(), p.where) for p in model.all_reached() if p.node.op == "Const"]
    return [f"{name} {size(bytes_)}" for bytes_, name in sorted(found, reverse=True)[:LARGEST]]


def training_files(model: Patient) -> Iterator[Found]:
    inside = {n: s for n, s in model.files.items() if _LEFT.fullmatch(n) and not n.startswith("assets")}
    beside = {f"../{n}": s for n, s in model.beside.items() if _LEFT.fullmatch(n)}
    found = inside | beside
    if found:
        what = f"{count(len(found), 'file')} of a training run ({size(sum(found.values()))}) in or beside the model"
        yield warning(what, found)


def assets(model: Patient) -> Iterator[Found]:
    named = {f"assets/{name}" for name in _asset_names(model)}
    missing = sorted(named - model.files.keys())
    if missing:
        yield error("files that the graph reads at load are missing", missing)


def _asset_names(model: Patient) -> list[str]:
    graph = model.graph.meta_graph
    names = [a.filename for a in graph.asset_file_def]
    numbers = [n.asset.asset_file_def_index for n in graph.object_graph_def.nodes if n.WhichOneof("kind") == "asset"]
    return names + [graph.asset_file_def[i].filename for i in numbers if i < len(graph.asset_file_def)]


def vocabularies(model: Patient) -> Iterator[Found]:
    large = {n: s for n, s in model.files.items() if n.startswith("assets/") and s > LARGE_ASSET}
    if large:
        yield info("large assets are read into tables at every start", [f"{n} {size(s)}" for n, s in large.items()])


CHECKS = (
    Check(
        "size",
        "Drop what only training needs (optimizer slots, unused towers), store embeddings in fewer or shorter rows, "
        "and keep weights in variables, not in constants. Vertex AI's legacy machines take 500 MB, its others 10 GB.",
        VERTEX,
        sizes,
    ),
    Check(
        "training-files",
        "Copy only saved_model.pb, fingerprint.pb, variables/, assets/ and assets.extra/ to where models are served "
        "from: the rest is downloaded by every replica.",
        VERTEX,
        training_files,
    ),
    Check(
        "assets",
        "Export again with the asset files in place, or copy them into the model's assets/ folder.",
        TENSORFLOW,
        assets,
    ),
    Check(
        "vocabularies",
        "Cut rare words, or hash strings into buckets (tf.strings.to_hash_bucket_fast) instead of looking them up.",
        HERE,
        vocabularies,
    ),
)
