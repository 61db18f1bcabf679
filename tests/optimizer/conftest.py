"""TensorFlow is imported once for the workers of this room, and one optimized model is there for all who need one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from paced import PLAIN_US, paced
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.plan import Plan

ROWS = np.random.default_rng(5).standard_normal((9, 32)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Planned:
    model: Path
    folder: Path
    plan: Plan
    lines: list[str]
    x: np.ndarray


@pytest.fixture(scope="module", autouse=True)
def _forked(forked_workers: None) -> None:
    """In all files of this room."""


@pytest.fixture(scope="session")
def mlp(savedmodel, tmp_path_factory):
    """The Keras MLP with buckets 1 and 4, optimized for xla, which is faster than plain TensorFlow by decree."""
    model, folder, lines = savedmodel("mlp_keras"), tmp_path_factory.mktemp("mlp") / "plan", []
    flags = OptimizerFlags(allow_precompilation=True, allowed_batch_sizes=(1, 4), engines=("xla",))
    samples = {"serving_default": ({"features": ROWS},)}
    job = OptimizeJob(model, folder, ("serve",), flags, samples, "warmup")
    with paced(lambda label: PLAIN_US / 10 if label == "xla/pjrt" else PLAIN_US):
        plan = optimize(job, lines.append)
    return Planned(model, folder, plan, lines, ROWS)
