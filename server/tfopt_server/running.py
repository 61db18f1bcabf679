"""One batch from requests to answers: pad -> run -> split, each step timed. Called by the executor's threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from tfopt_optimizer.errors import Declined, OutOfMemory
from tfopt_optimizer.outside import DECLINED

from tfopt_server import logs, rows
from tfopt_server.batching import Piece, Rule
from tfopt_server.lanes import Bucket, Lane, elements
from tfopt_server.rows import Arrays, Feeds
from tfopt_server.tasks import Call, Result, Task, Timings, translated

log = logging.getLogger(__name__)

# The label of plain TensorFlow where the plan names no bucket.
REFERENCE = "tensorflow"
MOST_NAMES = 8  # of requests in a line about a batch
_now = time.monotonic


class Run(NamedTuple):
    """One call of an engine. `rows` were asked for, `size` were run; `bucket` is the label, None for any size.
    `elements` of all inputs where the cost has to be learned, else 0. `parts`: where it was several calls, these."""

    outputs: Arrays
    rows: int
    size: int
    engine: str
    bucket: int | None
    begin: float
    padded: float
    ran: float
    elements: int = 0
    parts: tuple[Run, ...] = ()


def inline(call: Call, buckets: Sequence[Bucket]) -> Result:
    """Runs one request on the calling thread. ServingError for what the engine refuses, Declined for what plain
    TensorFlow must answer instead, OutOfMemory for what must go another way now that a bucket is dropped."""

    def one(bucket: Bucket, feeds: Feeds, count: int) -> Run:
        try:
            return _bucket_run(bucket, (feeds,), count, call.outputs)
        except OutOfMemory as error:
            call.lane.drop(bucket, error.message)
            raise

    try:
        first = buckets[0]
        done = one(first, call.feeds, call.rows) if len(buckets) == 1 else _in_turn(buckets, call.feeds, call.rows, one)
    except (Declined, OutOfMemory):
        raise
    except Exception as error:
        raise translated(error) from error
    return _result(call, done)


def at_once(  # noqa: PLR0917 - one call a request, where naming arguments is felt
    lane: Lane, bucket: Bucket, feeds: Feeds, outputs: Sequence[str] | None, arrived: float, api: str
) -> Result:
    """As `inline` for a request of exactly the bucket's rows: nothing to pad or to split, so neither is timed.

    Most requests for small models come this way; half of the executor's cost was handing values from step to step.
    """
    size = bucket.batch or 0
    begin = _now()
    try:
        found = bucket.run(feeds, outputs)
    except Declined:
        raise
    except OutOfMemory as error:
        lane.drop(bucket, error.message)
        raise
    except Exception as error:
        raise translated(error) from error
    seconds = _now() - begin
    lane.steps.run.observe(seconds)
    lane.runtime(api).observe(seconds * 1e6)
    lane.batch_requests.observe(1)
    meter = lane.meter(bucket.engine, bucket.batch)
    meter.requests.inc()
    meter.rows.inc(size)
    return Result(found, Timings(begin - arrived, 0.0, seconds, 0.0, size))


def reference(call: Call) -> Result:
    """As `inline`, on plain TensorFlow: any shapes, any number of rows, zero too."""
    try:
        done = _reference_run(call.lane, call.feeds, call.rows, call.outputs)
    except Exception as error:
        raise translated(error) from error
    return _result(call, done)


def _result(call: Call, done: Run) -> Result:
    outputs = done.outputs if done.size == done.rows else rows.cut(done.outputs, 0, done.rows)
    outputs = outputs if call.cut is None else call.cut(outputs)
    split = _now()
    _record(call.lane, done, split, 1)
    call.lane.runtime(call.api).observe((done.ran - done.padded) * 1e6)
    return Result(outputs, _timings(done, call.arrived, split))


def placement(call: Call, task: Hashable) -> tuple[Hashable, Rule]:
    """The queue of a request and its rule. Those that nothing may join share one too, in which each is a batch: looking
    for the next batch takes time for every queue. One of its own, by `task`, where a queue's length is limited."""
    lane = call.lane
    if call.outside:
        return (lane, "outside"), lane.alone
    outputs = None if call.outputs is None else tuple(call.outputs)
    if lane.levels:
        ranks = tuple((name, array.dtype.str, array.ndim) for name, array in sorted(call.feeds.items()))
        return (lane, "levelled", ranks, outputs), lane.rule
    if call.route.group is None:
        return (lane, "alone") if lane.single.max_batches is None else task, lane.single
    return (lane, call.route.group, outputs), lane.rule


def run(batch: list[Piece[Task]]) -> None:
    """Runs a batch and answers everyone in it; never raises. What is logged names the requests that have a name.

    When a merged batch fails, each request runs again alone: one that the model refuses must not fail its neighbours,
    and gets an error that speaks of its own input.
    """
    names = [piece.task.name for piece in batch if piece.task.name]
    if names:
        with logs.naming(", ".join(names[:MOST_NAMES])):
            again = _run(batch)
    else:
        again = _run(batch)
    for piece in again:
        run([piece])


def _run(batch: list[Piece[Task]]) -> list[Piece[Task]]:
    """What of it has to run again, each alone."""
    lane = batch[0].task.call.lane
    lane.enter()  # before looking who is still wanted: see Lane.users
    try:
        if pieces := [piece for piece in batch if piece.task.wanted]:
            _answer(lane, pieces)
    except Exception as error:
        if len(pieces) == 1:
            pieces[0].task.fail(translated(error))
            return []
        lane.retries.inc()
        log.debug("a batch of %d requests failed (%s); each runs again alone", len(pieces), error)
        return pieces
    finally:
        lane.leave()
    return []


def _answer(lane: Lane, pieces: Sequence[Piece[Task]]) -> None:
    call = pieces[0].task.call
    parts = [piece.task.part(piece.start, piece.stop) for piece in pieces]
    count = sum(piece.rows for piece in pieces)
    try:
        done = _engine_run(call, parts, count)
    except Declined as error:
        if len(pieces) > 1:
            raise  # each runs again alone: only the one that is meant goes to plain TensorFlow
        lane.fell_back(DECLINED, parts[0], str(error))
        done = _reference_run(lane, parts[0], count, call.outputs)
    whole = len(pieces) == 1 and done.size == count
    if not whole:
        rows.check(done.outputs, done.size)
    start = 0
    for piece in pieces:
        outputs = done.outputs if whole else rows.cut(done.outputs, start, start + piece.rows)
        start += piece.rows
        piece.task.deliver(piece.start, piece.stop, outputs, _timings(done, piece.since, _now()))
        lane.steps.queue.observe(done.begin - piece.since)
        lane.runtime(piece.task.call.api).observe((done.ran - done.padded) * 1e6)
    _record(lane, done, _now(), len(pieces))
    if lane.serving is not None:
        for piece in pieces:
            lane.serving.queuing.observe((done.begin - piece.since) * 1e6)


def _engine_run(call: Call, parts: Sequence[Feeds], count: int) -> Run:
    if call.outside:
        return _reference_run(call.lane, parts[0], count, call.outputs)
    if call.lane.levels:
        return _levelled_run(call.lane, parts, count, call.outputs)
    return _fitting_run(call.lane, call.buckets(count), parts, count, call.outputs)


def _fitting_run(
    lane: Lane, buckets: Sequence[Bucket], parts: Sequence[Feeds], count: int, outputs: Sequence[str] | None
) -> Run:
    """On the buckets; where the device has no memory for one, or it has become too small since the batch was cut, in
    pieces on those that are left."""

    def planned(bucket: Bucket, feeds: Feeds, size: int) -> Run:
        return _fitting_run(lane, (bucket,), (feeds,), size, outputs)

    def anew(_: Bucket, feeds: Feeds, size: int) -> Run:
        return _fitting_run(lane, lane.runner.buckets_for(size), (feeds,), size, outputs)

    if len(buckets) > 1:
        return _in_turn(buckets, rows.joined(parts, count), count, planned)
    bucket = buckets[0]
    if bucket.batch is None or not bucket.static or count <= bucket.batch:
        try:
            return _bucket_run(bucket, parts, count, outputs)
        except OutOfMemory as error:
            lane.drop(bucket, error.message)
            if bucket.batch is None:
                return _reference_run(lane, parts[0], count, outputs)
    largest = lane.runner.bucket_for(lane.runner.buckets[-1])
    return _in_turn([largest] * -(-count // (largest.batch or 1)), rows.joined(parts, count), count, anew)


def _in_turn(buckets: Sequence[Bucket], feeds: Feeds, count: int, run_one: Callable[[Bucket, Feeds, int], Run]) -> Run:
    """The rows through the buckets, as many as each takes, and the answers joined."""
    runs, start = list[Run](), 0
    for bucket in buckets:
        size = min(count - start, bucket.batch or count)
        done = run_one(bucket, rows.cut(feeds, start, start + size), size)
        rows.check(done.outputs, done.size)
        runs.append(done)
        start += size
    first, last = runs[0], runs[-1]
    outputs = rows.rejoined([rows.cut(run.outputs, 0, run.rows) for run in runs])
    parts = tuple(part for run in runs for part in run.parts or (run,))
    return last._replace(
        outputs=outputs, rows=count, size=count, begin=first.begin, padded=first.padded, elements=0, parts=parts
    )


def _bucket_run(bucket: Bucket, parts: Sequence[Feeds], count: int, outputs: Sequence[str] | None) -> Run:
    begin = _now()
    size = bucket.batch if bucket.static and bucket.batch is not None else count
    feeds = parts[0] if len(parts) == 1 and size == count else rows.joined(parts, size)
    padded = _now()
    found = bucket.run(feeds, outputs)
    ran = _now()
    if size != count:
        rows.check(found, size)
    unknown = 0 if bucket.cost_us else max(1, elements(feeds))
    return Run(found, count, size, bucket.engine, bucket.batch, begin, padded, ran, unknown)


def _reference_run(lane: Lane, feeds: Feeds, count: int, outputs: Sequence[str] | None) -> Run:
    begin = _now()
    found = lane.runner.run_reference(feeds, outputs)
    ran = _now()
    return Run(found, count, count, REFERENCE, None, begin, begin, ran, max(1, elements(feeds)))


def _levelled_run(lane: Lane, parts: Sequence[Feeds], count: int, outputs: Sequence[str] | None) -> Run:
    """Requests of different inner sizes, padded to the largest; what that gives may lie outside the plan."""
    feeds = rows.joined(rows.levelled(parts), count)
    route = lane.runner.route(feeds)
    if route.reference:
        lane.fell_back(route.reason, feeds)
        return _reference_run(lane, feeds, count, outputs)
    return _fitting_run(lane, lane.runner.buckets_for(count), (feeds,), count, outputs)


def _timings(done: Run, arrived: float, split: float) -> Timings:
    return Timings(done.begin - arrived, done.padded - done.begin, done.ran - done.padded, split - done.ran, done.size)


def _record(lane: Lane, done: Run, split: float, requests: int) -> None:
    steps = lane.steps
    steps.pad.observe(done.padded - done.begin)
    steps.run.observe(done.ran - done.padded)
    steps.split.observe(split - done.ran)
    lane.batch_requests.observe(requests)
    lane.meter(done.engine, done.bucket).requests.inc(requests)
    for one in done.parts or (done,):
        meter = lane.meter(one.engine, one.bucket)
        meter.rows.inc(one.rows)
        if one.elements:
            meter.ran(one.ran - one.padded, one.elements)
        if one.size != one.rows:
            meter.padding.inc(one.size - one.rows)
        if lane.serving is not None:
            lane.serving.runs.inc()
            lane.serving.processed_sizes.observe(one.size)
            lane.serving.padding(one.size).observe(one.size - one.rows)
