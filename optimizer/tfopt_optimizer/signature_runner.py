"""One signature, ready to run: which bucket takes a request, what is padded, and when plain TensorFlow answers."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer import outside, shortening
from tfopt_optimizer.engines.base import Arrays, Feeds
from tfopt_optimizer.errors import EXHAUSTED, Declined, EngineError, OutOfMemory, first_line
from tfopt_optimizer.fitting import InnerBuckets
from tfopt_optimizer.pieces import pieces
from tfopt_optimizer.plan import Shortening, SignaturePlan
from tfopt_optimizer.shortened import Shortened

Run = Callable[[Feeds, Sequence[str] | None], Arrays]
log = logging.getLogger(__name__)
REMEMBERED = 4096  # numbers of rows whose buckets are looked up, not found again


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A runner for up to `batch` rows (None: not a number of rows but exact shapes, or any).

    `engine` is a label for logs and metrics. A `static` bucket takes exactly its shapes, any other any number of rows.
    `cost_us` is the measured median of one call, 0.0 when it was not measured. `run` raises Declined for values that
    the engine cannot take: plain TensorFlow must then answer, and whoever calls decides on which thread.
    """

    batch: int | None
    engine: str
    static: bool
    cost_us: float
    run: Run
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    inner: tuple[int, ...] = ()  # of BucketPlan
    positions: int = 0


@dataclasses.dataclass(frozen=True)
class Route:
    """Where a request goes.

    `rows` with a bucket by `bucket_for(rows)`; requests of one `group` may share a batch. `bucket` is set instead when
    rows are not independent: it takes the request exactly as it is. `reference`: outside the plan, for `reason`.
    """

    rows: int | None
    group: Hashable | None
    reference: bool
    reason: str = ""
    bucket: Bucket | None = None


class SignatureRunner:
    """One signature. Thread-safe. `reference` None: TensorFlow is not installed.

    A bucket for which the device has no memory is dropped; the others take its rows.
    """

    def __init__(self, plan: SignaturePlan, buckets: Sequence[Bucket], reference: Run | None) -> None:
        """`buckets` have one inner shape; `inner`, where it is set, knows this runner and those of others."""
        self.info = plan.signature
        self.inner: InnerBuckets[SignatureRunner] | None = None
        self.shortened: Shortened[SignatureRunner] | None = None
        self.row_independent = plan.row_independent
        self.merge = plan.merge
        self.has_reference = reference is not None
        self._reference = reference
        self._lock = threading.Lock()
        self._by_rows: tuple[Bucket, ...] = ()
        self.buckets: tuple[int, ...] = ()
        by_rows = sorted((b for b in buckets if b.batch is not None), key=lambda b: b.batch or 0)
        self._set(by_rows)
        self._exact = {tuple(sorted(b.shapes.items())): b for b in buckets if b.batch is None and b.shapes}
        self._any = next((b for b in buckets if b.batch is None and not b.shapes), None)
        self._group = ("rows", self.info.key)
        inner = {n: s[1:] for n, s in by_rows[0].shapes.items()} if by_rows else {}
        self._checks = [(t.name, dtypes.to_numpy(t.dtype), inner.get(t.name, ())) for t in self.info.inputs if _fed(t)]

    def _set(self, by_rows: Sequence[Bucket]) -> None:
        self._by_rows = tuple(by_rows)
        self._pieces = functools.lru_cache(REMEMBERED)(functools.partial(pieces, buckets=self._by_rows))
        self.buckets = tuple(b.batch for b in self._by_rows if b.batch is not None)

    def drop(self, bucket: Bucket) -> bool:
        """Takes a bucket out for good; plain TensorFlow stands in for the last one. False: somebody did already."""
        plain = Bucket(bucket.batch, "tensorflow", False, 0.0, self._reference or _nobody, bucket.shapes, bucket.inner)
        with self._lock:
            if any(b is bucket for b in self._by_rows):
                self._set([b for b in self._by_rows if b is not bucket] or [plain])
                return True
            for shapes, exact in self._exact.items():
                if exact is bucket:
                    self._exact = {**self._exact, shapes: plain}
                    return True
        return self.shortened is not None and self.shortened.drop(bucket)

    def all_buckets(self) -> tuple[Bucket, ...]:
        """Every bucket there is, for warming up."""
        if self.shortened is not None:
            lengths = [self.shortened.runners[length] for length in sorted(self.shortened.runners)]
            return tuple(bucket for runner in lengths for bucket in runner._by_rows)
        others = self.inner.runners.values() if self.inner else ()
        own = (*self._by_rows, *self._exact.values(), *((self._any,) if self._any else ()))
        return (*own, *(bucket for runner in others if runner is not self for bucket in runner._by_rows))

    def route(self, feeds: Feeds) -> Route:
        """Decides by names, dtypes and shapes alone."""
        if not self._by_rows:
            return self._route_exact(feeds)
        rows = -1
        for name, dtype, inner in self._checks:
            array = feeds.get(name)
            if array is None:
                return _outside(f"input {name!r} is missing")
            shape = array.shape
            if array.dtype != dtype or shape[1:] != inner or not shape:
                return _outside(f"input {name!r} is {array.dtype}{list(shape)}, the plan has {dtype}{['rows', *inner]}")
            if rows not in (-1, shape[0]):
                return _outside("the inputs differ in their number of rows")
            rows = shape[0]
        if rows < 1 or len(feeds) != len(self._checks):
            return _outside("no rows" if rows < 1 else "unknown inputs")
        return Route(rows, self._group, reference=False)

    def _route_exact(self, feeds: Feeds) -> Route:
        if self._exact:
            found = self._exact.get(tuple(sorted((n, a.shape) for n, a in feeds.items())))
            typed = all(n in feeds and feeds[n].dtype == dtype for n, dtype, _ in self._checks)
            if found is not None and typed:
                return Route(None, None, reference=False, bucket=found)
            return _outside("its shapes are none of the plan's, and its rows are not independent")
        return Route(None, None, reference=self._any is None, bucket=self._any)

    def bucket_for(self, rows: int) -> Bucket:
        """The smallest bucket that holds `rows`, or the largest: the caller then splits."""
        there = self._by_rows  # read once: another thread may drop one
        return there[min(bisect.bisect_left(self.buckets, rows), len(there) - 1)]

    def buckets_for(self, rows: int) -> tuple[Bucket, ...]:
        """The buckets that `rows` go through in turn (pieces.py): mostly one, the same as `bucket_for`'s. Rows that run
        at their own lengths are parted there."""
        return self._pieces(rows) if self.shortened is None else (self.bucket_for(rows),)

    def run_reference(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        """Plain TensorFlow, loaded on first need; any shapes. EngineError has TensorFlow's own code and text, and where
        it is not installed those of outside.py."""
        if self._reference is None:
            raise outside.refusal(self.info, feeds, self.route(feeds).reason)
        return self._reference(feeds, outputs)

    def run(
        self, feeds: Feeds, outputs: Sequence[str] | None = None, fell_back: Callable[[str], object] | None = None
    ) -> Arrays:
        """Routes, pads, runs, cuts and joins: what the server does in separate steps. `fell_back` is told why where
        plain TensorFlow answers."""
        fell_back = fell_back or _unheard
        route = self.route(feeds)
        if route.reference:
            if self.inner is not None and (fitted := self.inner.fit(feeds)) is not None:
                return fitted.cut(fitted.runner.run(fitted.feeds, outputs, fell_back))
            fell_back(route.reason)
            return self.run_reference(feeds, outputs)
        if route.bucket is None and len(buckets := self.buckets_for(route.rows or 0)) > 1:
            sizes = [bucket.batch or 0 for bucket in buckets]
            return self._run_cut(sizes, feeds, outputs, fell_back)
        bucket = route.bucket or self.bucket_for(route.rows or 0)
        try:
            return self._run_planned(bucket, route, feeds, outputs, fell_back)
        except Declined as error:
            fell_back(str(error))
            return self.run_reference(feeds, outputs)
        except OutOfMemory as error:
            self.drop(bucket)
            log.warning("%s x %s is dropped: %s", self.info.key, bucket.batch, first_line(error))
            return self.run(feeds, outputs, fell_back)  # ends: there is one bucket less

    def _run_planned(
        self,
        bucket: Bucket,
        route: Route,
        feeds: Feeds,
        outputs: Sequence[str] | None,
        fell_back: Callable[[str], object],
    ) -> Arrays:
        if route.rows is None or bucket.batch is None:
            return bucket.run(feeds, outputs)
        if not bucket.static or route.rows <= bucket.batch:
            return self.run_in_bucket(bucket, feeds, route.rows, outputs)
        return self._run_cut([bucket.batch] * -(-route.rows // bucket.batch), feeds, outputs, fell_back)

    def _run_cut(
        self, sizes: Sequence[int], feeds: Feeds, outputs: Sequence[str] | None, fell_back: Callable[[str], object]
    ) -> Arrays:
        """As many rows at a time, one part after another."""
        parts, start = [], 0
        for size in sizes:
            part = {name: array[start : start + size] for name, array in feeds.items()}
            found = self.run(part, outputs, fell_back)
            check(found, len(next(iter(part.values()))))
            parts.append(found)
            start += size
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def run_in_bucket(self, bucket: Bucket, feeds: Feeds, rows: int, outputs: Sequence[str] | None) -> Arrays:
        """For feeds that are of the plan, of no more rows than the bucket takes. Declined and OutOfMemory are the
        caller's to handle."""
        if not bucket.static or bucket.batch == rows:
            return bucket.run(feeds, outputs)
        assert bucket.batch is not None
        found = bucket.run(pad(feeds, rows, bucket.batch), outputs)
        return cut(found, rows, bucket.batch)


def _unheard(reason: str) -> None:
    """Where nobody asks why plain TensorFlow answers."""


def _nobody(feeds: Feeds, outputs: Sequence[str] | None) -> Arrays:
    raise EngineError(EXHAUSTED, "the device has no memory for any bucket, and TensorFlow is not installed")


def pad(feeds: Feeds, rows: int, batch: int) -> Arrays:
    """Fills up with copies of the first row: its values are known to be good, zeros may not be."""
    return {n: np.concatenate([a, np.broadcast_to(a[:1], (batch - rows, *a.shape[1:]))]) for n, a in feeds.items()}


def cut(outputs: Arrays, rows: int, batch: int) -> Arrays:
    """The first `rows` of every output. EngineError when an output does not have the batch's rows after all: nothing
    may be handed to a request that is perhaps another's."""
    check(outputs, batch)
    return {name: array[:rows] for name, array in outputs.items()}


def check(outputs: Feeds, batch: int) -> None:
    """EngineError unless every output has so many rows."""
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != batch:
            raise EngineError(
                "FAILED_PRECONDITION", f"output {name!r} has shape {list(array.shape)} for a batch of {batch} rows"
            )


def of_whole_rows(lengths: Shortening, reference: Run) -> Run:
    """Plain TensorFlow, which takes the signature's own length alone."""
    return lambda feeds, outputs: reference(shortening.whole(lengths, feeds), outputs)


def shortened_runner(
    plan: SignaturePlan,
    lengths: Shortening,
    levels: Mapping[tuple[int, ...], Sequence[Bucket]],
    reference: Run | None,
) -> SignatureRunner:
    """To those who ask it has the buckets of whole rows; each takes any number and runs them at their lengths.
    `reference` gets requests as they come: whoever sends another length is refused by it."""
    inside = of_whole_rows(lengths, reference) if reference is not None else None
    runners = {length: SignatureRunner(plan, found, inside) for (length,), found in levels.items()}
    shortened = Shortened(lengths, runners)
    whole = [dataclasses.replace(b, static=False, run=shortened.run, inner=()) for b in levels[(lengths.size,)]]
    runner = SignatureRunner(plan, whole, reference)
    runner.shortened = shortened
    return runner


def _fed(tensor: object) -> bool:
    return getattr(tensor, "dtype", "") not in ("resource", "variant")


def _outside(reason: str) -> Route:
    return Route(None, None, reference=True, reason=reason)
