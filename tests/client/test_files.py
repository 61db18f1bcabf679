"""Files that hold requests, and files that answers go to."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tfopt_client import files


def _pickled(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


def _cut(path: Path) -> None:
    np.savez(path, x=np.arange(1000))
    path.write_bytes(path.read_bytes()[:3000])


def _damaged(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).random(1000))
    data = bytearray(path.read_bytes())
    data[1000:1100] = bytes(100)
    path.write_bytes(data)


def _other(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.txt", "hello")


@pytest.mark.parametrize("write", [_pickled, _cut, _damaged, _other, lambda path: path.write_text("{}")])
def test_an_archive_that_cannot_be_read_is_named(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "rows.npz"
    write(path)
    with pytest.raises(files.FileError, match=r"rows\.npz: "):
        files.read_arrays(path, ["x"])


@pytest.mark.parametrize("name", ["answer.npz", "answer.npy"])
def test_answers_in_bfloat16_are_floats_in_numpys_files(tmp_path: Path, name: str) -> None:
    files.write_arrays(tmp_path / name, {"y": np.array([1.5, -2.0], ml_dtypes.bfloat16)})
    found = files.read_arrays(tmp_path / name, ["y"])["y"]
    np.testing.assert_array_equal(found, np.float32([1.5, -2.0]), strict=True)
