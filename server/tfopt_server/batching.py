"""Which waiting requests run together, and when.

Pure policy: no clock, no threads, no arrays. Time is an argument (seconds on any one clock), a request is anything with
rows, and a batch is a list of pieces (request, first row, end row). The executor holds the lock and does the work.

Two rules share the queues. The opportunistic one is ours: nobody waits; while every runner is busy the arrivals of a
group become the next batch, cut where a row is cheapest. The other is TensorFlow Serving's SharedBatchScheduler, with
its limits and its error texts (batching_util/shared_batch_scheduler.h).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.errors import Code, invalid, unavailable

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """How a queue makes batches; sizes in rows, None: no limit.

    `limit`: most rows of one batch. `task_limit`: a larger request is refused. `wait_s`: how long a batch that is not
    full waits for company. `max_batches`: as many may wait, the next is refused. `cut`: a request is never cut, or only
    when it is larger than a batch, or also so that it fills a batch. `merge`: several requests may share a batch.
    `cost_us` of a number of rows lets the opportunistic rule choose where a row is cheapest; None: always as many as
    fit. `expired`: what a request hears that waited too long, as arguments of ServingError.
    """

    limit: int | None
    task_limit: int | None = None
    wait_s: float = 0.0
    max_batches: int | None = None
    cut: Literal["never", "large", "fill"] = "never"
    merge: bool = True
    cost_us: Callable[[int], float] | None = None
    expired: tuple[Code, str, float | None] = (
        Code.DEADLINE_EXCEEDED, "Deadline exceeded while waiting for a runner", None,
    )  # fmt: skip


# After which a queue that was full, or too slow, has room again: batches take milliseconds, and clients add jitter.
QUEUE_RETRY_S = 0.1

# One request per batch, whatever its size: rows are not independent, or the request is outside the plan.
ALONE = Rule(limit=None, merge=False)


def opportunistic(largest: int, *, cut: bool, merge: bool, cost_us: Callable[[int], float] | None) -> Rule:
    """Our default for a signature with independent rows.

    `largest`: rows of the largest bucket. `cut`: it takes no more, so a larger request is cut into pieces of that size,
    which may run at the same time; else a larger request runs whole.
    """
    return Rule(limit=largest, cut="large" if cut else "never", merge=merge, cost_us=cost_us)


def serving(parameters: BatchingParameters, largest: int | None) -> Rule:
    """TensorFlow Serving's rule. `largest`: rows of the largest bucket when it takes no more, else None."""
    limit = parameters.execution_limit if largest is None else min(parameters.execution_limit, largest)
    return Rule(
        limit=limit,
        task_limit=parameters.max_batch_size,
        wait_s=parameters.batch_timeout_micros * 1e-6,
        max_batches=max(1, parameters.max_enqueued_batches),
        # Where the largest bucket is smaller than what the parameters allow, a request that they allow must be cut.
        cut="fill" if parameters.enable_large_batch_splitting else "large",
        expired=(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue", QUEUE_RETRY_S),
    )


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """Rows `start` to `stop` of a waiting request. `since`: when it came; `deadline`: when it is no longer wanted."""

    task: T
    start: int
    stop: int
    since: float
    deadline: float | None = None

    @property
    def rows(self) -> int:
        return self.stop - self.start


class Queue(Generic[T]):
    """The waiting requests of one group, in the order of arrival."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.pieces: deque[Piece[T]] = deque()
        self.rows = 0

    def add(self, piece: Piece[T]) -> None:
        """Takes a request in. ServingError when it is too large or the queue is full; the queue is then unchanged."""
        refuse(self.rule, piece.rows, self.rows, (p.rows for p in self.pieces))
        self.pieces.append(piece)
        self.rows += piece.rows

    def ready_at(self) -> float:
        """When its next batch may run: the time its first request came, plus the wait unless the batch is full."""
        full = self.rule.limit is not None and self.rows >= self.rule.limit
        return self.pieces[0].since + (0.0 if full or not self.rule.merge else self.rule.wait_s)

    def take(self) -> list[Piece[T]]:
        """The next batch: at least one piece, in the order of arrival."""
        if not self.rule.merge:
            return [self._cut(self.rule.limit)]
        count = self._count()
        batch = [self._cut(self.rule.limit) for _ in range(count)]
        left = (self.rule.limit or 0) - sum(p.rows for p in batch)
        if self.rule.cut == "fill" and left > 0 and self.pieces:
            batch.append(self._cut(left))
        return batch

    def _count(self) -> int:
        """How many of the first pieces go together (at least 1)."""
        fitting = 0
        rows = 0
        sizes = []
        for piece in self.pieces:
            rows += piece.rows
            if self.rule.limit is not None and rows > self.rule.limit:
                break
            fitting += 1
            sizes.append(rows)
        if self.rule.cost_us is None or fitting < 2:
            return max(1, fitting)
        return cheapest(sizes, self.rule.cost_us)

    def _cut(self, most: int | None) -> Piece[T]:
        """Takes the first piece, or `most` rows of it where it is larger and may be split."""
        first = self.pieces.popleft()
        if most is not None and first.rows > most and self.rule.cut != "never":
            middle = first.start + most
            self.pieces.appendleft(Piece(first.task, middle, first.stop, first.since, first.deadline))
            first = Piece(first.task, first.start, middle, first.since, first.deadline)
        self.rows -= first.rows
        return first

    def expire(self, now: float) -> list[T]:
        """Takes out the pieces whose deadline has passed."""
        kept, gone = deque[Piece[T]](), list[T]()
        for piece in self.pieces:
            if piece.deadline is not None and piece.deadline <= now:
                gone.append(piece.task)
            else:
                kept.append(piece)
        if gone:
            self.pieces, self.rows = kept, sum(piece.rows for piece in kept)
        return gone


class Batcher(Generic[T]):
    """All queues, one per group. Not thread-safe: whoever owns it holds a lock."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, Queue[T]] = {}
        self.waiting = 0  # pieces in all queues

    def offer(
        self, group: Hashable, rule: Rule, task: T, rows: int, *, now: float, deadline: float | None = None
    ) -> None:
        """Puts a request at the end of its group's queue. ServingError as `Queue.add`."""
        queue = self._queues.get(group)
        if queue is None:
            queue = Queue(rule)
        queue.add(Piece(task, 0, rows, now, deadline))
        self._queues[group] = queue
        self.waiting += 1

    def take(self, now: float) -> list[Piece[T]] | None:
        """The batch that has been ready for longest, or None when no queue has one that may run now."""
        if not self._queues:
            return None
        group, queue = min(self._queues.items(), key=lambda item: item[1].ready_at())
        if queue.ready_at() > now:
            return None
        before = len(queue.pieces)
        batch = queue.take()
        self._account(group, queue, before)
        return batch

    def due(self) -> float | None:
        """When the next batch may run, None when nothing waits."""
        return min((queue.ready_at() for queue in self._queues.values()), default=None)

    def expire(self, now: float) -> list[T]:
        """Takes out the requests whose deadline has passed and returns them, each as often as it had pieces waiting."""
        gone: list[T] = []
        for group, queue in list(self._queues.items()):
            before = len(queue.pieces)
            gone += queue.expire(now)
            self._account(group, queue, before)
        return gone

    def _account(self, group: Hashable, queue: Queue[T], before: int) -> None:
        """Keeps `waiting` right; an empty queue goes away, for groups are as many as clients' shapes."""
        self.waiting += len(queue.pieces) - before
        if not queue.pieces:
            del self._queues[group]


def cheapest(sizes: Sequence[int], cost_us: Callable[[int], float]) -> int:
    """How many requests to join so that a row costs least; `sizes` are the running totals of their rows.

    Nine waiting rows with buckets of 8 and 16: eight now and one next may cost less than a bucket of 16 half empty.
    Equal costs: the larger batch.
    """
    best, found = 1, 0.0
    for count, rows in enumerate(sizes, 1):
        value = rows / max(cost_us(rows), 1e-9)
        if value >= found:
            best, found = count, value
    return best


def refuse(rule: Rule, rows: int, waiting: int, sizes: Iterable[int]) -> None:
    """Raises what TensorFlow Serving answers when a request of `rows` may not join a queue.

    `waiting`: the rows in the queue; `sizes`: those of its requests in order, looked at only when it may be full.
    """
    if rule.task_limit is not None and rows > rule.task_limit:
        raise invalid(f"Task size {rows} is larger than maximum input batch size {rule.task_limit}")
    if rule.max_batches is None or rule.limit is None:
        return
    if rule.cut == "fill":
        _refuse_cut(rule.max_batches, rule.limit, rows, waiting)
    # Two batches in a row hold more than `limit` rows together, or the second would have joined the first: with fewer
    # rows than this there cannot be `max_batches` of them, and nothing needs counting.
    elif waiting > rule.max_batches // 2 * rule.limit or rule.max_batches == 1:
        _refuse_whole(rule.max_batches, rule.limit, rows, sizes)


_FULL = "The batch scheduling queue to which this task was submitted is full; "


def _refuse_cut(most: int, limit: int, rows: int, waiting: int) -> None:
    batches = max(1, -(-waiting // limit))
    tail = waiting - (batches - 1) * limit
    capacity = (most - batches) * limit + limit - tail
    if rows > capacity:
        raise unavailable(
            f"{_FULL}task size is {rows} but scheduling capacity is only {capacity} (num_enqueued_batches={batches}, "
            f"max_enqueued_batches={most}, open_batch_size={tail}, max_execution_batch_size={limit})",
            QUEUE_RETRY_S,
        )


def _refuse_whole(most: int, limit: int, rows: int, sizes: Iterable[int]) -> None:
    batches, tail = batches_of(sizes, limit)
    if tail + rows > limit and batches >= most:
        text = f"{_FULL}currently {batches} batches enqueued and max_enqueued_batches is {most}"
        raise unavailable(text, QUEUE_RETRY_S)


def batches_of(sizes: Iterable[int], limit: int) -> tuple[int, int]:
    """How many batches requests of these sizes fill in order, and the rows of the last one. None waiting: (1, 0).

    Only a request larger than `limit` is cut; what is left of it shares the next batch.
    """
    batches, tail = 1, 0
    for rows in sizes:
        if tail > 0 and tail + rows > limit:
            batches, tail = batches + 1, 0
        more = max(0, -(-(tail + rows) // limit) - 1)
        batches, tail = batches + more, tail + rows - more * limit
    return batches, tail


class Company:
    """Whether requests that could merge go to a runner thread, by whether they have company.

    A thread hop costs a lone client more than it can win; under load it lets requests merge. So `PROBES` requests in a
    row are queued and those that found another one in flight are counted; without company the next `INLINE` stay on the
    caller's thread. (8 of 1000 pay the hop: beyond the 99th percentile.)
    """

    PROBES = 8
    INLINE = 1000

    def __init__(self) -> None:
        self._inline_left = 0
        self._probed = 0
        self._accompanied = 0

    def hop(self, in_flight: int) -> bool:
        """Whether the next request goes to a runner thread; `in_flight`: requests that wait or run right now."""
        if self._inline_left > 0:
            self._inline_left -= 1
            return False
        self._probed += 1
        self._accompanied += in_flight > 0
        if self._probed == self.PROBES:
            if self._accompanied * 2 <= self.PROBES:
                self._inline_left = self.INLINE
            self._probed = self._accompanied = 0
        return True
