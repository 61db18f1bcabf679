"""The threads that run gRPC handlers: few that compute, as many as needed that wait.

grpcio's server hands every call to a thread pool. Handlers of small models never wait, and then two threads are best:
measured 138 us of CPU per echo with 2 threads, 175 us with 8 or 32, because idle threads take part in every hand-over
of the interpreter lock. Handlers of large models wait for the dataplane's executor, and then every call in flight needs
a thread, or calls could neither overlap nor be merged. So a handler says when it waits (`with pool.waiting():`) and the
pool lets another thread take its place meanwhile.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

PARKED_S = 10.0  # how long a thread that is not needed stays for the next call that waits


class Pool(Executor):
    """At most `active` handlers compute at once and at most `limit` threads exist; further calls queue."""

    def __init__(self, active: int, limit: int) -> None:
        self._active = active
        self._limit = limit
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._waiting = 0
        self._parked = 0
        self._ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # the future's owner decides, as with every executor
                future.set_exception(error)

        self._calls.put(call)
        if self._threads < self._active:
            self._add()
        return future

    def waiting(self) -> Waiting:
        return Waiting(self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the threads once the calls that are queued have run. Does not wait for them: they are daemons."""
        with self._lock:
            self._ended = True
            threads, parked = self._threads, self._parked
        for _ in range(parked):
            self._wake.put(None)
        for _ in range(threads):
            self._calls.put(None)

    def step_aside(self) -> None:
        """The calling handler begins to wait: its place is free."""
        with self._lock:
            self._waiting += 1
            running = self._threads - self._waiting - self._parked
            unpark = running < self._active and self._parked > 0
            if unpark:
                self._parked -= 1
        if unpark:
            self._wake.put(None)
        elif running < self._active:
            self._add()

    def step_back(self) -> None:
        with self._lock:
            self._waiting -= 1

    def _add(self) -> None:
        with self._lock:
            needed = self._threads - self._waiting - self._parked < self._active and self._threads < self._limit
            self._threads += needed
        if needed:
            threading.Thread(target=self._run, name="grpc-handler", daemon=True).start()

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            call()
            del call
            if self._threads - self._waiting - self._parked > self._active and not self._park():
                return

    def _park(self) -> bool:
        """Waits until the thread is needed again; False when it was not for PARKED_S, and it should end."""
        with self._lock:
            if self._ended or self._threads - self._waiting - self._parked <= self._active:
                return True
            self._parked += 1
        try:
            self._wake.get(timeout=PARKED_S)
        except queue.Empty:
            with self._lock:
                if self._parked > 0:
                    self._parked -= 1
                    self._threads -= 1
                    return False
            self._wake.get()  # it was woken at the last moment
        return True


class Waiting:
    """`with pool.waiting():` around what blocks."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __enter__(self) -> None:
        self._pool.step_aside()

    def __exit__(self, *_: object) -> None:
        self._pool.step_back()
