"""Before a version is AVAILABLE: its warmup records replayed, every chosen runner and bucket run once."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt_server.errors import Code
from tfopt_server.metrics import Metrics
from tfopt_server.samples import Feeds, Material

if TYPE_CHECKING:
    from tfopt_optimizer.plan import Shortening
    from tfopt_optimizer.servable import Servable
    from tfopt_optimizer.signature_runner import Bucket, SignatureRunner
    from tfopt_warmup.records import Record

log = logging.getLogger(__name__)

# Rows of samples that buckets are filled from; they begin again when a bucket is larger.
MOST_ROWS = 1024
FEWER_ROWS_S = 2.0


class WarmingFailed(Exception):
    """A warmup file or request that fails the load, as in TensorFlow Serving."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def read(folder: Path, metrics: Metrics) -> tuple[Record, ...]:
    """The version's warmup records, counted. WarmingFailed when the file is bad."""
    from tfopt_warmup.records import WarmupError

    from tfopt_server import samples

    counter = metrics.warmup_records
    try:
        records = samples.read(folder)
    except WarmupError as error:
        counter.labels(folder, error.code).inc()
        raise WarmingFailed(Code.__members__.get(error.code, Code.UNKNOWN), error.message) from error
    if records:
        counter.labels(folder, "OK").inc(len(records))
    return records


def replay(servable: Servable, records: Sequence[Record], iterations: int, folder: Path, metrics: Metrics) -> None:
    """Runs every record as a request. WarmingFailed with the first error."""
    from tfopt_optimizer.errors import EngineError
    from tfopt_warmup import replay as warmup

    if not records:
        return
    begin = time.monotonic()

    def run(signature: str, feeds: Feeds) -> None:
        runner = servable.signatures.get(signature)
        if runner is None:
            raise WarmingFailed(Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
        runner.run(feeds)

    status = "OK"
    try:
        warmup.replay(records, run, iterations)
    except WarmingFailed as error:
        status = error.code.name
        raise
    except EngineError as error:
        status = error.code
        raise WarmingFailed(Code.__members__.get(error.code, Code.INTERNAL), error.message) from error
    finally:
        metrics.warmup_latency.labels(folder, status).observe((time.monotonic() - begin) * 1e6)


def every_bucket(
    servable: Servable, material: Material, say: Callable[[str], None], dropped: Callable[[str, str, str], None]
) -> int:
    """Runs each bucket once, so that no request is the first. Returns how many there were. One for which the device has
    no memory is dropped, and `dropped(signature, bucket, why)` told.

    A bucket that refuses made-up inputs is named in the log: the model's own requests may still suit it. With the
    model's own records it fails the load.
    """
    from tfopt_optimizer.errors import Declined, EngineError, OutOfMemory

    ran, until = 0, time.monotonic() + FEWER_ROWS_S
    for key, runner in servable.signatures.items():
        for bucket in runner.all_buckets():
            feeds = _feeds_for(bucket, material.samples.get(key, ()), runner)
            if feeds is None:
                say(f"signature {key}: nothing to warm {_named(bucket)} with")
                continue
            try:
                bucket.run(feeds, None)
                ran += 1
                _fewer_rows(bucket, feeds, until, runner.shortened.plan if runner.shortened else None)
            except Declined as error:
                say(f"signature {key}: {_named(bucket)} declines the inputs, plain TF answers such: {error.message}")
            except OutOfMemory as error:
                runner.drop(bucket)
                dropped(key, "any" if bucket.batch is None else str(bucket.batch), error.message)
            except EngineError as error:
                if material.source == "warmup":
                    code = Code.__members__.get(error.code, Code.INTERNAL)
                    raise WarmingFailed(code, f"{_named(bucket)}: {error.message}") from error
                say(f"signature {key}: {_named(bucket)} refuses made-up inputs: {error.message}")
    return ran


def _fewer_rows(bucket: Bucket, feeds: Feeds, until: float, lengths: Shortening | None) -> None:
    """A bucket of rows cut to their lengths takes any number of them, and its engine makes kernels for each: 3 ms of a
    text classifier, against 10 to 30 for the call."""
    if bucket.static or bucket.batch is None or not bucket.inner or bucket.engine.startswith("tensorflow"):
        return
    if hasattr(bucket.run, "each"):  # it runs them one by one, and has
        return
    for fewer in itertools.chain(_shorter(bucket, feeds, lengths), _of_fewer(bucket, feeds)):
        if time.monotonic() > until:
            return
        bucket.run(fewer, None)


def _of_fewer(bucket: Bucket, feeds: Feeds) -> Iterator[Feeds]:
    for rows in range((bucket.batch or 1) - 1, 1, -1):
        yield {name: array[:rows] for name, array in feeds.items()}


def _shorter(bucket: Bucket, feeds: Feeds, lengths: Shortening | None) -> Iterator[Feeds]:
    """Where filling is left out: as many rows that are filled up behind fewer and fewer positions."""
    from tfopt_optimizer import shortening

    if bucket.positions and lengths is not None:
        for length in range(lengths.size, 0, -shortening.ROUND):
            yield shortening.whole(lengths, shortening.cut(lengths, feeds, length))


def _feeds_for(bucket: Bucket, samples: Sequence[Feeds], runner: SignatureRunner) -> Feeds | None:
    """Inputs of exactly the bucket's shapes, out of the samples; any sample where it takes any shapes."""
    from tfopt_optimizer import buckets

    if not samples:
        return None
    if bucket.batch is None:
        alike = (s for s in samples if not bucket.shapes or {n: a.shape for n, a in s.items()} == dict(bucket.shapes))
        return next(alike, None)
    fitting: Sequence[Mapping[str, Any]]
    if runner.shortened is not None:
        fitting = runner.shortened.feeds_for(samples, *bucket.inner)
    else:
        fitting = samples if runner.inner is None else runner.inner.feeds_for(samples, bucket.inner)
    rows = buckets.stack(fitting, MOST_ROWS)
    inner = {name: tuple(shape[1:]) for name, shape in bucket.shapes.items()}
    return rows.take(0, bucket.batch) if rows is not None and rows.inner() == inner else None


def _named(bucket: Bucket) -> str:
    rows = "any" if bucket.batch is None else bucket.batch
    return " x ".join(map(str, (bucket.engine, rows, *bucket.inner)))
