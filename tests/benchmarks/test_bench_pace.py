"""Closed and open loop against a server that lives in memory, on a clock that only moves when told."""

from __future__ import annotations

import heapq
import statistics

import pytest

from benchmarks import stats
from benchmarks.load import pace


class World:
    """A clock, and what will happen on it: (time, order, what)."""

    def __init__(self) -> None:
        self.now = 0.0
        self._later: list = []
        self._order = 0

    def clock(self) -> float:
        return self.now

    def at(self, time: float, what) -> None:
        self._order += 1
        heapq.heappush(self._later, (time, self._order, what))

    def run(self) -> None:
        while self._later:
            time, _, what = heapq.heappop(self._later)
            self.now = max(self.now, time)
            what()


class ServedLane:
    """A lane to a server that takes `service(now)` seconds for a request that arrives at `now`."""

    def __init__(self, world: World, service) -> None:
        self._world, self._service = world, service
        self.driver = None

    def send(self) -> None:
        self._world.at(self._world.now + self._service(self._world.now), lambda: self.driver.answered(self))


def stalls_from_1_to_2(now: float) -> float:
    """10 ms a request, but nothing is answered between second 1 and second 2."""
    return 0.01 if not 0.99 < now < 2.0 else 2.01 - now


def closed(world: World, lanes: list[ServedLane], ledger: pace.Ledger, limit: int = 10**6) -> pace.ClosedLoop:
    driver = pace.ClosedLoop(lanes, world.clock, ledger, limit)
    for lane in lanes:
        lane.driver = driver
    driver.begin()
    world.run()
    return driver


def opened(world: World, lanes: list[ServedLane], ledger: pace.Ledger, arrivals: list[float]) -> pace.OpenLoop:
    driver = pace.OpenLoop(lanes, world.clock, ledger, arrivals)
    for lane in lanes:
        lane.driver = driver
    for time in arrivals:
        world.at(time, driver.tick)
    world.run()
    return driver


def test_a_closed_loop_keeps_every_lane_busy_and_counts_the_measured_time_only():
    world, ledger = World(), pace.Ledger(start=1.0, stop=3.0)
    driver = closed(world, [ServedLane(world, lambda now: 0.25) for _ in range(4)], ledger)
    assert driver.finished()
    assert ledger.rate() == 16.0  # 4 lanes, 4 answers a second each
    assert (ledger.sent, ledger.answered, ledger.failed, ledger.lost) == (48, 48, 0, 0)
    assert set(ledger.latencies) == {0.25}


def test_a_closed_loop_stops_at_its_limit():
    world, ledger = World(), pace.Ledger(0.0, 1000.0)
    driver = closed(world, [ServedLane(world, lambda now: 1.0) for _ in range(3)], ledger, limit=10)
    assert (driver.finished(), ledger.sent, ledger.answered) == (True, 10, 10)


def test_the_open_loop_counts_the_wait_that_the_closed_loop_omits():
    """One second of stall: the closed loop sees one slow request, the open loop all that should have come then."""
    world, ledger = World(), pace.Ledger(0.0, 4.0)
    closed(world, [ServedLane(world, stalls_from_1_to_2)], ledger)
    assert sum(latency > 0.1 for latency in ledger.latencies) == 1
    assert stats.summary(ledger.latencies).p99 == pytest.approx(0.01)

    world, ledger = World(), pace.Ledger(0.0, 4.0)
    opened(world, [ServedLane(world, stalls_from_1_to_2)], ledger, [n / 50 for n in range(200)])
    slow = [latency for latency in ledger.latencies if latency > 0.1]
    assert len(slow) > 80
    assert max(slow) == pytest.approx(1.01)
    # The wait shrinks by the 10 ms of spare time per request: 20 ms apart, 10 ms each.
    assert sorted(slow, reverse=True)[:3] == pytest.approx([1.01, 1.0, 0.99])


def test_an_open_loop_below_capacity_has_no_waiting():
    world, ledger = World(), pace.Ledger(0.0, 10.0)
    driver = opened(world, [ServedLane(world, lambda now: 0.05)], ledger, [n / 10 for n in range(100)])
    assert driver.finished()
    assert list(ledger.latencies) == pytest.approx([0.05] * 100)
    assert (ledger.lag, driver.unsent()) == (0.0, 0)


def test_poisson_arrivals_have_the_rate_asked_for_and_exponential_gaps():
    times = pace.poisson(rate=100.0, seconds=100.0, limit=10**6, seed=3)
    gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert statistics.fmean(gaps) == pytest.approx(0.01, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.05)  # mean and deviation of an exponential are equal
    assert times == pace.poisson(100.0, 100.0, 10**6, seed=3)
    assert pace.poisson(100.0, 100.0, 7, seed=3) == times[:7]


def test_failures_and_losses_are_not_latencies():
    ledger = pace.Ledger(0.0, 1.0)
    ledger.answer(0.1, 0.2, "")
    ledger.answer(0.2, 0.3, "HTTP/1.1 503")
    ledger.lose("reset", refused=False)
    ledger.lose("closed before it was sent", refused=True)
    assert (list(ledger.latencies), ledger.completed) == ([0.1], 1)
    assert (ledger.answered, ledger.failed, ledger.lost, ledger.refused) == (2, 1, 1, 1)
    assert ledger.first_error == "HTTP/1.1 503"


def test_a_lane_whose_connection_ends_is_not_used_again():
    class Fragile:
        def __init__(self) -> None:
            self.sends = 0

        def send(self) -> None:
            self.sends += 1

    lanes, ledger = [Fragile(), Fragile()], pace.Ledger(0.0, 10.0)
    driver = pace.ClosedLoop(lanes, lambda: 1.0, ledger, 100)
    driver.begin()
    driver.lost(lanes[0], "reset")
    driver.answered(lanes[1], reusable=False)
    assert [lane.sends for lane in lanes] == [1, 1]
    assert driver.finished()
    assert (ledger.lost, ledger.answered) == (1, 1)
