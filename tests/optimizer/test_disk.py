"""A full disk ends the optimization, by name: it is no candidate's fault, and no plan is kept that it chose."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from tfopt_optimizer import disk, lease, testing
from tfopt_optimizer import plan as plans
from tfopt_optimizer.cache import optimize_cached
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.errors import NoSpace, NotLowerable
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.workers import Budget, Worker

TARGET = Target(SignatureInfo("s", "predict", (), ()), "planted", {"x": (1, 1)})


@pytest.fixture
def worker(tmp_path):
    made = []

    def make(name):
        made.append(Worker(testing.planted(name).worker, Place(tmp_path, tmp_path, ("serve",), 1, 1), name.lower()))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def full(tmp_path):
    """The plan's folder takes no more."""
    (tmp_path / plans.UNFINISHED).symlink_to("/dev/full")


def test_a_candidate_that_finds_no_space_ends_the_run(worker):
    with pytest.raises(NoSpace, match=r"^no space left in .* \([\d.]+ \w+ of [\d.]+ \w+ are free\)"):
        worker("FillsTheDisk").prepare(Budget(60), "r", TARGET)


def test_so_does_one_that_takes_half_a_file_for_a_whole_one(worker, tmp_path, full):
    with pytest.raises(NoSpace, match=rf"^no space left in {tmp_path} \("):
        worker("Right").prepare(Budget(60), "r", TARGET)


def test_so_does_one_that_dies_of_it(worker, tmp_path, full):
    with pytest.raises(NoSpace, match=rf"^no space left in {tmp_path} \("):
        worker("Crashes").prepare(Budget(60), "r", TARGET)


def test_with_space_every_failure_stays_its_own(tmp_path):
    (tmp_path / plans.UNFINISHED).touch()
    assert disk.refusal(None, tmp_path) == ""
    assert disk.refusal(RuntimeError("iostream error"), tmp_path) == ""
    assert disk.refusal(PermissionError(errno.EACCES, "no"), tmp_path) == ""
    assert (tmp_path / plans.UNFINISHED).stat().st_size == 0


def test_what_an_error_was_raised_from_tells():
    error = NotLowerable("the converter wrote nothing")
    error.__cause__ = OSError(errno.EDQUOT, "the quota is used up")
    assert disk.is_full(error)


@pytest.fixture
def no_temporary(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", list)


def test_without_a_folder_for_temporary_files_there_is_no_plan(no_temporary, tmp_path):
    with pytest.raises(NoSpace, match=r"^no folder for temporary files can be written, each is full or read-only: "):
        disk.need_temporary()
    with disk.named_temporary():
        assert tempfile.gettempdir() == "/tmp"
    with pytest.raises(NoSpace):
        disk.need_temporary()
    assert disk.refusal(OSError(errno.ENOSPC, "full"), tmp_path).startswith("no space left in /")


IMPORT = """
import sys, tempfile
from pathlib import Path
tempfile._candidate_tempdir_list = list
from tfopt_optimizer.engines import tensorflow
from tfopt_optimizer.engines.base import Place
tensorflow.open_any(Place(Path(sys.argv[1]), Path(sys.argv[1]), ("serve",), 1, 1))
"""


@pytest.mark.tensorflow
def test_plain_tensorflow_loads_without_a_folder_for_temporary_files(savedmodel):
    subprocess.run([sys.executable, "-c", IMPORT, str(savedmodel("half_plus_two"))], check=True)


@pytest.mark.tensorflow
def test_what_a_run_wrote_is_removed_and_the_operator_is_told(savedmodel, tmp_path):
    samples = {"serving_default": ({"x": np.full([2, 1], 0.5, np.float32)},)}
    flags, out = OptimizerFlags(allowed_batch_sizes=(1,)), tmp_path / "plan"
    job = OptimizeJob(savedmodel("half_plus_two"), out, ("serve",), flags, samples, "warmup")
    with pytest.raises(NoSpace, match=r"; the model's variables alone are \d+ B$"):
        optimize(job, lambda _: None, entrants=[testing.planted("Right"), testing.planted("FillsTheDisk")])
    assert list(out.iterdir()) == []


def test_a_lock_that_cannot_be_written_is_not_left_for_others_to_wait_for(tmp_path, monkeypatch):
    def no_space(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lease.Lease, "_text", no_space)
    (tmp_path / "model").mkdir()
    job = OptimizeJob(tmp_path / "model", tmp_path, ("serve",), OptimizerFlags(), {}, "warmup")
    with pytest.raises(NoSpace, match=rf"^no space left in {tmp_path / 'cache'} \("):
        optimize_cached(job, tmp_path / "cache", lambda _: None)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_lock_that_a_renewal_emptied_is_taken_away_at_the_end(tmp_path):
    with lease.hold(tmp_path / "a.lock", lambda: None):
        (tmp_path / "a.lock").write_text("")
    assert not (tmp_path / "a.lock").exists()
