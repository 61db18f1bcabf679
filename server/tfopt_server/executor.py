"""Runs requests: on the caller's thread where that is cheapest, else on runner threads that take batches from queues.

Which requests share a batch is policy (`batching.py`); here are the threads, the lock and the clock. A slot stands for
one runner at work, whether the caller's thread or one of ours; there are as many as usable cores. Rules for changing
it: a request that was accepted is answered, whatever happens to its neighbours; no exception ends a runner thread; the
inline path stays a few microseconds long (tests/server/test_executor.py counts its calls).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from tfopt_optimizer.errors import Declined, OutOfMemory
from tfopt_optimizer.outside import DECLINED

from tfopt_server import rows, running
from tfopt_server.batching import Batcher, Piece, refuse
from tfopt_server.errors import Code, ServingError
from tfopt_server.lanes import HOP_US, Lane, Outside, elements
from tfopt_server.metrics import Metrics
from tfopt_server.rows import Feeds
from tfopt_server.tasks import Call, Result, Task

log = logging.getLogger(__name__)

# The longest run on a caller's thread: on an event loop the other requests wait meanwhile, and the gRPC face has few
# threads that compute. Where requests do not merge, a hop loses 13 to 40 % below 200 us and wins 11 % at 250 us.
INLINE_LIMIT_US = 300.0
# How often deadlines of waiting and running requests are looked at. Clients' own deadlines are finer.
TICK_S = 0.05

_now = time.monotonic


class Executor:
    """`start` is thread-safe. `runners`: slots; they can be changed later."""

    def __init__(self, metrics: Metrics, runners: int) -> None:
        self._batcher: Batcher[Task] = Batcher()
        self._changed = threading.Condition(threading.Lock())
        self._limit = max(1, runners)
        self._busy = 0
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._in_flight: set[Task] = set()
        self._watched = threading.Event()
        self._watcher: threading.Thread | None = None
        metrics.queue_depth.labels().follow(lambda: float(self._batcher.waiting))
        metrics.busy_runners.labels().follow(lambda: float(self._busy))

    @property
    def runners(self) -> int:
        return self._limit

    @runners.setter
    def runners(self, number: int) -> None:
        with self._changed:
            self._limit = max(1, number)
            self._changed.notify_all()

    def start(
        self,
        lane: Lane,
        feeds: Feeds,
        outputs: Sequence[str] | None = None,
        *,
        deadline: float | None = None,
        api: str = "Predict",
    ) -> Result | Future[Result]:
        """Runs a request now, or queues it.

        `deadline` is on time.monotonic's clock. Raises ServingError for what is known at once; the future raises the
        same kinds.
        """
        arrived = _now()
        if deadline is not None and deadline <= arrived:
            raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded before the request could run")
        route, cut = lane.runner.route(feeds), None
        if route.reference and lane.inner is not None:
            lane, feeds, cut = lane.fit(feeds)
            route = lane.runner.route(feeds)
        try:
            short = lane.short.get(route.rows)
            if short is not None and cut is None:
                return running.at_once(lane, short, feeds, outputs, arrived, api)
            count = rows.common(feeds) if lane.levels else route.rows or 0
            call = Call(lane, route, feeds, count, outputs, arrived, deadline, api, cut)
            return self._outside(call) if call.outside else self._planned(call)
        except Declined as error:
            left = Outside(DECLINED)
            call = Call(lane, left, feeds, route.rows or 0, outputs, arrived, deadline, api, cut)
            return self._outside(call, str(error))
        except OutOfMemory:  # the bucket is gone: the queue finds another way
            count = rows.common(feeds) if lane.levels else route.rows or 0
            again = lane.runner.route(feeds)
            return self._queued(Call(lane, again, feeds, count, outputs, arrived, deadline, api, cut))

    def _planned(self, call: Call) -> Result | Future[Result]:
        lane, count = call.lane, call.rows
        if lane.rule.wait_s > 0.0 or lane.levels:
            return self._queued(call)
        buckets = call.buckets(count)
        last = buckets[-1]
        if len(buckets) == 1 and last.static and last.batch is not None and count > last.batch:
            return self._queued(call)
        if lane.rule.task_limit is not None:
            refuse(lane.rule, count, 0, ())
        cost_us = lane.cost_us(buckets, count, call.feeds)
        if cost_us <= HOP_US:
            return running.inline(call, buckets)
        if self._stays(lane, cost_us) and self._claim():
            try:
                return running.inline(call, buckets)
            finally:
                self._release()
        return self._queued(call)

    def _outside(self, call: Call, detail: str = "") -> Result | Future[Result]:
        """A request for plain TensorFlow. The first ones may load TensorFlow: never on an event loop."""
        lane = call.lane
        lane.fell_back(call.route.reason or "zero rows", call.feeds, detail)
        if self._stays(lane, lane.meter(running.REFERENCE, None).expected_us(elements(call.feeds))) and self._claim():
            try:
                return running.reference(call)
            finally:
                self._release()
        return self._queued(call)

    def _stays(self, lane: Lane, cost_us: float) -> bool:
        """Whether a run of this length belongs on the caller's thread when a slot is free.

        Only merging speaks for a hop: it must save a row more than the hop costs, and there must be company.
        """
        if cost_us > INLINE_LIMIT_US:
            return False
        return lane.gain_us <= HOP_US or not lane.company.hop(len(self._in_flight))

    def _claim(self) -> bool:
        """Takes a slot if one is free and nobody waits for it."""
        with self._changed:
            if self._busy >= self._limit or self._batcher.waiting:
                return False
            self._busy += 1
            return True

    def _release(self) -> None:
        with self._changed:
            self._busy -= 1
            self._wake()

    def _wake(self) -> None:
        """Gets a runner thread for what waits, if a slot is free; the lock is held."""
        if not self._batcher.waiting or self._busy >= self._limit:
            return
        if self._idle:
            self._changed.notify()
        elif len(self._threads) < self._limit:
            name = f"tfopt-runner-{len(self._threads)}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _queued(self, call: Call) -> Future[Result]:
        task = Task(call)
        group, rule = running.placement(call, task)
        with self._changed:
            if self._closing:
                raise ServingError(Code.UNAVAILABLE, "The server is shutting down")
            self._batcher.offer(group, rule, task, call.rows, now=_now(), deadline=call.deadline)
            self._in_flight.add(task)
            call.lane.enter()
            self._wake()
        if call.lane.serving is not None:
            call.lane.serving.input_sizes.observe(call.rows)
        if call.deadline is not None:
            self._watch()
        task.future.add_done_callback(lambda _: self._settled(task))
        return task.future

    def _settled(self, task: Task) -> None:
        self._in_flight.discard(task)
        task.call.lane.leave()

    def _serve(self) -> None:
        """A runner thread: takes batches until the executor is closed."""
        while (batch := self._next()) is not None:
            try:
                running.run(batch)
            finally:
                self._release()

    def _next(self) -> list[Piece[Task]] | None:
        """Waits for a batch and takes a slot for it; None when there will be no more."""
        with self._changed:
            while True:
                due = None
                if self._busy < self._limit:
                    now = math.inf if self._closing else _now()  # at the end nobody waits for company any more
                    batch = self._batcher.take(now)
                    if batch is not None:
                        self._busy += 1
                        self._wake()
                        return batch
                    due = self._batcher.due()
                if self._closing and not self._batcher.waiting:
                    return None
                self._idle += 1
                self._changed.wait(None if due is None else max(0.0, due - now))
                self._idle -= 1

    def _watch(self) -> None:
        self._watched.set()
        if self._watcher is None:
            with self._changed:
                if self._watcher is None:
                    self._watcher = threading.Thread(target=self._expire, name="tfopt-deadlines", daemon=True)
                    self._watcher.start()

    def _expire(self) -> None:
        """Answers requests whose deadline passes while they wait or run, however busy the runners are."""
        while not self._closing:
            self._watched.wait()
            time.sleep(TICK_S)
            now = _now()
            with self._changed:
                waiting = self._batcher.expire(now)
            for task in waiting:
                task.fail(ServingError(*task.call.lane.rule.expired))
            for task in self._in_flight.copy():
                if task.call.deadline is not None and task.call.deadline <= now:
                    task.fail(ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded while the request was running"))
            if not self._in_flight:
                self._watched.clear()
                if self._in_flight:  # one came between the look and the clearing
                    self._watched.set()

    def finish(self, timeout_s: float | None = None) -> bool:
        """Takes nothing new, finishes what waits and ends the threads. False when that took longer than `timeout_s`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._watched.set()
        end = None if timeout_s is None else _now() + timeout_s
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - _now()))
        return not any(thread.is_alive() for thread in self._threads)
