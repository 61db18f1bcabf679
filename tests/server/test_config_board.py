"""The memory that workers share about what a client configured."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from tfopt_server.config_board import ConfigBoard, Outcome


def test_the_latest_config_is_there_for_whoever_comes_later() -> None:
    board = ConfigBoard(2)
    assert (board.number, board.latest()) == (0, (0, b""))
    assert board.post(b"one") == 1
    assert board.post(b"two" * 10_000) == 2
    assert board.latest() == (2, b"two" * 10_000)
    assert board.post(b"") == 3
    assert board.latest() == (3, b"")


def test_a_config_has_an_outcome_once_every_worker_has_said_so() -> None:
    board = ConfigBoard(3)
    for seat in (1, 2):
        board.join(seat)
    number = board.post(b"config")
    board.report(1, number, Outcome())
    assert board.outcome(number) is None
    board.report(2, number, Outcome(2, "no — it did not"))
    assert board.outcome(number) == Outcome(2, "no — it did not")
    board.report(2, number + 1, Outcome())
    assert board.outcome(number) == Outcome()


def test_nobody_waits_for_a_worker_that_died_and_its_replacement_counts_again() -> None:
    board = ConfigBoard(2)
    board.join(1)
    board.join(2)
    number = board.post(b"config")
    board.report(1, number, Outcome())
    board.leave(2)
    assert board.outcome(number) == Outcome()
    board.join(2)
    assert board.outcome(number) is None


def test_long_texts_are_cut_and_disturb_no_neighbour() -> None:
    board = ConfigBoard(2)
    board.join(1)
    board.join(2)
    board.report(2, 1, Outcome())
    board.report(1, 1, Outcome(2, "x" * 10_000))
    assert board.outcome(1) == Outcome(2, "x" * 1024)
    board.leave(1)
    assert board.outcome(1) == Outcome()


def test_a_post_wakes_every_seat() -> None:
    board = ConfigBoard(2)
    heard = []

    def listen(seat: int) -> None:
        board.wait(seat)
        heard.append(seat)

    threads = [threading.Thread(target=listen, args=(seat,), daemon=True) for seat in (1, 2)]
    for thread in threads:
        thread.start()
    board.post(b"x")
    for thread in threads:
        thread.join(10)
    assert sorted(heard) == [1, 2]


FORKED = """
import os
from tfopt_server.config_board import ConfigBoard

board = ConfigBoard(1)
read, write = os.pipe()
children = []
for child in range(3):
    pid = os.fork()
    if not pid:
        for i in range(200):
            board.post(bytes([65 + child]) * (1 + i * 7))
            _, config = board.latest()
            if len(set(config)) != 1:
                os.write(write, b"!")
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
os.close(write)
assert os.read(read, 10) == b""
print(board.number)
"""


def test_forked_processes_write_without_losing_a_number_and_read_whole_configs() -> None:
    """In a process without other threads: to fork one that has them may lock the child up."""
    done = subprocess.run([sys.executable, "-c", FORKED], stdout=subprocess.PIPE, check=True, timeout=60)
    assert done.stdout == b"600\n"


def test_a_seat_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        ConfigBoard(1).wait(2)
