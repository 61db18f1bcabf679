"""Reads the model to convert, and writes the converted one: all of it or nothing, never over another folder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.text_format import ParseError
from tfopt_protos import messages

from tfopt_optimizer.tpu.errors import ConversionError

NAME = "saved_model.pb"
_NAMES = (NAME, "saved_model.pbtxt")
# A hash of the graph as it was: stale after any change, and a loader may only warn about it.
_STALE = ("fingerprint.pb", *_NAMES)


def read(folder: Path) -> Any:
    """The SavedModel message of a folder, ours to change."""
    for name in _NAMES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            if path.suffix == ".pb":
                return messages.message("tensorflow.SavedModel").FromString(path.read_bytes())
            return messages.from_text("tensorflow.SavedModel", path.read_text())
        except (DecodeError, ParseError, UnicodeDecodeError) as error:
            raise ConversionError(f"{path} is not a SavedModel: {error}") from error
        except OSError as error:
            raise ConversionError(f"{path} cannot be read: {error.strerror}") from error
    raise ConversionError(f"input_model_dir: there is no {_NAMES[0]} in {folder}")


def meta_graph(saved_model: Any, folder: Path) -> Any:
    """The meta graph that is served."""
    graphs = [g for g in saved_model.meta_graphs if "serve" in g.meta_info_def.tags]
    if len(graphs) == 1:
        return graphs[0]
    tags = ["{" + " ".join(sorted(g.meta_info_def.tags)) + "}" for g in saved_model.meta_graphs]
    raise ConversionError(
        f'{folder} has {len(graphs)} meta graphs with the tag "serve", expected one; tags: {", ".join(tags) or "none"}'
    )


def check_output(source: Path, output: Path) -> None:
    """Before minutes of work: can the result be written there?"""
    if output.resolve() == source.resolve():
        raise ConversionError(f"output_model_dir: expected another folder than the input, received {output}")
    if output.exists() and not output.is_dir():
        raise ConversionError(f"output_model_dir: {output} is a file")
    if output.is_dir() and any(output.iterdir()):
        raise ConversionError(f"output_model_dir: {output} is not empty; remove it or name another")


@contextlib.contextmanager
def workplace(near: Path | None) -> Iterator[Path]:
    """A folder beside `near` (so that a move is a rename), or among the system's temporary ones; gone afterwards."""
    if near is not None:
        near.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".convert-tpu.", dir=near.parent if near else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(source: Path, saved_model: Any, folder: Path) -> None:
    """`folder` becomes a copy of `source` with another saved_model.pb; variables, assets and extras as they are."""
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_STALE))
    (folder / "saved_model.pb").write_bytes(saved_model.SerializeToString())


def rewrite(saved_model: Any, folder: Path) -> None:
    """The message as it is now, in a folder that `write` made."""
    (folder / "saved_model.pb").write_bytes(saved_model.SerializeToString())


def link(source: Path, saved_model: Any, folder: Path) -> None:
    """As `write`, with links to the files of `source` instead of copies: for a model that is only looked at."""
    folder.mkdir()
    for entry in source.iterdir():
        if entry.name not in _STALE:
            (folder / entry.name).symlink_to(entry.resolve())
    (folder / "saved_model.pb").write_bytes(saved_model.SerializeToString())


def publish(made: Path, output: Path) -> None:
    """Moves the finished folder into place."""
    if output.is_dir():
        output.rmdir()  # empty, by check_output
    made.chmod(0o755)  # mkdtemp's folders are for their owner only
    made.rename(output)
