"""Two runs that write a plan into one folder: the second one ends and says so, the folder of a dead one is taken."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from tfopt_optimizer import lease, optimize
from tfopt_optimizer import plan as plans
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.flags import OptimizerFlags

pytestmark = pytest.mark.tensorflow
HOLD = """
import sys, time
from pathlib import Path
from tfopt_optimizer import lease
lease.RENEW_S = 0.1
with lease.hold(Path(sys.argv[1]), lambda: None):
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that writes a plan into the folder."""
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / plans.UNFINISHED).touch()
    (tmp_path / "plan" / "s0").mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "plan" / plans.LOCK)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def run(savedmodel, tmp_path):
    samples = {"serving_default": ({"x": np.full([2, 1], 0.5, np.float32)},)}
    flags = OptimizerFlags(allowed_batch_sizes=(1,))
    job = optimize.OptimizeJob(
        savedmodel("half_plus_two"), tmp_path / "plan", ("serve",), flags, samples, "warmup"
    )  # fmt: skip
    return lambda progress=lambda _: None: optimize.optimize(job, progress, entrants=[])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_second_run_ends_and_names_the_folder(tmp_path, other, run):
    """Both went on, and each cleared away what the other one wrote."""
    with pytest.raises(OptimizeError, match=f"^another process is writing a plan into {tmp_path / 'plan'}: "):
        run()
    assert names(tmp_path / "plan") == [plans.LOCK, plans.UNFINISHED, "s0"]
    assert other.poll() is None


def test_the_folder_of_a_run_that_was_killed_is_taken(tmp_path, other, run):
    other.kill()
    other.wait()
    run()
    assert names(tmp_path / "plan") == [plans.FILE_NAME]


def test_a_folder_whose_owner_has_not_begun_to_write_is_not_taken_for_another_programs(tmp_path, run):
    (tmp_path / "plan").mkdir()
    lock = {"token": "t", "where": lease.here(), "pid": 2**22 + 1, "beat": 0}  # no such process
    (tmp_path / "plan" / plans.LOCK).write_text(json.dumps(lock))
    run()
    assert names(tmp_path / "plan") == [plans.FILE_NAME]


def test_who_lost_the_folder_meanwhile_leaves_it_alone(tmp_path, run):
    """Frozen for long, it was taken for dead."""
    folder, lines = tmp_path / "plan", []

    def progress(line):
        if not lines:
            (folder / plans.LOCK).write_text(json.dumps({"token": "another"}))
            (folder / "s0").mkdir(exist_ok=True)
        lines.append(line)

    with pytest.raises(OptimizeError, match="another process is writing a plan into"):
        run(progress)
    assert set(names(folder)) >= {plans.LOCK, plans.UNFINISHED}
