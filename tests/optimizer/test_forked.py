"""A worker that begins in a process with TensorFlow lives and dies as one of its own does, by the same words."""

from __future__ import annotations

import os
import signal

import forked
import numpy as np
import pytest
from tfopt_optimizer import testing, workers
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.workers import Budget, Worker, WorkerFailed

TARGET = Target(SignatureInfo("s", "predict", (), ()), "planted", {"x": (1, 1)})
X = {"x": np.ones([1, 1], np.float32)}


@pytest.fixture
def worker(tmp_path, monkeypatch):
    made = []

    def make(name, module=testing.__name__):
        path = f"{module}:{name}"
        monkeypatch.setattr(forked, "TENSORFLOW_FIRST", (path,))
        made.append(Worker(path, Place(tmp_path, tmp_path, ("serve",), 1, 1), name.lower()))
        return made[-1]

    yield make
    for w in made:
        w.close()


def test_it_has_tensorflow_and_the_place_and_environment_of_who_asks(worker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAID", "so")
    found = worker("Surroundings", "forked").opened()
    assert found == {"tensorflow": "True", "where": str(tmp_path), "said": "so"}


def test_it_answers_and_begins_again_after_it_was_closed(worker):
    right = worker("Right")
    right.prepare(Budget(60), "r", TARGET)
    first = right._process.pid
    right.close()
    assert right.run(Budget(60), "r", "x", X)["y"].tolist() == [[2.5]]
    assert right._process.pid != first
    assert isinstance(right._process, forked.Forked)
    assert os.getpgid(right._process.pid) == os.getpgid(0)


def test_its_death_and_its_last_words_are_told(worker):
    with pytest.raises(WorkerFailed, match=r"the crashes worker died \(signal SIGSEGV\)"):
        worker("Crashes").prepare(Budget(60), "r", TARGET)
    with pytest.raises(WorkerFailed, match=r"died \(exit code 1\): AttributeError: .* no attribute 'Nobody'"):
        worker("Nobody").opened()


def test_a_hang_is_killed(worker):
    hangs = worker("Hangs")
    hangs.opened()
    process = hangs._process
    with pytest.raises(WorkerFailed, match=r"no answer within 0\.5 s, killed"):
        hangs.prepare(Budget(0.5), "r", TARGET)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("change", ["another engine", "another path"])
def test_all_others_are_processes_of_their_own(worker, monkeypatch, change):
    right = worker("Right")
    if change == "another path":
        monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    else:
        monkeypatch.setattr(forked, "TENSORFLOW_FIRST", ())
    monkeypatch.setattr(forked.Nursery, "_fork", lambda *_: pytest.fail("forked"))
    right.opened()
    assert right.alive()


def test_the_workers_of_this_room_are_forked():
    assert workers.launch.__func__ is forked.Nursery.launch
