"""Files that are whole or not there: whoever is killed while it writes leaves nothing that is taken for one.

Workers look whether a model's file is there before they ask for its conversion, and a killed one is started again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

_PART = ".part"


def write(path: Path, content: bytes | str) -> None:
    part = path.with_name(path.name + _PART)
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


@contextlib.contextmanager
def files(folder: Path, *names: str) -> Iterator[Path]:
    """A folder to write files of these names into. They come into `folder` at the end, in this order: the last one is
    what others look for."""
    part = folder / _PART
    part.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        for name in names:
            (part / name).replace(folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
