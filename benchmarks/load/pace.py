"""When to send, and what a latency is: closed loop and open loop, without sockets and without a clock of their own.

Closed loop: a fixed number of lanes, each sends its next request when the answer to the last one is there. It finds the
highest rate, but it hides waiting: while the server stalls, the requests that would have come are never sent.
Open loop: requests arrive by a Poisson process, whatever the server does. Latency counts from the time a request was
meant to be sent, so a request that waits for a free lane pays for the wait ("coordinated omission" is counted, not
omitted).

A lane carries one request at a time: a REST connection, or one of the streams of a gRPC connection. All times are
seconds on the clock that is passed in.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

Clock = Callable[[], float]


class Lane(Protocol):
    def send(self) -> None:
        """Starts the lane's next request; the lane must be free."""


@dataclasses.dataclass
class Ledger:
    """What was measured between `start` and `stop` (clock times); requests outside of it are carried, not counted.

    `latencies` are seconds of answers with a good status; `failed`: answers with another status; `lost`: sent, and the
    connection ended without a whole answer; `refused`: never sent, or declared untouched by the server, so that a
    client may safely send it elsewhere. The last three count at any time: a loss in the warm-up is a loss.
    """

    start: float
    stop: float
    latencies: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    completed: int = 0  # good answers that arrived between start and stop, whenever their requests were sent
    failed: int = 0
    lost: int = 0
    refused: int = 0
    sent: int = 0
    answered: int = 0
    lag: float = 0.0  # the longest the sender itself was behind an intended time while a lane was free
    first_error: str = ""

    def answer(self, began: float, now: float, error: str) -> None:
        self.answered += 1
        if error:
            self.failed += 1
            self.first_error = self.first_error or error
            return
        self.completed += self.start <= now < self.stop
        if self.start <= began < self.stop:
            self.latencies.append(now - began)

    def lose(self, why: str, refused: bool) -> None:
        self.lost += not refused
        self.refused += refused
        self.first_error = self.first_error or why

    def rate(self) -> float:
        """Good answers per second of the measured time."""
        return self.completed / (self.stop - self.start)


def poisson(rate: float, seconds: float, limit: int, seed: int) -> list[float]:
    """Arrival times in seconds from 0, at most `limit`, with exponential gaps of mean 1 / rate."""
    generator, now = random.Random(seed), 0.0
    times: list[float] = []
    while len(times) < limit and (now := now + generator.expovariate(rate)) < seconds:
        times.append(now)
    return times


class ClosedLoop:
    """Every lane sends again as soon as it is free, until `ledger.stop` or until `limit` requests were sent."""

    def __init__(self, lanes: Sequence[Lane], clock: Clock, ledger: Ledger, limit: int) -> None:
        self._clock, self._ledger, self._limit = clock, ledger, limit
        self._began: dict[Lane, float] = dict.fromkeys(lanes, 0.0)
        self._busy = 0

    def begin(self) -> None:
        for lane in list(self._began):
            self._busy += 1
            self._next(lane, self._clock())

    def answered(self, lane: Lane, error: str = "", reusable: bool = True) -> None:
        now = self._clock()
        self._ledger.answer(self._began[lane], now, error)
        if reusable:
            self._next(lane, now)
        else:
            self._busy -= 1

    def lost(self, lane: Lane, why: str, refused: bool = False) -> None:
        self._ledger.lose(why, refused)
        self._busy -= 1

    def finished(self) -> bool:
        return self._busy == 0

    def _next(self, lane: Lane, now: float) -> None:
        if now >= self._ledger.stop or self._ledger.sent >= self._limit:
            self._busy -= 1
            return
        self._ledger.sent += 1
        self._began[lane] = now
        lane.send()


class OpenLoop:
    """Sends at the given arrival times (absolute, rising); a request waits its turn when no lane is free.

    `tick()` sends what is due and returns the seconds until the next arrival, None after the last one.
    """

    def __init__(self, lanes: Sequence[Lane], clock: Clock, ledger: Ledger, arrivals: Sequence[float]) -> None:
        self._clock, self._ledger = clock, ledger
        self._arrivals, self._at = arrivals, 0
        self._free = collections.deque(lanes)
        self._waiting: collections.deque[float] = collections.deque()
        self._meant: dict[Lane, float] = {}

    def tick(self) -> float | None:
        now = self._clock()
        while self._at < len(self._arrivals) and self._arrivals[self._at] <= now:
            meant = self._arrivals[self._at]
            self._at += 1
            if self._free:
                self._ledger.lag = max(self._ledger.lag, now - meant)
            self._waiting.append(meant)
            self._fill()
        return max(0.0, self._arrivals[self._at] - now) if self._at < len(self._arrivals) else None

    def answered(self, lane: Lane, error: str = "", reusable: bool = True) -> None:
        self._ledger.answer(self._meant.pop(lane), self._clock(), error)
        if reusable:
            self._free.append(lane)
            self._fill()

    def lost(self, lane: Lane, why: str, refused: bool = False) -> None:
        self._meant.pop(lane)
        self._ledger.lose(why, refused)

    def finished(self) -> bool:
        """Everything was sent and answered, or nothing can be sent any more because every lane has ended."""
        done = self._at == len(self._arrivals) and not self._waiting
        return not self._meant and (done or not self._free)

    def unsent(self) -> int:
        return len(self._waiting) + len(self._arrivals) - self._at

    def _fill(self) -> None:
        while self._free and self._waiting:
            lane = self._free.popleft()
            self._meant[lane] = self._waiting.popleft()
            self._ledger.sent += 1
            lane.send()
