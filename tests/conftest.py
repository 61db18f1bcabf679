"""Fixtures of the whole suite: real SavedModels (savedmodels.py), and plans that are made sooner (forked.py)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import savedmodels
from forked import Nursery
from tfopt_optimizer import cache, child, workers


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


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def forked_workers(nursery: Nursery) -> Iterator[None]:
    """The optimizer's workers begin with TensorFlow imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "launch", nursery.launch)
        yield


@pytest.fixture(scope="module")
def optimized_here(forked_workers: None) -> Iterator[None]:
    """So they do for plans that a server makes; and it makes them without a process of their own."""

    def here(job: Any, folder: Path, say: Any, timeout_s: float) -> Any:
        return cache.optimize_cached(job, folder, say)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "optimize_cached_in_child", here)
        yield


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="the device whose image `-m image` runs")
    parser.addoption("--lock", default="tf-2.21", help="the lock that image was built from")
