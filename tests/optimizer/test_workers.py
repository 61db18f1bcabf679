"""Worker processes: answers, errors, crashes, hangs, and what is left of a dead one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tfopt_optimizer import frames, testing
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.workers import Budget, Worker, WorkerFailed

TARGET = Target(SignatureInfo("s", "predict", (), ()), "planted", {"x": (1, 1)})
X = {"x": np.ones([1, 1], np.float32)}


@pytest.fixture
def worker(tmp_path):
    made = []

    def make(name):
        place = Place(tmp_path, tmp_path, ("serve",), 1, 1)
        made.append(Worker(testing.planted(name).worker, place, name.lower()))
        return made[-1]

    yield make
    for w in made:
        w.close()


def soon():
    return Budget(60)


def test_a_worker_prepares_runs_and_measures(worker):
    right = worker("Right")
    began = time.monotonic()
    assert right.opened() == {"planted": ""}
    assert 0.0 < right.opening_s <= time.monotonic() - began
    assert right.prepare(soon(), "r", TARGET).memory_bytes == 0
    assert right.run(soon(), "r", "x", X)["y"].tolist() == [[2.5]]
    times = right.measure(soon(), "r", "x", X, round_s=0.01, max_calls=7)
    assert len(times) == 6  # the first one of a full round does not count
    assert (times > 0).all()


def test_what_an_engine_refuses_is_a_reason_and_costs_nothing(worker):
    refuses = worker("Refuses")
    refuses.opened()
    with pytest.raises(WorkerFailed) as failed:
        refuses.prepare(soon(), "r", TARGET)
    assert (failed.value.reason, failed.value.died) == ("operation Foo has no kernel", False)
    assert refuses.alive()


def test_a_crash_is_named_and_the_worker_starts_again_until_it_is_given_up(worker):
    crashes = worker("Crashes")
    crashes.opened()
    for _ in range(3):
        with pytest.raises(WorkerFailed, match=r"the crashes worker died \(signal SIGSEGV\)") as failed:
            crashes.prepare(soon(), "r", TARGET)
        assert failed.value.died
    with pytest.raises(WorkerFailed, match="the crashes worker died 3 times, no further try"):
        crashes.prepare(soon(), "r", TARGET)


def test_a_hang_ends_with_the_deadline_and_progress_is_told(worker, monkeypatch):
    monkeypatch.setattr("tfopt_optimizer.workers.HEARTBEAT_S", 0.2)
    hangs, waited = worker("Hangs"), []
    hangs.on_wait = waited.append
    hangs.opened()
    started = time.monotonic()
    with pytest.raises(WorkerFailed, match=r"no answer within 0\.7 s, killed"):
        hangs.prepare(Budget(0.7), "r", TARGET)
    assert time.monotonic() - started < 5
    assert len(waited) >= 2
    assert not hangs.alive()


def test_a_worker_that_stops_in_the_middle_of_its_answer_is_killed_and_said_so(worker, monkeypatch):
    monkeypatch.setattr("tfopt_optimizer.frames.STALL_S", 1.0)
    stops = worker("StopsWhileItAnswers")
    stops.prepare(soon(), "r", TARGET)
    pid = stops._process.pid
    with pytest.raises(WorkerFailed) as failed:
        stops.run(soon(), "r", "x", X)
    assert failed.value.reason == "it stopped in the middle of its answer (no byte for 1 s), killed"
    assert failed.value.died
    assert not _runs(pid)
    stops.prepare(soon(), "r", TARGET)  # in a fresh process
    assert stops.alive()


def test_a_worker_that_stops_before_it_has_read_a_long_message_is_killed_and_said_so(worker, monkeypatch):
    monkeypatch.setattr("tfopt_optimizer.frames.STALL_S", 1.0)
    stops = worker("StopsWhileItListens")
    stops.prepare(soon(), "r", TARGET)
    with pytest.raises(WorkerFailed) as failed:
        stops.run(soon(), "r", "x", {"x": np.ones([1 << 20, 1], np.float32)})
    assert failed.value.reason == "it stopped while it read what it was to do (no byte for 1 s), killed"
    assert not stops.alive()


def test_a_message_may_take_long_while_bytes_come():
    """Longer than what a stop is known by, with a pause before each quarter."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    whole = io.BytesIO()
    frames.write(whole, np.arange(1 << 19))
    parts = np.array_split(np.frombuffer(whole.getvalue(), np.uint8), 4)

    def trickle():
        for part in parts:
            time.sleep(0.5)
            view = memoryview(part)
            while view:
                view = view[os.write(writing, view) :]

    thread = threading.Thread(target=trickle)
    thread.start()
    found = frames.receive(reading, 1.0)
    thread.join()
    os.close(reading)
    os.close(writing)
    assert np.array_equal(found, np.arange(1 << 19))


def test_a_worker_that_closed_its_pipe_and_goes_on_is_killed(worker, monkeypatch):
    closes = worker("ClosesItsPipes")
    closes.opened()
    monkeypatch.setattr("tfopt_optimizer.frames.STALL_S", 1.0)
    with pytest.raises(WorkerFailed, match="it closed its pipe and did not end within 1 s, killed"):
        closes.prepare(soon(), "r", TARGET)


def test_after_a_death_prepared_runners_and_feeds_are_made_again(worker):
    right = worker("Right")
    right.opened()
    right.prepare(soon(), "r", TARGET)
    right.run(soon(), "r", "x", X)
    right.close()
    right.prepare(soon(), "r", TARGET)
    assert right.run(soon(), "r", "x", X)["y"].tolist() == [[2.5]]


def test_an_engine_that_cannot_start_says_why(worker):
    with pytest.raises(WorkerFailed, match="ModuleNotFoundError: No module named 'foo'"):
        worker("NeverStarts").opened()


@pytest.mark.parametrize("later_s", [0, 1], ids=["gone before it could look", "gone later"])
def test_a_worker_ends_with_its_parent(later_s):
    reading, writing = os.pipe()  # held open here, so that the worker's input does not end with its parent
    code = (
        "import os, subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-m', 'tfopt_optimizer.worker', 'tfopt_optimizer.testing:Right',\n"
        f"                      str(os.getpid())],\n"
        f"                     stdin={reading}, stdout=subprocess.DEVNULL, start_new_session=True)\n"
        f"time.sleep({later_s}); print(p.pid, flush=True); os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, pass_fds=[reading]
    )
    pid, end = int(done.stdout), time.monotonic() + 30
    while time.monotonic() < end and _runs(pid):
        time.sleep(0.1)
    os.close(reading)
    assert not _runs(pid)
    os.close(writing)


def test_what_ends_our_process_group_ends_a_worker_whatever_it_does(worker):
    right = worker("Right")
    right.opened()
    assert os.getpgid(right._process.pid) == os.getpgid(0)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
