"""Small real SavedModels for tests, kept under tests/.models; model_builders.py says what each one is, sick_builders.py
what is wrong with the models for the doctor, served_builders.py those of the conformance table.

Tests ask the `savedmodel` fixture: savedmodel("cnn") is the version folder that holds saved_model.pb (its parent is a
base path with that one version). The folders are shared: copy one before changing it.

All models of one file are built together by a subprocess (about 10 s), so that pytest's own process need not import
TensorFlow. The cache's folder carries a hash of the builders, so an edit builds anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import served_builders
import sick_builders
from model_builders import BUILDERS

HERE = Path(__file__).resolve().parent
SOURCES = {
    HERE / "model_builders.py": BUILDERS,
    HERE / "sick_builders.py": sick_builders.BUILDERS,
    HERE / "served_builders.py": served_builders.BUILDERS,
}
CACHE = HERE / ".models"
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


def names() -> tuple[str, ...]:
    return tuple(BUILDERS)


def path(name: str) -> Path:
    """The version folder of a model, built if need be. KeyError for a name without a builder."""
    source = next((source for source, builders in SOURCES.items() if name in builders), None)
    if source is None:
        raise KeyError(f"no model {name!r}; there are {', '.join(n for b in SOURCES.values() for n in b)}")
    folder = CACHE / hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    if not folder.exists():
        _build_all(source, folder)
    return folder / name / "1"


def _build_all(source: Path, folder: Path) -> None:
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # another test run was first
            return
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = [sys.executable, str(source), str(part)]
        done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"building the test models failed:\n{done.stdout}\n{done.stderr}")
        part.rename(folder)
