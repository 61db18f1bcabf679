"""The lock between hosts, with real processes: taken in turn, taken from the dead, kept by the living."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from tfopt_optimizer import lease

HOLD = """
import sys, time
from pathlib import Path
from tfopt_optimizer import lease
lease.RENEW_S = 0.1
with lease.hold(Path(sys.argv[1]), lambda: print("waits", flush=True)):
    print("holds", flush=True)
    journal = Path(sys.argv[2])
    journal.open("a").write("in ")
    time.sleep(float(sys.argv[3]))
    journal.open("a").write("out ")
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def run(seconds):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "a.lock"), str(tmp_path / "journal"), str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_processes_hold_it_one_after_the_other(tmp_path, start):
    holders = [start(0.1) for _ in range(4)]
    for holder in holders:
        assert holder.wait(timeout=30) == 0
    assert (tmp_path / "journal").read_text() == "in out " * 4
    assert not (tmp_path / "a.lock").exists()


def test_who_was_killed_on_this_machine_loses_it_at_once(tmp_path, start, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY_S", 1e9)
    holder = start(60)
    assert holder.stdout.readline() == "holds\n"
    holder.kill()
    holder.wait()
    with lease.hold(tmp_path / "a.lock", lambda: None) as ours:
        assert ours.ours()


def test_who_stops_renewing_loses_it_after_a_while_and_knows(tmp_path, start, monkeypatch):
    """A stopped process stands for another host: it exists, and nothing is heard of it."""
    monkeypatch.setattr(lease, "EXPIRY_S", 1.0)
    holder = start(60)
    assert holder.stdout.readline() == "holds\n"
    time.sleep(0.5)
    os.kill(holder.pid, signal.SIGSTOP)
    began = time.monotonic()
    with lease.hold(tmp_path / "a.lock", lambda: None) as ours:
        assert time.monotonic() - began > 0.9
        os.kill(holder.pid, signal.SIGCONT)
        time.sleep(0.5)
        assert ours.ours()  # its renewals do not touch what is ours


def test_who_renews_keeps_it(tmp_path, start, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY_S", 1.5)
    assert start(2.5).stdout.readline() == "holds\n"
    began = time.monotonic()
    with lease.hold(tmp_path / "a.lock", lambda: None):
        assert (tmp_path / "journal").read_text() == "in out "
        assert time.monotonic() - began > lease.EXPIRY_S


def test_a_pid_of_another_machine_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY_S", 0.6)
    (tmp_path / "a.lock").write_text(json.dumps({"token": "t", "where": "elsewhere", "pid": 2**22 + 1, "beat": 0}))
    told, began = threading.Event(), time.monotonic()
    with lease.hold(tmp_path / "a.lock", told.set):
        assert told.is_set()
        assert time.monotonic() - began > 0.5


@pytest.mark.parametrize("moved_s", [-1e9, 1e9], ids=["long ago", "in the future"])
def test_when_a_file_says_that_it_was_written_means_nothing(tmp_path, monkeypatch, moved_s):
    """Clocks of hosts differ, and jump: what counts is whether it changes, by our own steady clock."""
    monkeypatch.setattr(lease, "EXPIRY_S", 0.6)
    lock = tmp_path / "a.lock"
    lock.write_text(json.dumps({"token": "t", "where": "elsewhere", "pid": 1, "beat": 0}))
    os.utime(lock, (time.time() + moved_s,) * 2)
    monkeypatch.setattr(time, "time", lambda: moved_s)
    began = time.monotonic()
    with lease.hold(lock, lambda: None) as ours:
        assert ours.ours()
        assert time.monotonic() - began > 0.5


def test_a_file_that_cannot_be_read_for_a_moment_does_not_end_the_renewals(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    with lease.hold(tmp_path / "a.lock", lambda: None) as held:
        (tmp_path / "a.lock").write_text('{"tok')  # what a share may show of a file that is being written
        end = time.monotonic() + 10
        while not held.ours() and time.monotonic() < end:
            time.sleep(0.02)
        assert held.ours()


def test_a_pid_says_nothing_where_the_system_does_not_tell_machines_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY_S", 0.6)
    monkeypatch.setattr(lease, "here", lambda: "")
    (tmp_path / "a.lock").write_text(json.dumps({"token": "t", "where": "", "pid": 2**22 + 1, "beat": 0}))
    began = time.monotonic()
    with lease.hold(tmp_path / "a.lock", lambda: None):
        assert time.monotonic() - began > 0.5
