"""The joint between the faces and the models: resolve a version, run a signature, say how things stand.

    with plane.resolve(ModelSpec("m")) as handle:
        answer = plane.start(handle, "serving_default", {"x": rows})

`start` gives a Result when the request ran on the calling thread, else a future of one. Everything may be called from
any thread. Refusals are ServingErrors with TensorFlow Serving's codes and texts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tfopt_server.errors import Code, ServingError
from tfopt_server.executor import Executor
from tfopt_server.loading import Loader
from tfopt_server.metrics import Metrics, Steps
from tfopt_server.registry import Handle, Registry, VersionStatus
from tfopt_server.rows import Feeds
from tfopt_server.tasks import Result

if TYPE_CHECKING:
    from tfopt_optimizer.plan import Plan, SignatureInfo
    from tfopt_optimizer.tpu.report import Report

    from tfopt_server.tracing import Tracing

DEFAULT_SIGNATURE = "serving_default"
# A load under way is not waited for at the end: nobody needs it any more.
STOP_LOADING_S = 1.0


@dataclass(frozen=True)
class ModelSpec:
    """Which version of which model a request wants: the latest, or that of a number or a label."""

    name: str
    version: int | None = None
    label: str | None = None


class Optimized(NamedTuple):
    """A version and its plan; `plan` None: it runs as it is, `why` says why, or where the plan came from. `converted`:
    how it became a model for Cloud TPU, if tfopt did that. `loading`: it does not serve yet."""

    name: str
    number: int
    why: str
    plan: Plan | None
    converted: Report | None
    loading: bool = False


Start = Callable[..., Result | Future[Result]]


class Reconfigures(Protocol):
    """Who changes what is served, in every worker; reload_calls.py says how."""

    def begin(self, config: Any) -> Future[None]: ...

    def load(self, name: str, base_path: str = "") -> Future[None]: ...

    def unload(self, name: str) -> Future[None]: ...


class Dataplane:
    """`loader` None: somebody else fills the registry (tests). `changes` None: its models are fixed."""

    def __init__(
        self, registry: Registry, executor: Executor, metrics: Metrics, loader: Loader | None = None,
        changes: Reconfigures | None = None,
    ) -> None:  # fmt: skip
        self._registry, self._executor, self._metrics, self._loader = registry, executor, metrics, loader
        self._changes = changes
        self._draining = False

    live = True
    reads_inputs = False  # `start` takes a time that grows with the inputs' bytes: long ones belong on a thread
    tracing: Tracing | None = None  # where the faces begin and end traces

    def resolve(self, spec: ModelSpec) -> Handle:
        """An AVAILABLE version that stays loaded until the handle is released (a context manager).

        NOT_FOUND `Servable not found for request: Latest(m)`; INVALID_ARGUMENT for an unknown label.
        """
        return self._registry.resolve(spec.name, spec.version, spec.label)

    def signature(self, handle: Handle, key: str) -> SignatureInfo | None:
        """The signature, "" for the default one; None when the model has none of that name."""
        lane = handle.lanes.get(key or DEFAULT_SIGNATURE)
        return None if lane is None else lane.info

    def metadata(self, handle: Handle) -> Mapping[str, Any]:
        """The SignatureDef protos by key, as the SavedModel holds them."""
        return handle.loaded.signature_defs

    def start(  # noqa: PLR0917 - the joint that both faces call, by name or in this order
        self,
        handle: Handle,
        signature: str,
        feeds: Feeds,
        outputs: Sequence[str] | None = None,
        deadline: float | None = None,
        face: str = "REST",
        *,
        api: str = "Predict",
    ) -> Result | Future[Result]:
        """Runs one request.

        `feeds`: numpy arrays by input name, strings as object arrays of bytes; `outputs` None: all of them; `deadline`
        on time.monotonic's clock; `face` "REST" or "GRPC", which makes no difference so far; `api` the method in
        TensorFlow Serving's runtime_latency. The handle must be held until the answer is there. KeyError when there is
        no such signature (ask `signature` first).
        """
        lane = handle.lanes[signature or DEFAULT_SIGNATURE]
        return self._executor.start(lane, feeds, outputs, deadline=deadline, api=api)

    def batch_rows(self, handle: Handle, signature: str) -> int:
        """The rows of its largest batch, where a signature's rows are proven to depend on nothing but themselves; 0
        where a request means something only as a whole."""
        runner = handle.lanes[signature or DEFAULT_SIGNATURE].runner
        return runner.buckets[-1] if runner.row_independent and runner.buckets else 0

    def steps(self, handle: Handle, signature: str) -> Steps:
        """Where the faces time their own steps, decode and encode, in seconds."""
        return self._metrics.steps(handle.name, signature or DEFAULT_SIGNATURE)

    def status(self, name: str, version: int | None = None) -> tuple[VersionStatus, ...]:
        """Newest first. NOT_FOUND `Could not find any versions of model m` / `Could not find version 9 of model m`."""
        return self._registry.status(name, version)

    def reload(self, config: Any) -> Future[None]:
        """Serves the models of a ModelServerConfig message from now on, in every worker, instead of those before.

        The future is done when the models that are new have an AVAILABLE version everywhere; it fails with UNKNOWN and
        TensorFlow Serving's text when one never will. INVALID_ARGUMENT, FAILED_PRECONDITION: nothing changes.
        """
        return self._change().begin(config)

    def load(self, name: str, base_path: str = "") -> Future[None]:
        """Serves one model more, from `base_path`, or "" as it was configured once; a future as reload's. NOT_FOUND
        where it never was."""
        return self._change().load(name, base_path)

    def unload(self, name: str) -> Future[None]:
        """Serves one model less; a future as reload's. NOT_FOUND where it is not served."""
        return self._change().unload(name)

    def _change(self) -> Reconfigures:
        if self._changes is None:
            raise ServingError(Code.UNIMPLEMENTED, "This server's models are fixed.")
        return self._changes

    def names(self) -> tuple[str, ...]:
        """The models that are configured, or were."""
        return self._registry.known()

    def plans(self) -> dict[tuple[str, int], Plan | None]:
        """The plan of every AVAILABLE version; None: it runs as it is, see `why`."""
        return {(v.name, v.number): v.loaded.plan for v in self._registry.available() if v.loaded is not None}

    def why(self) -> dict[tuple[str, int], str]:
        """Where each plan came from, or why there is none."""
        return {(v.name, v.number): v.loaded.why for v in self._registry.available() if v.loaded is not None}

    def optimized(self) -> tuple[Optimized, ...]:
        """How every AVAILABLE version was optimized, each at one moment: plans are swapped in meanwhile. And which are
        still loading: asked for first, for meanwhile they become the others."""
        found = {(v.name, v.number): _on_its_way(v.name, v.status) for v in self._registry.loading()}
        there = ((v.name, v.number, v.loaded) for v in self._registry.available())
        found |= {(n, i): Optimized(n, i, x.why, x.plan, x.converted) for n, i, x in there if x is not None}
        return tuple(found[key] for key in sorted(found, key=lambda key: (key[0], -key[1])))

    def ready(self) -> bool:
        """Every configured model has an AVAILABLE version, and nobody said to stop."""
        caught_up = self._loader is None or self._loader.caught_up()
        return not self._draining and caught_up and self._registry.ready()

    def failure(self) -> str:
        """Why it will never be ready, "" while it may."""
        return "" if self._loader is None else self._loader.failure()

    def leave(self) -> None:
        """Not ready any more, although every request is still answered."""
        self._draining = True

    def drain(self, timeout_s: float) -> bool:
        """Stops loading, finishes every request and ends the runners; False when that took longer than `timeout_s`."""
        end = time.monotonic() + timeout_s
        self.leave()
        done = self._executor.finish(timeout_s)
        if self._loader is not None:
            self._loader.stop(min(STOP_LOADING_S, max(0.0, end - time.monotonic())))
        return done


def _on_its_way(name: str, status: VersionStatus) -> Optimized:
    failed = f" again, after: {status.message}" if status.message else ""
    return Optimized(name, status.version, f"it is being loaded{failed}", None, None, loading=True)


class Layered(Dataplane):
    """A dataplane whose `start` goes through layers, the first one outermost: what flags add to every request
    (recording, caching, tracing). A plain Dataplane pays nothing for them. `close` is called once all is drained."""

    def __init__(  # noqa: PLR0917 - as Dataplane
        self, registry: Registry, executor: Executor, metrics: Metrics, loader: Loader | None,
        layers: Sequence[Callable[[Start], Start]], close: Callable[[], None] = lambda: None,
        tracing: Tracing | None = None, changes: Reconfigures | None = None,
    ) -> None:  # fmt: skip
        super().__init__(registry, executor, metrics, loader, changes)
        self.tracing = tracing
        through: Start = super().start
        for layer in reversed(layers):
            through = layer(through)
        self._through, self._close = through, close

    def start(  # noqa: PLR0917 - as Dataplane.start
        self,
        handle: Handle,
        signature: str,
        feeds: Feeds,
        outputs: Sequence[str] | None = None,
        deadline: float | None = None,
        face: str = "REST",
        *,
        api: str = "Predict",
    ) -> Result | Future[Result]:
        return self._through(handle, signature or DEFAULT_SIGNATURE, feeds, outputs, deadline, face, api=api)

    def steps(self, handle: Handle, signature: str) -> Steps:
        found = super().steps(handle, signature)
        return found if self.tracing is None else self.tracing.steps(found)

    def drain(self, timeout_s: float) -> bool:
        done = super().drain(timeout_s)
        self._close()
        return done
