"""Handler threads: few that compute, and one more for each that waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tfopt_server.rpc import pool as pools
from tfopt_server.rpc.pool import Pool


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


class Crowd:
    """Calls that note that they run, then wait for `go`."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.running = 0
        self.go = threading.Event()

    def compute(self) -> int:
        self.running += 1
        assert self.go.wait(10)
        return threading.get_ident()

    def wait(self) -> int:
        with self.pool.waiting():
            return self.compute()


def test_no_more_handlers_compute_at_once_than_allowed() -> None:
    pool = Pool(active=2, limit=100)
    crowd = Crowd(pool)
    futures = [pool.submit(crowd.compute) for _ in range(6)]
    until(lambda: crowd.running == 2)
    time.sleep(0.05)
    assert crowd.running == 2
    crowd.go.set()
    assert len({future.result(5) for future in futures}) == 2
    pool.shutdown()


def test_handlers_that_wait_make_room() -> None:
    pool = Pool(active=2, limit=100)
    crowd = Crowd(pool)
    futures = [pool.submit(crowd.wait) for _ in range(20)]
    until(lambda: crowd.running == 20)
    assert pool.submit(lambda: "quick").result(5) == "quick"
    crowd.go.set()
    assert len({future.result(5) for future in futures}) == 20
    # Those that are not needed any more do not compete: two compute.
    again = Crowd(pool)
    futures = [pool.submit(again.compute) for _ in range(6)]
    until(lambda: again.running == 2)
    time.sleep(0.05)
    assert again.running == 2
    again.go.set()
    for future in futures:
        future.result(5)
    pool.shutdown()


def test_threads_that_wait_are_limited() -> None:
    pool = Pool(active=1, limit=3)
    crowd = Crowd(pool)
    futures = [pool.submit(crowd.wait) for _ in range(5)]
    until(lambda: crowd.running == 3)
    time.sleep(0.05)
    assert crowd.running == 3
    crowd.go.set()
    for future in futures:
        future.result(5)
    pool.shutdown()


def test_idle_threads_end_after_a_while(monkeypatch) -> None:
    monkeypatch.setattr(pools, "PARKED_S", 0.05)
    pool = Pool(active=1, limit=50)
    before = threading.active_count()
    crowd = Crowd(pool)
    futures = [pool.submit(crowd.wait) for _ in range(10)]
    until(lambda: crowd.running == 10)
    crowd.go.set()
    for future in futures:
        future.result(5)
    until(lambda: threading.active_count() <= before + 1)
    assert pool.submit(lambda: 5).result(5) == 5
    pool.shutdown()


def test_shutdown_runs_what_is_queued_and_ends_the_threads() -> None:
    pool = Pool(active=1, limit=50)
    before = threading.active_count()
    crowd = Crowd(pool)
    futures = [pool.submit(crowd.wait) for _ in range(4)]
    until(lambda: crowd.running == 4)
    pool.shutdown()
    crowd.go.set()
    for future in futures:
        future.result(5)
    until(lambda: threading.active_count() <= before)


def test_failures_belong_to_the_future() -> None:
    pool = Pool(active=1, limit=1)
    error = ValueError("x")

    def fail() -> None:
        raise error

    assert pool.submit(fail).exception(5) is error
    assert pool.submit(lambda: 1).result(5) == 1
    pool.shutdown()
