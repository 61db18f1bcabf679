"""Ports for servers that tests start, which open them only seconds later.

Below those that the system gives to outgoing connections, and of another residue in each of the suite's processes: so
nobody else takes one meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket

LOWEST, HIGHEST = 10_000, 32_000
PROCESSES, BLOCK = 16, 4  # a process has every 16th block of four neighbours
_random = random.SystemRandom()  # of the system: hypothesis seeds Python's own


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> tuple[int, ...]:
    """So many neighbours, at most BLOCK."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    while True:
        first = (_random.randrange(LOWEST, HIGHEST, PROCESSES * BLOCK)) + process * BLOCK
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("", port)))
            return tuple(range(first, first + count))
