"""One signature of one loaded version as the executor sees it: its runner, its batching rule and its metrics."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import re
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tfopt_optimizer import pieces

from tfopt_server import batching
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.instruments import Counter, Histogram
from tfopt_server.metrics import Metrics
from tfopt_server.rows import Arrays, Feeds

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo

log = logging.getLogger(__name__)

# What a thread hop costs a request, most of it under the interpreter lock. Measured on 2 busy cores with an event loop,
# 16 clients and an engine whose time does not depend on the batch: at 30 us a run staying on the loop answers 24 % more
# requests than hopping and merging, at 60 us about as many, at 120 us 40 % fewer; a lone client loses 60 to 100 us.
HOP_US = 60.0
# Shapes and reasons of requests outside the plan that are remembered per signature; clients may invent any number.
MOST_SHAPES = 100
MOST_REASONS = 20
SKIPPED_RUNS = 3
MOST_ROWS = 4096  # numbers of rows whose cost is remembered
_SHAPE = re.compile(r"\[[^\]]*\]")  # in a reason; a metric label must not hold what clients invent


class Route(Protocol):
    """Where a request goes, by its dtypes and shapes (tfopt_optimizer.signature_runner)."""

    @property
    def rows(self) -> int | None: ...
    @property
    def group(self) -> Hashable | None: ...
    @property
    def reference(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def bucket(self) -> Bucket | None: ...


class Outside(NamedTuple):
    """The route of a request that left the plan on its way."""

    reason: str
    rows: int | None = None
    group: Hashable | None = None
    reference: bool = True
    bucket: Bucket | None = None


class Bucket(Protocol):
    """What runs up to `batch` rows; `static`: exactly that many. `cost_us` 0.0: not measured."""

    @property
    def batch(self) -> int | None: ...
    @property
    def engine(self) -> str: ...
    @property
    def static(self) -> bool: ...
    @property
    def cost_us(self) -> float: ...
    @property
    def run(self) -> Callable[[Feeds, Sequence[str] | None], Arrays]: ...
    @property
    def inner(self) -> tuple[int, ...]: ...


class Fitted(Protocol):
    """A request as an inner bucket takes it (tfopt_optimizer.fitting)."""

    @property
    def runner(self) -> Runner: ...
    @property
    def feeds(self) -> Feeds: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...

    def cut(self, outputs: Arrays) -> Arrays: ...


class InnerBuckets(Protocol):
    @property
    def runners(self) -> Mapping[tuple[int, ...], Runner]: ...

    def fit(self, feeds: Feeds) -> Fitted | None: ...


class Shortened(Protocol):
    """Runs rows of a fixed length at shorter ones (tfopt_optimizer.shortened)."""

    ran: Callable[[int, int], object]
    lost: Callable[[Any, str], object]

    def left(self) -> str: ...


class Runner(Protocol):
    info: SignatureInfo
    row_independent: bool
    merge: bool
    buckets: tuple[int, ...]
    has_reference: bool

    @property
    def inner(self) -> InnerBuckets | None: ...

    @property
    def shortened(self) -> Shortened | None: ...

    def route(self, feeds: Feeds) -> Route: ...

    def bucket_for(self, rows: int) -> Bucket: ...

    def buckets_for(self, rows: int) -> tuple[Bucket, ...]: ...

    def run_reference(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays: ...

    def drop(self, bucket: Any) -> bool: ...


@dataclasses.dataclass(slots=True)
class Meter:
    """The counters of one bucket, looked up once, and what its runs cost where no plan measured it: microseconds and
    elements of all inputs, on average."""

    requests: Counter
    rows: Counter
    padding: Counter
    runs: int = 0
    mean_us: float = math.inf
    mean_size: float = 0.0

    def ran(self, seconds: float, size: int) -> None:
        """Keeps slowly moving means. The first runs load TensorFlow or trace: they say nothing about the next."""
        self.runs += 1
        if self.runs > SKIPPED_RUNS:
            keep = 0.0 if self.mean_us == math.inf else 0.9
            self.mean_us = seconds * 1e6 if keep == 0.0 else keep * self.mean_us + (1 - keep) * seconds * 1e6
            self.mean_size = keep * self.mean_size + (1 - keep) * size

    def expected_us(self, size: int) -> float:
        """What a run on inputs of `size` elements costs: in proportion to the mean, infinite while nothing is known."""
        return self.mean_us * max(1.0, size / max(1.0, self.mean_size))


@dataclasses.dataclass(frozen=True)
class Serving:
    """The metrics of TensorFlow Serving's batching session, for a lane that batches by its rule."""

    queuing: Histogram
    runs: Counter
    padding: Callable[[int], Histogram]
    input_sizes: Histogram
    processed_sizes: Histogram


class Lane:
    """What stays the same for all requests of a signature. `version` is only a name here; see registry.py."""

    def __init__(self, model: str, runner: Runner, metrics: Metrics, *, parameters: BatchingParameters | None) -> None:
        """`parameters`: TensorFlow Serving's batching rule where it was asked for."""
        self.model = model
        self.info = runner.info
        self.runner = runner
        self._parameters = parameters
        self.company = batching.Company()
        self._set_rules()
        self.steps = metrics.steps(model, runner.info.key)
        self._metrics = metrics
        self.batch_requests = metrics.batch_requests.labels(model, runner.info.key)
        self.retries = metrics.merge_retries.labels(model, runner.info.key)
        self.serving = _serving(metrics, parameters) if parameters is not None and self.rule.merge else None
        self._meters: dict[tuple[str, int | None], Meter] = {}
        self._runtimes: dict[str, Histogram] = {}
        self._shapes: set[Hashable] = set()
        self._users = 0
        self._lock = threading.Lock()
        self._reasons: set[str] = set()
        # Requests of other inner sizes than the first bucket's, a lane per inner bucket: they merge among themselves.
        self.inner = None if self.levels else runner.inner
        self._inner = {
            id(one): self if one is runner else Lane(model, one, metrics, parameters=parameters)
            for one in (self.inner.runners.values() if self.inner is not None else ())
        }
        if runner.shortened is not None:
            runner.shortened.ran, runner.shortened.lost = self._count_length, self.drop
        self._padded = metrics.inner_padded.labels(model, runner.info.key) if self.inner is not None else None
        if told := in_pieces(runner):
            log.info("signature %s of model %s: rows that run in several parts: %s", self.key, model, told)

    def _set_rules(self) -> None:
        """What follows from the runner's buckets."""
        runner, parameters = self.runner, self._parameters
        self.rule = rule_for(runner, parameters)
        self.levels = parameters is not None and parameters.pad_variable_length_inputs and self.rule.merge
        # For requests that nothing may join: whole when plain TensorFlow answers, else still cut to the buckets.
        self.single = dataclasses.replace(self.rule, merge=False)
        self.alone = dataclasses.replace(batching.ALONE, expired=self.rule.expired)
        self.gain_us = gain_of(runner) if self.rule.merge else 0.0
        self.short = {} if self.levels else short_buckets(runner, self.rule)

    def drop(self, bucket: Bucket, why: str) -> None:
        """Takes a bucket out of service: the device had no memory for it. Others take its rows from now on."""
        if not self.runner.drop(bucket):
            return
        self._set_rules()
        size, shortened = "any" if bucket.batch is None else str(bucket.batch), self.runner.shortened
        left = shortened.left() if shortened else ", ".join(map(str, self.runner.buckets)) or "plain TensorFlow"
        rows = " x ".join([f"{size} rows", *map(str, bucket.inner)])
        self._metrics.buckets_dropped.labels(self.model, self.key, size).inc()
        log.error(
            "signature %s of model %s: the bucket of %s is dropped, %s has no memory for it: %s; left: %s",
            self.key, self.model, rows, bucket.engine, why, left,
        )  # fmt: skip

    @property
    def key(self) -> str:
        return self.info.key

    @property
    def users(self) -> int:
        """Requests in the queues and runs under way: while there are any, the servable must not be closed.

        A handle alone does not tell: a request whose deadline passed is answered while its run goes on.
        """
        return self._users + sum(lane.users for lane in self._inner.values() if lane is not self)

    def fit(self, feeds: Feeds) -> tuple[Lane, Feeds, Callable[[Arrays], Arrays] | None]:
        """For a request outside the first inner bucket: the lane of the one that takes it, the request as it does, and
        what cuts its answer where it was padded. This lane and the request as it is where plain TensorFlow answers."""
        fitted = self.inner.fit(feeds) if self.inner is not None else None
        if fitted is None:
            return self, feeds, None
        if fitted.sizes and self._padded is not None:
            self._padded.inc()
        return self._inner[id(fitted.runner)], fitted.feeds, fitted.cut if fitted.sizes else None

    def _count_length(self, length: int, rows: int) -> None:
        self._metrics.shortened_rows.labels(self.model, self.key, str(length)).inc(rows)

    def enter(self) -> None:
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1

    def meter(self, engine: str, batch: int | None) -> Meter:
        """`batch` None: any number of rows, labelled "any"."""
        found = self._meters.get((engine, batch))
        if found is None:
            bucket = "any" if batch is None else str(batch)
            found = self._meters[engine, batch] = Meter(
                self._metrics.requests.labels(self.model, self.key, engine, bucket),
                self._metrics.rows.labels(self.model, self.key, engine, bucket),
                self._metrics.padding_rows.labels(self.model, self.key, bucket),
            )
        return found

    def runtime(self, api: str) -> Histogram:
        found = self._runtimes.get(api)
        if found is None:
            found = self._runtimes[api] = self._metrics.runtime_latency.labels(self.model, api, "TF1")
        return found

    def fell_back(self, reason: str, feeds: Feeds, detail: str = "") -> None:
        """Counts a request that the plan does not cover, and names it in the log once per shape."""
        label = _SHAPE.sub("[...]", reason)
        if label not in self._reasons and len(self._reasons) >= MOST_REASONS:
            label = "other"
        self._reasons.add(label)
        self._metrics.fallbacks.labels(self.model, self.key, label).inc()
        shapes = {name: (str(array.dtype), array.shape[1:]) for name, array in feeds.items()}
        seen = tuple(sorted(shapes.items()))
        if seen in self._shapes or len(self._shapes) >= MOST_SHAPES:
            return
        self._shapes.add(seen)
        log.warning(
            "a request for signature %s of model %s is outside the plan (%s) and %s: %s",
            self.key, self.model, f"{reason}: {detail}" if detail else reason, _answered(self.runner),
            _described(feeds),
        )  # fmt: skip

    def cost_us(self, buckets: Sequence[Bucket], count: int, feeds: Feeds) -> float:
        """What `count` rows on these buckets, in turn, cost: as the plan measured, else as runs before it did."""
        if len(buckets) > 1:
            return pieces.together_us(buckets)
        bucket = buckets[0]
        if bucket.cost_us == 0.0:
            return self.meter(bucket.engine, bucket.batch).expected_us(elements(feeds))
        if bucket.batch is None or count <= bucket.batch:
            return bucket.cost_us
        return bucket.cost_us * count / bucket.batch


def rule_for(runner: Runner, parameters: BatchingParameters | None) -> batching.Rule:
    """How requests of a signature are batched.

    Rows that depend on each other are never merged, whoever asks. TensorFlow Serving's parameters count where they were
    given; otherwise requests merge as they happen to wait together, if the plan measured that it pays.
    """
    if not runner.row_independent or not runner.buckets:
        return batching.ALONE
    largest = runner.buckets[-1]
    static = runner.bucket_for(largest).static
    if parameters is not None:
        return batching.serving(parameters, largest if static else None)
    return batching.opportunistic(largest, cut=static, merge=runner.merge, cost_us=cost_of(runner))


def cost_of(runner: Runner) -> Callable[[int], float]:
    """Microseconds that a number of rows takes, from the buckets' measured times; beyond the largest, in proportion."""
    buckets = tuple(runner.bucket_for(size) for size in runner.buckets)
    return functools.lru_cache(MOST_ROWS)(functools.partial(pieces.us, buckets=buckets))


def in_pieces(runner: Runner) -> str:
    """Examples of rows that go through several buckets: as many as each takes, and one more."""
    numbers = sorted({*runner.buckets, *(size + 1 for size in runner.buckets[:-1])})
    ways = {rows: runner.buckets_for(rows) for rows in numbers}
    parted = {rows: [bucket.batch or 0 for bucket in way] for rows, way in ways.items() if len(way) > 1}
    return ", ".join(f"{rows} as {pieces.told(sizes)}" for rows, sizes in parted.items())


def short_buckets(runner: Runner, rule: batching.Rule) -> dict[int | None, Bucket]:
    """The buckets, by rows, that run a request of exactly their size at once, whatever else is going on."""
    if rule.wait_s > 0.0 or rule.task_limit is not None:
        return {}
    buckets = {size: runner.bucket_for(size) for size in runner.buckets}
    return {size: bucket for size, bucket in buckets.items() if 0.0 < bucket.cost_us <= HOP_US}


def elements(feeds: Feeds) -> int:
    return sum(array.size for array in feeds.values())


def gain_of(runner: Runner) -> float:
    """Microseconds that a lone row can save at best by joining others."""
    costs = [runner.bucket_for(size).cost_us for size in runner.buckets]
    return costs[0] - min(cost / size for cost, size in zip(costs, runner.buckets, strict=True))


def _serving(metrics: Metrics, parameters: BatchingParameters) -> Serving:
    return Serving(
        queuing=metrics.queuing_latency.labels(parameters.thread_pool_name),
        runs=metrics.wrapped_run_count.labels(),
        padding=metrics.padding_size.labels,
        input_sizes=metrics.input_batch_size.labels(),
        processed_sizes=metrics.processed_batch_size.labels(),
    )


def _answered(runner: Runner) -> str:
    return "runs on plain TensorFlow" if runner.has_reference else "is refused, for TensorFlow is not installed"


def _described(feeds: Feeds) -> str:
    return (
        ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in sorted(feeds.items())) or "no inputs"
    )
