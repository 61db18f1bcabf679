"""One version from its folder to a warmed servable: records -> plan -> open -> warm. Called by the loader's thread.

What fails the load (LoadError) is what fails it in TensorFlow Serving: a SavedModel that cannot be read, a bad warmup
file, a warmup request that the model refuses, bad batching parameters. What only costs speed does not: a model whose
plan cannot be made is served by plain TensorFlow, and the log, `Loaded.why` and a metric say so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt_optimizer.device import ON_CPU, Device

from tfopt_server import batching_parameters, converted, samples, warming
from tfopt_server.awaiting import Awaited
from tfopt_server.batching_parameters import BatchingParameters, BatchingParametersError
from tfopt_server.errors import Code
from tfopt_server.lanes import Lane
from tfopt_server.metrics import Metrics
from tfopt_server.registry import Loaded
from tfopt_server.storage import plans
from tfopt_server.uris import Uri
from tfopt_server.warming import WarmingFailed

if TYPE_CHECKING:
    from tfopt_optimizer.flags import OptimizerFlags
    from tfopt_optimizer.optimize import OptimizeJob
    from tfopt_optimizer.plan import Plan
    from tfopt_optimizer.servable import Servable

log = logging.getLogger(__name__)

Say = Callable[[str], None]
LOUD = "WARNING: "  # before a line of the optimizer that the operator must not miss
PROVISIONAL = "plain TensorFlow serves while a plan is made in the background"

# Set on a thread while it loads a version: what compiles there makes no request wait.
_loading = threading.local()


class LoadError(Exception):
    """A version that cannot serve, with the code and the text that its status shows. `lasting`: another attempt in this
    process can only end the same way."""

    def __init__(self, code: Code, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.lasting = lasting


@dataclass(frozen=True)
class LoadOptions:
    """How every version is loaded. `parameters` is the batching that --enable_batching asked for, None without it.

    `background`: a version without a plan is served by plain TensorFlow and is `Loaded.provisional`.
    """

    flags: OptimizerFlags
    plan_cache_dir: Path
    tags: tuple[str, ...] = ("serve",)
    optimize_timeout_s: float = 3600.0
    warmup: bool = True
    warmup_iterations: int = 1
    parameters: BatchingParameters | None = None
    per_model_parameters: bool = False
    background: bool = False
    plan_bucket: Uri | None = None
    device: Device = ON_CPU


@dataclass(frozen=True)
class Source:
    """The version to load: a folder with a SavedModel."""

    model: str
    version: int
    folder: Path


Optimize = Callable[["OptimizeJob", Path, Say, float], "tuple[Plan, Path]"]


def prepare(source: Source, options: LoadOptions, metrics: Metrics, optimize: Optimize | None = None) -> Loaded:
    """Loads and warms one version. LoadError says why it cannot serve. `optimize` stands in for the child in tests."""
    from tfopt_optimizer.lazy_tensorflow import TensorFlowMissing
    from tfopt_optimizer.saved_model import SavedModelError

    begin, status = time.monotonic(), "fail"
    _loading.now = True
    try:
        loaded = _Preparation(source, options, metrics, optimize or _optimized).run()
        status = "success"
    except (SavedModelError, BatchingParametersError, WarmingFailed, OSError) as error:
        raise LoadError(_code(error), str(error), isinstance(error, TensorFlowMissing)) from error
    finally:
        _loading.now = False
        metrics.load_attempts.labels(source.folder, status).inc()
    metrics.load_latency.labels(source.folder).inc((time.monotonic() - begin) * 1e6)
    return loaded


def count_compilations(metrics: Metrics) -> Callable[[], None]:
    """From now on every compilation that is not part of a load is counted and logged. Returns what ends it."""
    from tfopt_optimizer.engines import compilations

    def listen(what: str) -> None:
        if not getattr(_loading, "now", False):
            metrics.compiles_after_ready.labels().inc()
            log.error("%s compiles outside of a load: a request may be waiting for it", what)

    compilations.listeners.append(listen)

    def end() -> None:
        if listen in compilations.listeners:
            compilations.listeners.remove(listen)

    return end


def _code(error: Exception) -> Code:
    from tfopt_optimizer.lazy_tensorflow import TensorFlowMissing

    if isinstance(error, TensorFlowMissing):
        return Code.FAILED_PRECONDITION
    if isinstance(error, WarmingFailed):
        return error.code
    if isinstance(error, BatchingParametersError):
        return Code.INVALID_ARGUMENT
    text = str(error)
    if "is deprecated and removed" in text:
        return Code.UNIMPLEMENTED
    missing = isinstance(error, FileNotFoundError) or "does not appear to contain a SavedModel" in text
    return Code.NOT_FOUND if missing or "Could not find meta graph" in text else Code.UNKNOWN


class _Preparation:
    """The steps, with what they share."""

    def __init__(self, source: Source, options: LoadOptions, metrics: Metrics, optimize: Optimize) -> None:
        self._source, self._options, self._metrics, self._optimize = source, options, metrics, optimize
        self._extra = {"model": source.model, "version": source.version}
        self._provisional = False
        self._awaited: Awaited | None = None
        self._exhausted: list[str] = []

    def run(self) -> Loaded:
        from tfopt_optimizer import saved_model
        from tfopt_optimizer.servable import Servable

        folder, options = self._source.folder, self._options
        signatures = saved_model.read_signatures(folder, options.tags)
        parameters = parameters_for(folder, options)
        records = warming.read(folder, self._metrics) if options.warmup else ()
        material = samples.gather(signatures, records)
        as_it_is = options.flags.disable_optimizer
        model = converted.of(folder, options.plan_cache_dir, self._say, as_it_is=as_it_is)
        plan, plan_dir, why = self._plan(model, material, parameters)
        flags = options.flags
        servable = Servable.open(
            model.folder,
            plan_dir,
            plan,
            options.tags,
            intra_op_threads=flags.intra_op_threads,
            inter_op_threads=flags.inter_op_threads,
            device=options.device,
        )
        for key, rows in servable.dropped:
            self._metrics.buckets_dropped.labels(self._source.model, key, str(rows or "any")).inc()
        try:
            self._warm(servable, material)
            warming.replay(servable, records, options.warmup_iterations, folder, self._metrics)
            lanes = {
                key: Lane(self._source.model, runner, self._metrics, parameters=parameters or model.batching.get(key))
                for key, runner in servable.signatures.items()
            }
        except BaseException:
            servable.close()
            raise
        for key, lane in lanes.items():
            self._tell_about_batching(key, lane, parameters or model.batching.get(key))
        self._measure(plan)
        failed = [why] if plan is None and not (options.flags.disable_optimizer or self._provisional) else []
        warning = "; ".join([*failed, *servable.notes, *self._exhausted])
        definitions = saved_model.signature_defs(folder, options.tags)
        return Loaded(
            servable, lanes, plan, why, definitions, parameters, warning, self._provisional, model.report, self._awaited
        )

    def _warm(self, servable: Servable, material: samples.Material) -> None:
        """Runs every bucket once, unless that would leave traces: a model that writes state must serve its first
        request from the state that it was saved with, so only its own warmup records may run before."""
        from tfopt_optimizer import saved_model

        states = saved_model.states(self._source.folder, self._options.tags)
        writers = [key for key, state in states.items() if state.writes and saved_model.is_callable(key)]
        if writers:
            self._say(f"not warmed with samples: signature {writers[0]} writes state")
            return
        warming.every_bucket(servable, material, self._say, self._dropped)

    def _plan(
        self, model: converted.Model, material: samples.Material, parameters: BatchingParameters | None
    ) -> tuple[Plan | None, Path | None, str]:
        """The plan, its folder and where it came from; (None, None, why) when the model runs as it is."""
        from tfopt_optimizer.errors import OptimizeError
        from tfopt_optimizer.optimize import OptimizeJob

        options, flags = self._options, self._options.flags
        if flags.disable_optimizer:
            return None, None, "the optimizer is switched off"
        for note in material.notes:
            self._say(f"no samples: {note}")
        flags = with_sizes(flags, parameters, model)
        cache = options.plan_cache_dir
        job = OptimizeJob(model.folder, cache, options.tags, flags, material.samples, material.source, material.made_up)
        try:
            return self._found_or_made(job, cache)
        except (OptimizeError, OSError) as error:
            self._awaited = _awaited(job, cache)
            self._metrics.optimizer_failures.labels(self._source.model).inc()
            log.warning("no plan could be made, plain TensorFlow serves the model: %s", error, extra=self._extra)
            return None, None, f"no plan could be made: {error}"

    def _found_or_made(self, job: OptimizeJob, cache: Path) -> tuple[Plan | None, Path | None, str]:
        """From the model, the cache or the bucket, without starting a process, else by a child that makes it."""
        from tfopt_optimizer.cache import name_of

        pulled = False
        found = self._found(job, cache)
        if found is None and self._options.plan_bucket is not None:
            pulled = plans.pull(self._options.plan_bucket, name_of(job), cache, self._say)
            found = self._found(job, cache) if pulled else None
        if found is not None:
            for line in found[0].log:
                self._say(line)
            self._say(f"plan {found[1].name}: {found[2]}")
            return found
        if self._options.background:
            self._provisional = True
            return None, None, PROVISIONAL
        plan, plan_dir = self._optimize(job, cache, self._say, self._options.optimize_timeout_s)
        self._metrics.optimize_seconds.labels(self._source.model, self._source.version).set(plan.optimize_s)
        if self._options.plan_bucket is not None:
            plans.push(self._options.plan_bucket, plan_dir, self._say, anew=pulled)
        return plan, plan_dir, f"made in {plan.optimize_s:.1f} s"

    def _found(self, job: OptimizeJob, cache: Path) -> tuple[Plan, Path, str] | None:
        from tfopt_optimizer import carried, lazy_tensorflow
        from tfopt_optimizer.cache import cached
        from tfopt_optimizer.lazy_tensorflow import TensorFlowMissing

        found, passed_over = carried.find(job, cache)
        for line in passed_over:
            self._say(line)
        if found := found or cached(job, cache):
            return found
        if not lazy_tensorflow.installed():
            reasons = "; ".join(passed_over) or f"there is none in the model (tfopt optimize --in_place) or in {cache}"
            raise TensorFlowMissing(
                f"no plan for {job.model_dir} can be used, and TensorFlow is not installed to make one or to serve "
                f"without: {reasons}"
            )
        return None

    def _dropped(self, signature: str, bucket: str, why: str) -> None:
        line = f"{signature} x {bucket} is dropped, the device has no memory for it: {why.splitlines()[0]}"
        self._exhausted.append(line)
        self._metrics.buckets_dropped.labels(self._source.model, signature, bucket).inc()
        log.error("%s", line, extra=self._extra)

    def _say(self, line: str) -> None:
        loud = line.startswith(LOUD)
        log.log(logging.WARNING if loud else logging.INFO, "%s", line.removeprefix(LOUD), extra=self._extra)

    def _tell_about_batching(self, key: str, lane: Lane, parameters: BatchingParameters | None) -> None:
        if parameters is not None and not lane.rule.merge:
            reason = "its rows were not proven independent"
            self._say(f"batching was asked for, but requests for signature {key} are not merged: {reason}")

    def _measure(self, plan: Plan | None) -> None:
        """Puts the plan's decisions on the metrics page."""
        if plan is None:
            return
        who = (self._source.model, self._source.version)
        dropped: dict[str, int] = {}
        for signature in plan.signatures:
            for bucket in signature.buckets:
                size = "any" if bucket.batch is None else "x".join(map(str, (bucket.batch, *bucket.inner)))
                key = signature.signature.key
                self._metrics.plan_info.labels(*who, key, size, bucket.engine, bucket.variant).set(1)
                for candidate in bucket.candidates:
                    reason = dropped_for(candidate.status, candidate.reason)
                    if reason:
                        dropped[reason] = dropped.get(reason, 0) + 1
        for reason, count in dropped.items():
            self._metrics.candidates_dropped.labels(*who, reason).set(count)


def _awaited(job: OptimizeJob, cache: Path) -> Awaited | None:
    from tfopt_optimizer.cache import name_of

    with contextlib.suppress(OSError):  # the model itself cannot be read
        return Awaited(cache / name_of(job)).now()
    return None


def with_sizes(flags: OptimizerFlags, parameters: BatchingParameters | None, model: converted.Model) -> OptimizerFlags:
    """The flags with the buckets of the batching that counts, where the operator named none."""
    if flags.allowed_batch_sizes:
        return flags
    sizes = parameters.allowed_batch_sizes if parameters is not None else model.sizes
    return dataclasses.replace(flags, allowed_batch_sizes=sizes)


def dropped_for(status: str, reason: str) -> str:
    """A candidate's reason as one of few words, for a metric's label; "" for the one that was chosen."""
    if status != "rejected":
        return "" if status == "chosen" else status
    words = {"no answer within": "timeout", "died": "crash", "is above": "wrong", "best class": "wrong", "NaN": "wrong"}
    words |= {"other rows change": "wrong", "not finite": "wrong", "shape": "wrong"}
    return next((word for text, word in words.items() if text in reason), "unsupported")


def parameters_for(folder: Path, options: LoadOptions) -> BatchingParameters | None:
    """A version's batching parameters: the operator's flags, else the file that Vertex AI users put beside a model.

    With --enable_per_model_batching_parameters a version without its own file is not batched.
    """
    if options.per_model_parameters:
        own = folder / batching_parameters.PER_MODEL_FILE
        return batching_parameters.read(own) if own.is_file() else None
    if options.parameters is not None:
        return options.parameters
    sidecar = folder / batching_parameters.VERTEX_FILE
    return batching_parameters.read(sidecar) if sidecar.is_file() else None


def _optimized(job: OptimizeJob, cache: Path, say: Say, timeout_s: float) -> tuple[Plan, Path]:
    from tfopt_optimizer.child import optimize_cached_in_child

    return optimize_cached_in_child(job, cache, say, timeout_s)
