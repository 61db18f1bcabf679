"""Ports for servers that tests start, which open them only seconds later.

Below those that the system gives to outgoing connections, of a range of its own in each of the suite's processes, and
none again until all were given: so nobody else takes one meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

LOWEST, HIGHEST, PROCESSES = 10_000, 32_000, 16
NEIGHBOURS = 2
BLOCKS = (HIGHEST - LOWEST) // PROCESSES // NEIGHBOURS  # of each process
# Runs beside each other begin anywhere; hypothesis seeds Python's own generator, not the system's.
_blocks = itertools.count(random.SystemRandom().randrange(BLOCKS))


def free_port() -> int:
    return free_ports()[0]


def free_ports() -> tuple[int, int]:
    """Two neighbours."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    for block in _blocks:
        first = LOWEST + (process * BLOCKS + block % BLOCKS) * NEIGHBOURS
        with contextlib.suppress(OSError), socket.create_server(("", first)), socket.create_server(("", first + 1)):
            return first, first + 1
    raise AssertionError("a count without end has ended")
