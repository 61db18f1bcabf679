"""Times callables in turn, in short blocks: a busy neighbour then slows all variants alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]
Clock = Callable[[], float]

BLOCK_S = 0.03
MAX_BLOCK = 1000  # calls in a block of a model of a few microseconds
SETTLE_CALLS = 3  # not counted: lazy set-up, cold caches


def interleave(
    variants: Mapping[str, Call], blocks: int, seconds: float, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Microseconds of every call, per variant.

    At most `blocks` rounds of one block each and at most about `seconds` in all, but never less than one round. A block
    lasts BLOCK_S or one call, whichever is longer; the order turns from round to round.
    """
    for call in variants.values():
        for _ in range(SETTLE_CALLS):
            call()
    times: dict[str, list[float]] = {name: [] for name in variants}
    names, end = list(variants), clock() + seconds
    for number in range(blocks):
        if number and clock() >= end:
            break
        at = number % len(names)
        for name in names[at:] + names[:at]:
            times[name] += _block(variants[name], clock)
    return times


def _block(call: Call, clock: Clock) -> list[float]:
    times: list[float] = []
    began = now = clock()
    while len(times) < MAX_BLOCK and (not times or now - began < BLOCK_S):
        before = now
        call()
        now = clock()
        times.append((now - before) * 1e6)
    return times
