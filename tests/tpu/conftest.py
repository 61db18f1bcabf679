"""Models of this room, saved once per session: what the documentation of the original converter uses, and its traps."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.tpu import BUILDERS


@pytest.fixture(scope="session")
def tpu_model(tmp_path_factory):
    """tpu_model(name): the shared, read-only folder of a model of tests/builders/tpu."""
    base = tmp_path_factory.mktemp("tpu_models")
    built: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in built:
            folder = base / name
            BUILDERS[name](folder)
            built[name] = folder
        return built[name]

    return get
