"""One request on its way through the executor, and its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import NamedTuple

from tfopt_optimizer.errors import EngineError

from tfopt_server import logs, rows
from tfopt_server.errors import Code, ServingError
from tfopt_server.lanes import Bucket, Lane, Route
from tfopt_server.rows import Arrays, Feeds


class Timings(NamedTuple):
    """Seconds spent per step; a request that ran in several pieces counts their sum. `batch`: rows of the (last) run,
    other requests' and padding included."""

    queue_s: float
    pad_s: float
    run_s: float
    split_s: float
    batch: int


class Result(NamedTuple):
    """Outputs by name, [rows, *inner], perhaps views into a larger batch; read-only."""

    outputs: Arrays
    timings: Timings


# Bytes of an output that take about a millisecond to write, and of the pointers to strings that do.
LONG_ANSWER = 1024 * 1024
LONG_STRINGS = 32 * 1024


def is_long(result: Result) -> bool:
    """Whether an answer is to be written on a thread, not on the event loop."""
    for array in result.outputs.values():  # without a generator, which costs more than the whole check
        if array.nbytes >= LONG_STRINGS and (array.nbytes >= LONG_ANSWER or array.dtype == object):
            return True
    return False


class Call(NamedTuple):
    """A request as it came, and where it goes. `arrived` and `deadline` are on time.monotonic's clock; `outputs` None:
    all of them; `api`: the method as TensorFlow Serving's metrics name it; `cut` takes what answers inner padding off.
    """

    lane: Lane
    route: Route
    feeds: Feeds
    rows: int
    outputs: Sequence[str] | None
    arrived: float
    deadline: float | None
    api: str
    cut: Callable[[Arrays], Arrays] | None = None

    @property
    def outside(self) -> bool:
        """Whether plain TensorFlow answers it: outside the plan, or with no rows to pad with."""
        if self.lane.levels:
            return self.rows == 0
        return self.route.reference or (self.route.bucket is None and not self.rows)

    def buckets(self, count: int) -> tuple[Bucket, ...]:
        """What runs `count` rows of it, in turn: its own bucket when its rows depend on each other."""
        return (self.route.bucket,) if self.route.bucket is not None else self.lane.runner.buckets_for(count)


class Task:
    """A request that waits or runs. Its future is settled once: by its last piece, an error, a deadline, `cancel`."""

    __slots__ = ("_done", "_left", "_lock", "_timings", "call", "future", "name")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.name = logs.request_id.get()  # for whoever runs it, on another thread
        self.future: Future[Result] = Future()
        self._left = call.rows
        self._done: dict[int, Arrays] = {}
        self._timings: list[Timings] = []
        self._lock = threading.Lock()

    @property
    def wanted(self) -> bool:
        """False once it is cancelled, failed or past its deadline: running it would help nobody."""
        return not self.future.done()

    def part(self, start: int, stop: int) -> Feeds:
        whole = start == 0 and stop == self.call.rows
        return self.call.feeds if whole else rows.cut(self.call.feeds, start, stop)

    def deliver(self, start: int, stop: int, outputs: Arrays, timings: Timings) -> None:
        """Hands in the outputs of rows `start` to `stop`; the last piece settles the future."""
        with self._lock:
            self._done[start] = outputs
            self._timings.append(timings)
            self._left -= stop - start
            if self._left > 0:
                return
        pieces = [self._done[at] for at in sorted(self._done)]
        together = pieces[0] if len(pieces) == 1 else rows.rejoined(pieces)
        cut = self.call.cut
        self._settle(Result(together if cut is None else cut(together), _summed(self._timings)))

    def fail(self, error: BaseException) -> None:
        self._settle(error)

    def _settle(self, answer: Result | BaseException) -> None:
        try:
            if isinstance(answer, BaseException):
                self.future.set_exception(answer)
            else:
                self.future.set_result(answer)
        except InvalidStateError:
            # Answered already: it was cancelled, or its deadline passed while it ran. Nobody waits for this any more.
            return


def _summed(several: Sequence[Timings]) -> Timings:
    last = several[-1]
    if len(several) == 1:
        return last
    queue, pad, run, split, _ = map(sum, zip(*several, strict=True))
    return Timings(queue, pad, run, split, last.batch)


def translated(error: BaseException) -> BaseException:
    """An engine's refusal in the server's terms; everything else as it is."""
    if isinstance(error, EngineError):
        code = Code.__members__.get(error.code, Code.INTERNAL)
        return ServingError(code, error.message)
    return error
