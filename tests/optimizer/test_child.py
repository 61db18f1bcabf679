"""The optimizer in a process of its own, seen from the server: a child that stops costs no more than its time."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tfopt_optimizer.child import optimize_in_child
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob


@pytest.fixture
def child(tmp_path, monkeypatch):
    """child(script): what the server starts instead of Python."""

    def stand_in(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return stand_in


def job(tmp_path, rows):
    samples = {"serving_default": ({"x": np.ones([rows, 1], np.float32)},)}
    return OptimizeJob(tmp_path, tmp_path / "plan", ("serve",), OptimizerFlags(), samples, "warmup")


def test_a_child_that_stops_before_it_has_read_its_job(tmp_path, child):
    child("kill -STOP $$")
    with pytest.raises(OptimizeError, match=r"^the optimizer read nothing for 1 s and was stopped$"):
        optimize_in_child(job(tmp_path, 1 << 20), print, 1.0)


def test_a_child_that_stops_in_the_middle_of_its_answer(tmp_path, child):
    child("printf '\\020\\000\\000\\000\\000\\000\\000\\000half'; kill -STOP $$")
    with pytest.raises(OptimizeError, match=r"^the optimizer took longer than 1 s and was stopped$"):
        optimize_in_child(job(tmp_path, 1), print, 1.0)


def test_a_child_that_dies_in_the_middle_of_its_answer(tmp_path, child):
    child("printf '\\020\\000\\000\\000\\000\\000\\000\\000half'; kill -KILL $$")
    with pytest.raises(OptimizeError, match=r"^the optimizer died (at its start )?with exit code -9$"):
        optimize_in_child(job(tmp_path, 1), print, 60.0)
