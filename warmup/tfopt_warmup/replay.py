"""Runs warmup records through a servable before it is AVAILABLE."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

from tfopt_warmup.records import Feeds, Record


@dataclasses.dataclass(frozen=True)
class ReplayReport:
    """`records` read (skipped ones included), `runs` made (iterations included), `skipped` without a request."""

    records: int
    runs: int
    skipped: int
    seconds: float


def replay(
    records: Iterable[Record],
    run: Callable[[str, Feeds], Any],
    iterations: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> ReplayReport:
    """Calls run(signature, feeds) for each run of each record, a record `iterations` times in a row, in file order.

    The first error, of reading or of running, ends the replay and is raised as it is: it fails the model's load.
    """
    start, read, runs, skipped = clock(), 0, 0, 0
    for record in records:
        read += 1
        skipped += not record.runs
        for _ in range(iterations):
            for one in record.runs:
                run(one.signature, one.feeds)
                runs += 1
    return ReplayReport(read, runs, skipped, clock() - start)
