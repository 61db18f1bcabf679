"""Which metrics there are: TensorFlow Serving's, under its own names, and tfopt's. How they work: `instruments.py`.

`Metrics` is one object per process, passed to whoever counts. TensorFlow Serving's names, kinds and labels are those
that its own exporter prints (util/prometheus_exporter.cc and the modules that declare them). Where a process is one of
several workers, `share(run_dir)` lets a scrape of any of them answer for all (see `metrics_share.py`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tfopt_server.instruments import LATENCY_US, POWERS_OF_2, STEP_SECONDS, Book, Histogram
from tfopt_server.metrics_share import Share

STEPS = ("decode", "queue", "pad", "run", "split", "encode")
CONTENT_TYPE = "text/plain"


class Steps:
    """The histograms of one signature's steps, in seconds; kept by whoever handles its requests."""

    __slots__ = STEPS

    decode: Histogram
    queue: Histogram
    pad: Histogram
    run: Histogram
    split: Histogram
    encode: Histogram


class Metrics:
    """Every metric of the process as an attribute; `render()` is the Prometheus page."""

    def __init__(self, started: float | None = None) -> None:
        """`started`: when the process started, in seconds since the epoch; now when not given."""
        book = self.book = Book()
        self._share: Share | None = None
        self._steps: dict[tuple[str, str], Steps] = {}
        self._serving(book)
        self._tensorflow(book)
        self._own(book)
        self.process_start_time.labels().set(time.time() if started is None else started)
        self.resident_memory.labels().follow(resident_bytes)

    def _serving(self, book: Book) -> None:
        """TensorFlow Serving's; latencies in microseconds."""
        p = ":tensorflow:serving:"
        self.request_count = book.counter(p + "request_count", "model_name", "status")
        self.request_latency = book.histogram(
            p + "request_latency", "model_name", "API", "entrypoint", bounds=LATENCY_US
        )
        self.runtime_latency = book.histogram(p + "runtime_latency", "model_name", "API", "runtime", bounds=LATENCY_US)
        self.example_counts = book.histogram(p + "request_example_counts", "model", bounds=POWERS_OF_2)
        self.example_count_total = book.counter(p + "request_example_count_total", "model")
        self.warmup_latency = book.histogram(p + "model_warmup_latency", "model_path", "status", bounds=LATENCY_US)
        self.warmup_records = book.counter(p + "model_warmup_records_read", "model_path", "status")
        batching = p + "batching_session:"
        self.queuing_latency = book.histogram(batching + "queuing_latency", "thread_pool_name", bounds=LATENCY_US)
        self.wrapped_run_count = book.counter(batching + "wrapped_run_count")
        self.padding_size = book.histogram(batching + "padding_size", "execution_batch_size", bounds=POWERS_OF_2)
        self.input_batch_size = book.histogram(batching + "input_batch_size", bounds=POWERS_OF_2)
        self.processed_batch_size = book.histogram(batching + "processed_batch_size", bounds=POWERS_OF_2)
        self.mlmd_map = book.gauge(p + "mlmd_map", "model_name", "version", join="max")
        self.request_log_count = book.counter(p + "request_log_count", "model_name", "status_code")

    def _tensorflow(self, book: Book) -> None:
        """The core metrics that dashboards of TensorFlow Serving ask for; one graph run is one call of an engine."""
        load = ":tensorflow:cc:saved_model:"
        self.load_latency = book.counter(load + "load_latency", "model_path")
        self.load_attempts = book.counter(load + "load_attempt_count", "model_path", "status")
        core = ":tensorflow:core:"
        book.derived(core + "graph_runs", lambda: float(sum(s.run.count for s in self._all())))
        book.derived(core + "graph_run_time_usecs", lambda: 1e6 * sum(s.run.sum for s in self._all()))

    def _own(self, book: Book) -> None:
        who = ("model", "signature")
        self.requests = book.counter("tfopt_requests_total", *who, "engine", "bucket")
        self.rows = book.counter("tfopt_rows_total", *who, "engine", "bucket")
        self.padding_rows = book.counter("tfopt_padding_rows_total", *who, "bucket")
        self.inner_padded = book.counter("tfopt_inner_padded_requests_total", *who)
        self.shortened_rows = book.counter("tfopt_shortened_rows_total", *who, "length")
        self.step_seconds = book.histogram("tfopt_step_seconds", *who, "step", bounds=STEP_SECONDS)
        self.batch_requests = book.histogram("tfopt_batch_requests", *who, bounds=POWERS_OF_2)
        self.merge_retries = book.counter("tfopt_merge_retries_total", *who)
        self.buckets_dropped = book.counter("tfopt_buckets_dropped_total", *who, "bucket")
        self.queue_depth = book.gauge("tfopt_queue_depth")
        self.busy_runners = book.gauge("tfopt_busy_runners")
        self.fallbacks = book.counter("tfopt_fallbacks_total", *who, "reason")
        self.compiles_after_ready = book.counter("tfopt_compiles_after_ready_total")
        self.compiles_after_ready.labels()  # on the page from the start: that it stays 0 is the point
        self.plan_info = book.gauge(
            "tfopt_plan_info", "model", "version", "signature", "bucket", "engine", "variant", join="max"
        )
        self.candidates_dropped = book.gauge("tfopt_candidates_dropped", "model", "version", "reason", join="max")
        self.optimizer_failures = book.counter("tfopt_optimizer_failures_total", "model")
        self.optimize_seconds = book.gauge("tfopt_optimize_seconds", "model", "version", join="max")
        self.optimizing = book.gauge("tfopt_optimizing_in_background", "model", "version")
        self.device_info = book.gauge("tfopt_device_info", "device", "kind", join="max")
        self.available = book.gauge("tfopt_version_available", "model", "version")
        self.cached = book.counter("tfopt_response_cache_total", "model", "result")
        self.cached_bytes = book.gauge("tfopt_response_cache_bytes", "model")
        self.process_start_time = book.gauge("process_start_time_seconds", join="min")
        self.resident_memory = book.gauge("process_resident_memory_bytes")

    def steps(self, model: str, signature: str) -> Steps:
        """The step histograms of a signature; the same object every time."""
        found = self._steps.get((model, signature))
        if found is None:
            found = Steps()
            for step in STEPS:
                setattr(found, step, self.step_seconds.labels(model, signature, step))
            found = self._steps.setdefault((model, signature), found)
        return found

    def _all(self) -> list[Steps]:
        return list(self._steps.values())

    def counted(self, name: str) -> float:
        """What a counter of TensorFlow Serving's name (`/tensorflow/serving/request_count`) says, all its labels
        together, in this process; 0 where there is none."""
        return self.book.counted(name.replace("/", ":"))

    def share(self, run_dir: Path) -> None:
        """Joins the workers that share `run_dir`: a scrape of any of them then sums them all."""
        self._share = Share(run_dir, self.book.snapshot)

    def render(self) -> bytes:
        """The Prometheus page. With several workers it asks the others (milliseconds): call it off the event loop."""
        own = self.book.snapshot()
        return self.book.page([own] if self._share is None else [own, *self._share.others()])

    def close(self) -> None:
        """Leaves what this worker counted to the others, so that no counter falls when a worker ends."""
        if self._share is not None:
            self._share.close(self.book.snapshot(("counter", "histogram")))
            self._share = None


def resident_bytes() -> float:
    """Resident memory of this process; 0 where there is no /proc."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0.0
    return float(fields[1]) * os.sysconf("SC_PAGE_SIZE")
