"""The rows a demo model never saw in training: as arrays beside the model, and some of them as its warmup records.

A file holds one array per input ("input/<name>") and "answer", the true output per row. Strings are stored as numpy
bytes (no pickle) and read back as object arrays of `bytes`, the form tfopt uses everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FILE_NAME = "held_out.npz"
INPUT = "input/"


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """`inputs`: arrays whose first dimension is the row; `answer`: the true output, shape [rows]."""

    inputs: Mapping[str, np.ndarray]
    answer: np.ndarray

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {name: array[start:stop] for name, array in self.inputs.items()}


def write(model: Path, held_out: HeldOut) -> None:
    arrays = {INPUT + name: _stored(array) for name, array in held_out.inputs.items()}
    np.savez_compressed(model / FILE_NAME, answer=_stored(held_out.answer), **arrays)


def read(model: Path) -> HeldOut:
    with np.load(model / FILE_NAME) as file:
        arrays = {name: _plain(file[name]) for name in file.files}
    answer = arrays.pop("answer")
    return HeldOut({name.removeprefix(INPUT): array for name, array in arrays.items()}, answer)


def _stored(array: np.ndarray) -> np.ndarray:
    return array.astype(np.bytes_) if array.dtype == object else array


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind == "S" else array
