"""Small real SavedModels for tests, kept under tests/.models; builders/ has a file for each kind.

Tests ask the `savedmodel` fixture: savedmodel("cnn") is the version folder that holds saved_model.pb (its parent is a
base path with that one version). The folders are shared: copy one before changing it.

All are built together by one subprocess (about 20 s), so that pytest's own process need not import TensorFlow. The
cache's folder carries a hash of the builders, so an edit builds anew.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import builders

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".models"
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


def names() -> tuple[str, ...]:
    """Of the usual ones: nothing is wrong with them, and each is one model."""
    return tuple(builders.USUAL)


def path(name: str) -> Path:
    """The version folder of a model, built if need be. KeyError for a name without a builder."""
    if name not in builders.ALL:
        raise KeyError(f"no model {name!r}; there are {', '.join(builders.ALL)}")
    folder = CACHE / _hash()
    if not folder.exists():
        _build_all(folder)
    return folder / name / "1"


@functools.cache
def _hash() -> str:
    sources = sorted((HERE / "builders").glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def _build_all(folder: Path) -> None:
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # another test run was first
            return
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = [sys.executable, "-m", "builders", str(part)]
        environment = os.environ | ENVIRONMENT
        done = subprocess.run(command, env=environment, cwd=HERE, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"building the test models failed:\n{done.stdout}\n{done.stderr}")
        part.rename(folder)
