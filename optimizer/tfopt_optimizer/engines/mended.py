"""A SavedModel with passes run over its graph, for converters that read a SavedModel and nothing else.

It stands in a temporary folder: the graph is written anew, and all else (variables, assets) is linked to. No TensorFlow
is needed, and tables, control flow and functions stay what they are.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tfopt_protos import messages

from tfopt_optimizer import saved_model

_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


class Pass(Protocol):
    def run(self, graph: Any) -> int: ...


def run(passes: Sequence[Pass], graph: Any) -> int:
    """Runs them over a GraphDef in place; how many operations they changed."""
    return sum(each.run(graph) for each in passes)


@contextlib.contextmanager
def beside(model_dir: Path, tags: Sequence[str], passes: Sequence[Pass]) -> Iterator[Path]:
    """The folder with the model as the passes leave it, as long as the context lasts; `model_dir` itself where they
    find nothing."""
    changed = messages.message("tensorflow.SavedModel")()
    changed.saved_model_schema_version = saved_model.read(model_dir).saved_model_schema_version
    changed.meta_graphs.add().CopyFrom(saved_model.meta_graph(model_dir, tags))
    if not run(passes, changed.meta_graphs[0].graph_def):
        yield model_dir
        return
    with tempfile.TemporaryDirectory(prefix="tfopt-") as name:
        folder = Path(name)
        for path in model_dir.iterdir():
            if path.name not in _GRAPHS:
                (folder / path.name).symlink_to(path.resolve())
        (folder / _GRAPHS[0]).write_bytes(changed.SerializeToString())
        yield folder
