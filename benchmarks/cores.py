"""How long a cache line takes from one core to the other: how fast threads that share work can meet.

The cores of a rented virtual machine lie now beside one last-level cache and now beside two, and its host moves them
within minutes. Two Python processes, each bound to a core, hand one byte to and fro; no compiler is needed. On an AMD
EPYC (Zen 4) this reads 91 to 104 ns where they are near and 173 to 185 where they are far, where a loop in C reads 27
to 44 and 160 to 199. Beside other work it reads the same: the 5th percentile of short batches counts.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import resource
import statistics
import subprocess
import sys
import time

BATCH = 50  # rounds that are timed together: about 10 us, much less than a turn of the scheduler
BATCHES = 20  # at least
SECONDS = 0.2
LIMIT_S = 0.5  # with the start of both processes; who has not ended then found no cores to itself
CPU_S = 10  # of each, so that none spins on for ever when the other one was killed
ANSWERED, ASKED, ENDED = range(3)  # what the byte says


@dataclasses.dataclass(frozen=True)
class Game:
    """`ns` is a hand-over's time, two of which make a round; `asked` and `answered` are the rounds of each player."""

    ns: float
    asked: int
    answered: int


def handover() -> float | None:
    """Nanoseconds between the first and the last core that this process may use; None with one core, or no affinity."""
    from tfopt_optimizer.cpu import usable_cores

    if not hasattr(os, "sched_setaffinity") or usable_cores() < 2:
        return None
    allowed = os.sched_getaffinity(0)
    game = play(min(allowed), max(allowed))
    return game.ns if game else None


def play(first: int, last: int) -> Game | None:
    """Two cores against each other; None when LIMIT_S was not enough, or the system refused to bind to one of them."""
    shared = os.memfd_create("handover")
    os.truncate(shared, mmap.PAGESIZE)
    players = [_start(role, shared, core) for role, core in (("ask", first), ("answer", last))]
    os.close(shared)
    until = time.monotonic() + LIMIT_S
    try:
        told = [player.communicate(timeout=until - time.monotonic())[0] for player in players]
    except subprocess.TimeoutExpired:
        return None
    finally:
        for player in players:
            player.kill()
            player.communicate()
    if any(player.returncode for player in players):
        return None
    (ns, asked), answered = map(json.loads, told)
    return Game(ns, asked, answered)


def _start(role: str, shared: int, core: int) -> subprocess.Popen[str]:
    """Without site-packages: it starts in 15 ms."""
    command = [sys.executable, "-I", "-S", __file__, role, str(shared), str(core)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[shared])


def ask(cell: mmap.mmap) -> tuple[float, int]:
    times = []
    _rounds(cell, 1)  # until the other one is there
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(times) < BATCHES:
        began = time.perf_counter_ns()
        _rounds(cell, BATCH)
        times.append((time.perf_counter_ns() - began) / BATCH / 2)
    cell[0] = ENDED
    return round(statistics.quantiles(times, n=20)[0], 1), 1 + BATCH * len(times)


def _rounds(cell: mmap.mmap, count: int) -> None:
    for _ in range(count):
        cell[0] = ASKED
        while cell[0] == ASKED:
            pass


def answer(cell: mmap.mmap) -> int:
    rounds = 0
    while True:
        while (said := cell[0]) == ANSWERED:
            pass
        if said == ENDED:
            return rounds
        cell[0] = ANSWERED
        rounds += 1


def main(role: str, shared: str, core: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    os.sched_setaffinity(0, {int(core)})
    cell = mmap.mmap(int(shared), mmap.PAGESIZE)
    print(json.dumps(ask(cell) if role == "ask" else answer(cell)))


if __name__ == "__main__":
    main(*sys.argv[1:])
