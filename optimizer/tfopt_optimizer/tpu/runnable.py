"""A converted model as any machine runs it: written once per content, read again by every later start.

    folder, found = runnable.of(Path("/models/m/1"), Path("/var/cache/plans"))     # (the same folder, None) for others

Operations that only a TPU has become plain calls; so do batch ops, whose options the server honours itself. What was
placed on the TPU keeps a mark that lives through inlining, by which the cut into host and device parts follows it.
"""

from __future__ import annotations

import hashlib
import mmap
import shutil
import uuid
from pathlib import Path
from typing import Any

from tfopt_optimizer.placement import PLACED
from tfopt_optimizer.tpu import files, nodes
from tfopt_optimizer.tpu.emulate import emulate
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.placed import Placed, read
from tfopt_optimizer.tpu.unpack import unpack

FOLDER = "converted"
_WORDS = (b"TPUPartitionedCall", b"BatchFunction")
_RECORDS = "assets.extra"


def of(source: Path, cache: Path, *, batched: bool = False) -> tuple[Path, Placed | None]:
    """The folder to load instead of `source`, below `cache`, and what the model says about itself.

    `batched`: batch ops stay, for a server that runs the model as it is. OSError when `cache` cannot be written.
    """
    path = source / files.NAME
    if not path.is_file() or not _mentions(path):
        return source, None
    saved_model = files.read(source)
    meta = files.meta_graph(saved_model, source)
    found = read(meta)
    if found is None or (batched and not found.functions):
        return source, found
    key = f"{source.resolve()}\0{batched}\0".encode() + path.read_bytes()
    to = cache / FOLDER / hashlib.sha256(key).hexdigest()[:24]
    if not to.is_dir():
        _mark(meta, found)
        emulate(meta, compiled=False, batched=batched)
        unpack(meta)
        _write(source, saved_model, to)
    return to, found


def _mentions(path: Path) -> bool:
    """Most models are not converted: they are not parsed for nothing."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(word) >= 0 for word in _WORDS)


def _mark(meta: Any, found: Placed) -> None:
    model = ModelGraph(meta)
    for name in {f for function in found.functions for f in (function, *model.reachable(function))}:
        for node in model.functions[name].node_def:
            node.attr[PLACED].CopyFrom(nodes.value(True))


def _write(source: Path, saved_model: Any, to: Path) -> None:
    """Whole or not at all; whoever is second among several processes uses what the first one made."""
    part = to.with_name(f"{to.name}.part.{uuid.uuid4().hex}")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        files.link(source, saved_model, part)
        if not (part / _RECORDS).exists():
            (part / _RECORDS).symlink_to(source.resolve() / _RECORDS)  # warmup records and plans may come later
        part.rename(to)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not to.is_dir():
            raise
