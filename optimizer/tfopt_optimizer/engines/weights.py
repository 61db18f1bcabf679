"""Weights of a plan: stored once in one file, shared by every signature and bucket, mapped into memory.

`weights.bin` holds the arrays one after another, each aligned to 64 bytes (what XLA:CPU asks for to use a host buffer
without a copy); `weights.json` lists dtype, shape and offset. Mapped pages are shared between worker processes.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import numpy as np

from tfopt_optimizer import whole

ALIGNMENT = 64
DATA, INDEX = "weights.bin", "weights.json"


def named_dtype(name: str) -> np.dtype:
    """numpy's dtype for a name that may be one of ml_dtypes' ("bfloat16")."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        extra: np.dtype = np.dtype(getattr(ml_dtypes, name))
        return extra


class WeightsWriter:
    """Appends arrays; `add` returns the array's number, which is how modules refer to it.

    Goes on behind what another one has flushed: modules of a worker that was killed refer to it, and engines have it
    mapped.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, index = folder, folder / INDEX
        self._entries: list[dict[str, object]] = json.loads(index.read_text()) if index.exists() else []
        self._file = (folder / DATA).open("ab")

    def add(self, array: np.ndarray) -> int:
        padding = -self._file.tell() % ALIGNMENT
        self._file.write(b"\0" * padding)
        entry = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": self._file.tell()}
        self._file.write(np.ascontiguousarray(array).tobytes())
        self._entries.append(entry)
        return len(self._entries) - 1

    def flush(self) -> int:
        """Makes what was added readable; returns the file's size in bytes."""
        self._file.flush()
        whole.write(self._folder / INDEX, json.dumps(self._entries))
        return self._file.tell()

    def close(self) -> None:
        self.flush()
        self._file.close()


def read(folder: Path) -> list[np.ndarray]:
    """The arrays, read-only views of the mapped file, in the order they were added."""
    entries = json.loads((folder / INDEX).read_text())
    data = folder / DATA
    if not entries or data.stat().st_size == 0:
        return [np.zeros(e["shape"], named_dtype(e["dtype"])) for e in entries]
    with data.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = []
    for entry in entries:
        dtype, shape = named_dtype(entry["dtype"]), tuple(entry["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        if count == 0:
            arrays.append(np.zeros(shape, dtype))
        else:
            arrays.append(np.frombuffer(mapped, dtype, count, entry["offset"]).reshape(shape))
    return arrays
