"""Fixtures of the whole suite: real SavedModels (tests/savedmodels.py)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import savedmodels


@pytest.fixture(scope="session")
def savedmodel() -> Callable[[str], Path]:
    """savedmodel(name): the shared, read-only version folder of a test model."""
    return savedmodels.path


@pytest.fixture
def savedmodel_copy(tmp_path: Path) -> Callable[..., Path]:
    """savedmodel_copy(name, version=1): a private copy, at tmp_path/name/version, to change as a test likes."""

    def copy(name: str, version: int | str = 1) -> Path:
        return Path(shutil.copytree(savedmodels.path(name), tmp_path / name / str(version)))

    return copy


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="the device whose image `-m image` runs")
    parser.addoption("--lock", default="tf-2.21", help="the lock that image was built from")
