"""OpenTelemetry traces of requests: --otlp_traces_endpoint. Without the flag nothing of this is imported.

    tracing = Tracing.open("http://collector:4318/v1/traces", ratio=1.0)
    note = tracing.begin(traceparent, tracestate)      by a face, when a request is there
    with note: ...                                     what runs inside finds it (`current`)
    tracing.end(note, "Predict m", {...}, error="")    writes the spans

A request is one server span, child of the client's (W3C Trace Context), with a span for each step: decode, queue, pad,
run, split, encode. Steps are timed anyway; here their times are only noted, and made into spans when the request is
answered. The SDK sends them from a thread of its own, and drops what it cannot send.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from tfopt_server.instruments import Histogram
from tfopt_server.metrics import STEPS, Steps
from tfopt_server.tasks import Result, Timings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

    from tfopt_server.registry import Handle
    from tfopt_server.rows import Feeds

SERVICE = "tfopt"
FLUSH_S = 3.0  # at the end, for what was not sent yet
_NS = 1_000_000_000
Start = Callable[..., Result | Future[Result]]


class TracingError(Exception):
    """Traces were asked for and cannot be made; the text is for the operator."""


class Note:
    """What is noted of one request until it is answered; a context manager for what belongs to it.

    `steps`: (name, begin, end, rows of the run or 0), times in ns since the epoch. Lists are only appended to, by
    whichever thread does the step.
    """

    __slots__ = ("_token", "attributes", "began", "parent", "steps")

    def __init__(self, parent: Context | None) -> None:
        self.parent = parent
        self.began = time.time_ns()
        self.steps: list[tuple[str, int, int, int]] = []
        self.attributes: dict[str, Any] = {}
        self._token: contextvars.Token[Note | None] | None = None

    def __enter__(self) -> Note:
        self._token = current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        current.reset(self._token)

    def timed(self, step: str, seconds: float) -> None:
        """A step that ends now."""
        end = time.time_ns()
        self.steps.append((step, end - int(seconds * _NS), end, 0))

    def ran(self, arrived: int, timings: Timings) -> None:
        """The executor's steps, one after the other from when the request came to it."""
        at = arrived
        parts = (timings.queue_s, timings.pad_s, timings.run_s, timings.split_s)
        for step, seconds in zip(("queue", "pad", "run", "split"), parts, strict=True):
            end = at + int(seconds * _NS)
            if seconds > 0.0 or step == "run":
                self.steps.append((step, at, end, timings.batch if step == "run" else 0))
            at = end


current: contextvars.ContextVar[Note | None] = contextvars.ContextVar("tfopt_request", default=None)


class _Noting:
    """A histogram of one step that also tells the request in hand."""

    __slots__ = ("_histogram", "_step")

    def __init__(self, histogram: Histogram, step: str) -> None:
        self._histogram, self._step = histogram, step

    def observe(self, value: float) -> None:
        self._histogram.observe(value)
        note = current.get()
        if note is not None:
            note.timed(self._step, value)


class Tracing:
    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("tfopt_server")
        self._propagator = TraceContextTextMapPropagator()
        self._noting: dict[int, Steps] = {}

    @classmethod
    def open(cls, endpoint: str, ratio: float) -> Tracing:
        """`ratio` of the traces that no client decided about are kept. TracingError without the packages."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        except ImportError as error:
            raise TracingError(
                f"--otlp_traces_endpoint needs OpenTelemetry, which is not installed ({error}): pip install "
                "'tfopt[tracing]'"
            ) from error
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, where they are set, win: Resource.create reads them.
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)), resource=_resource(Resource))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        return cls(provider)

    def begin(self, traceparent: bytes, tracestate: bytes) -> Note:
        """A request arrived, with these headers, b"" without them. What is no W3C traceparent begins a new trace."""
        if not traceparent:
            return Note(None)
        carrier = {"traceparent": traceparent.decode("latin-1"), "tracestate": tracestate.decode("latin-1")}
        return Note(self._propagator.extract(carrier))

    def end(self, note: Note, name: str, attributes: Mapping[str, Any], error: str = "") -> None:
        """A request is answered. `error`: its canonical code, "" for OK."""
        from opentelemetry import trace
        from opentelemetry.trace import SpanKind, Status, StatusCode

        found = {**note.attributes, **attributes}
        root = self._tracer.start_span(name, note.parent, kind=SpanKind.SERVER, attributes=found, start_time=note.began)
        if root.is_recording():
            inside = trace.set_span_in_context(root, note.parent)
            for step, begin, end, batch in tuple(note.steps):
                about = {"tfopt.batch": batch} if batch else None
                self._tracer.start_span(step, inside, attributes=about, start_time=begin).end(end)
            if error:
                root.set_status(Status(StatusCode.ERROR, error))
        root.end()

    def around(self, inner: Start) -> Start:
        """`inner`, with the executor's steps noted for the request in hand."""

        def start(  # noqa: PLR0917 - as Dataplane.start
            handle: Handle, signature: str, feeds: Feeds, outputs: Sequence[str] | None = None,
            deadline: float | None = None, face: str = "REST", *, api: str = "Predict",
        ) -> Result | Future[Result]:  # fmt: skip
            note = current.get()
            if note is None or api == "Explain":  # thousands of runs: the request's own span must do
                return inner(handle, signature, feeds, outputs, deadline, face, api=api)
            note.attributes |= {
                "tfopt.model": handle.name, "tfopt.version": handle.version, "tfopt.signature": signature,
            }  # fmt: skip
            arrived = time.time_ns()
            result = inner(handle, signature, feeds, outputs, deadline, face, api=api)
            if isinstance(result, Future):
                result.add_done_callback(lambda done: _ran(note, arrived, done))
            else:
                note.ran(arrived, result.timings)
            return result

        return start

    def steps(self, found: Steps) -> Steps:
        """The same histograms, which now also note."""
        noting = self._noting.get(id(found))  # a signature's Steps live as long as the process
        if noting is None:
            noting = Steps()
            for step in STEPS:
                setattr(noting, step, _Noting(getattr(found, step), step))
            noting = self._noting.setdefault(id(found), noting)
        return noting

    def close(self) -> None:
        """Sends what is left, for FLUSH_S at most: a collector that is away must not hold up the end."""
        thread = threading.Thread(target=self._provider.shutdown, name="tfopt-traces", daemon=True)
        thread.start()
        thread.join(FLUSH_S)


def _ran(note: Note, arrived: int, done: Future[Result]) -> None:
    if not done.cancelled() and done.exception() is None:
        note.ran(arrived, done.result().timings)


def _resource(resource: Any) -> Any:
    from importlib import metadata

    try:
        version = metadata.version("tfopt")
    except metadata.PackageNotFoundError:
        version = "0"
    named = resource.create({"service.version": version})
    unnamed = str(named.attributes.get("service.name", "")).startswith("unknown_service")
    return named.merge(resource({"service.name": SERVICE})) if unnamed else named
