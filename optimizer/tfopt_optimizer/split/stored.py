"""Arrays and look-up tables of a program's host part, one file each: `NUMBER.npy`, strings as their lengths and bytes.

Equal contents are stored once: 26 columns with one vocabulary share a file, and a dict in memory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "host"


class Writer:
    """Adds arrays (object arrays hold bytes); `add` returns the number to read them by."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._known: dict[str, int] = {}

    def add(self, array: np.ndarray) -> int:
        content = _content(array)
        digest = hashlib.sha256(b"".join(content.values())).hexdigest() + f"{array.dtype}{array.shape}"
        if digest not in self._known:
            self._known[digest] = len(self._known)
            self._folder.mkdir(parents=True, exist_ok=True)
            _save(self._folder, self._known[digest], array)
        return self._known[digest]


def _content(array: np.ndarray) -> dict[str, bytes]:
    if array.dtype != object:
        return {"data": np.ascontiguousarray(array).tobytes()}
    values = array.ravel().tolist()
    return {"lengths": np.array([len(v) for v in values], np.int64).tobytes(), "data": b"".join(values)}


def _save(folder: Path, number: int, array: np.ndarray) -> None:
    if array.dtype != object:
        np.save(folder / f"{number}.npy", array)
        return
    lengths = np.array([len(v) for v in array.ravel().tolist()], np.int64).reshape(array.shape)
    np.save(folder / f"{number}.npy", lengths)
    (folder / f"{number}.bytes").write_bytes(_content(array)["data"])


class Reader:
    """Reads each array, and makes each table, once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._arrays: dict[int, np.ndarray] = {}
        self._tables: dict[tuple[int, int, Any], Table] = {}

    def array(self, number: int) -> np.ndarray:
        if number not in self._arrays:
            self._arrays[number] = self._load(number)
        return self._arrays[number]

    def _load(self, number: int) -> np.ndarray:
        found: np.ndarray = np.load(self._folder / f"{number}.npy", allow_pickle=False)
        text = self._folder / f"{number}.bytes"
        if not text.exists():
            return found
        data, ends = text.read_bytes(), np.cumsum(found.ravel()).tolist()
        values = np.empty(found.size, object)
        values[:] = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return values.reshape(found.shape)

    def table(self, keys: int, values: int, default: Any) -> Table:
        wanted = (keys, values, default)
        if wanted not in self._tables:
            found = Table(zip(self.array(keys).tolist(), self.array(values).tolist(), strict=True))
            found.default = default
            self._tables[wanted] = found
        return self._tables[wanted]


class Table(dict[Any, Any]):
    """A dict that answers `default` for what it does not hold, without a Python call for what it does."""

    default: Any = None

    def __missing__(self, key: Any) -> Any:
        return self.default
