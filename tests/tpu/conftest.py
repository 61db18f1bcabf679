"""Models of this room, saved once per session: what the documentation of the original converter uses, and its traps."""

from __future__ import annotations

from pathlib import Path

import pytest
import tpu_builders


@pytest.fixture(scope="session")
def tpu_model(tmp_path_factory):
    """tpu_model(name): the shared, read-only folder of a model of tpu_builders.py."""
    base = tmp_path_factory.mktemp("tpu_models")
    built: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in built:
            folder = base / name
            tpu_builders.BUILDERS[name](folder)
            built[name] = folder
        return built[name]

    return get
