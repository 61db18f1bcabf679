"""Builds the dataplane that settings describe: registry, executor, loader, and who may change what is served."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfopt_optimizer.cpu import usable_cores
from tfopt_optimizer.device import ON_CPU, Device
from tfopt_optimizer.flags import OptimizerFlags

from tfopt_server import batching_parameters, checkup, devices, layers, model_config
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.config_board import ConfigBoard
from tfopt_server.dataplane import Dataplane, Layered
from tfopt_server.executor import Executor
from tfopt_server.loading import Loader, ModelConfig, Schedule
from tfopt_server.metrics import Metrics
from tfopt_server.model_config import Models
from tfopt_server.preparing import LoadOptions
from tfopt_server.registry import Loaded, Registry, Version
from tfopt_server.reload_calls import ReloadCalls
from tfopt_server.reloading import File, Reloader
from tfopt_server.settings import Settings
from tfopt_server.storage.places import Places


@dataclass(frozen=True)
class Place:
    """Where this process stands among the workers of its server: its seat at the board that they share."""

    board: ConfigBoard
    seat: int = 1


@dataclass(frozen=True)
class First:
    """What is served first. `number`: of the board's config that says so, 0 for the flags. `judged`: the models that
    the server is ready with, or ends without; what a client adds later changes neither."""

    models: Models
    number: int
    judged: tuple[str, ...]


def models_of(settings: Settings) -> Models:
    """What to serve: --model_config_file's models, else the one of the flags. ModelConfigError for a bad file."""
    if settings.model_config_file is None:
        return Models((ModelConfig(settings.model_name, settings.model_base_path),))
    return model_config.read(settings.model_config_file, settings.allow_version_labels_for_unavailable_models)


def first_of(settings: Settings, board: ConfigBoard) -> First:
    """What a worker that starts now serves: what a client configured meanwhile, unless a file overrules it."""
    number, data = board.latest()
    if number and not settings.model_config_file_poll_wait_seconds:
        models = model_config.from_bytes(data)
        named = {config.name for config in models_of(settings).configs}
        return First(models, number, tuple(c.name for c in models.configs if c.name in named))
    models = models_of(settings)
    return First(models, number, tuple(config.name for config in models.configs))


def build(
    settings: Settings, metrics: Metrics, run_dir: Path | None = None, place: Place | None = None,
    first: First | None = None,
) -> tuple[Dataplane, Loader, ReloadCalls]:  # fmt: skip
    """Nothing is loaded before the loader is started, and no client's config heard before the ReloadCalls are.
    BatchingParametersError for a bad --batching_parameters_file; DeviceMissing for a device that is required and not
    there."""
    place = place or Place(ConfigBoard(1))
    first = first or first_of(settings, place.board)
    device = devices.resolve(settings)
    metrics.device_info.labels(device.name, device.kind).set(device.count)
    options = load_options(settings, device)
    threads = options.parameters.num_batch_threads if options.parameters is not None else None
    # A call to an accelerator waits: the next one's inputs go there meanwhile.
    executor = Executor(metrics, threads or max(usable_cores(), 2 * device.replicas if device.accelerated else 0))
    registry = Registry(first.judged)
    registry.configure([model.name for model in first.models.configs])
    ahead = settings.allow_version_labels_for_unavailable_models
    if ahead:
        for name, labels in first.models.labels.items():
            registry.assign_labels(name, labels)

    def available(version: Version) -> None:
        if checkup.claim(run_dir, version.path):
            who = {"model": version.name, "version": version.number}
            checkup.log_in_background(version.path, settings.saved_model_tags, who)

    poll_s = float(settings.model_config_file_poll_wait_seconds)
    file = File(settings.model_config_file, poll_s) if settings.model_config_file is not None and poll_s else None
    reloader = Reloader(registry, first.models, ahead, place.board, place.seat, first.number, file)
    loader = Loader(
        first.models.configs, registry, options, schedule(settings), metrics,
        loaded=_runners(executor, threads, device), available=available,
        places=Places(settings.model_cache_dir, float(settings.storage_poll_wait_seconds)),
        reconfigured=reloader.look, reconfigure_s=reloader.poll_s, settled=reloader.settle, catch_up=bool(first.number),
    )  # fmt: skip
    if first.number:
        reloader.remember(models_of(settings))  # what the operator configured may have been unloaded meanwhile
    calls = ReloadCalls(registry, place.board, place.seat, ahead, loader.wake, reloader)
    around = layers.build(settings, metrics, run_dir)
    if around is not None:
        layered = Layered(registry, executor, metrics, loader, around.layers, around.close, around.tracing, calls)
        layered.reads_inputs = around.reads_inputs
        return layered, loader, calls
    return Dataplane(registry, executor, metrics, loader, calls), loader, calls


def _runners(executor: Executor, threads: int | None, device: Device) -> Callable[[Loaded], None]:
    """What sets the number of runners for each version that comes; `threads`: what the operator's file asks for."""
    wishes: list[int] = []  # of plans; the pool is shared, so the largest counts

    def loaded(version: Loaded) -> None:
        # A model's own batching file may ask for threads; the pool is shared, so the largest wish counts.
        if version.parameters is not None and version.parameters.num_batch_threads is not None:
            executor.runners = max(executor.runners, version.parameters.num_batch_threads)
        elif threads is None and version.plan is not None and version.plan.runners:
            # As many as were measured to answer most: what more than that have in hand only waits in the engine.
            wishes.append(version.plan.runners * device.replicas)
            executor.runners = max(wishes)

    return loaded


def with_platforms_model(settings: Settings, models: Models) -> Settings:
    """Settings whose model_name is what the platform's predict route serves: a file's only model, if there is one."""
    if settings.model_config_file is None or len(models.configs) != 1:
        return settings
    return dataclasses.replace(settings, model_name=models.configs[0].name)


def load_options(settings: Settings, device: Device = ON_CPU) -> LoadOptions:
    return LoadOptions(
        flags=optimizer_flags(settings, device),
        device=device,
        plan_cache_dir=settings.plan_cache_dir,
        tags=settings.saved_model_tags,
        optimize_timeout_s=settings.optimize_timeout_s,
        warmup=settings.enable_model_warmup,
        warmup_iterations=max(1, settings.num_request_iterations_for_warmup),
        parameters=parameters(settings),
        per_model_parameters=settings.enable_per_model_batching_parameters,
        background=settings.optimize_in_background,
        plan_bucket=settings.plan_bucket,
    )


def optimizer_flags(settings: Settings, device: Device = ON_CPU) -> OptimizerFlags:
    return OptimizerFlags(
        device=device.name,
        device_kind=device.kind,
        memory_fraction=device.memory_fraction,
        devices_per_replica=device.per_replica,
        allow_precompilation=settings.allow_precompilation,
        allow_compression=settings.allow_compression,
        use_tfrt=settings.use_tfrt,
        disable_optimizer=settings.disable_optimizer,
        allowed_batch_sizes=settings.allowed_batch_sizes,
        candidate_timeout_s=settings.candidate_timeout_s,
        optimize_budget_s=settings.optimize_budget_s,
        optimize_for=settings.optimize_for,
        engines=settings.engines,
        without_tensorflow=settings.without_tensorflow,
        lossless_max_rel_error=settings.lossless_max_rel_error,
        lossy_mean_rel_error=settings.lossy_mean_rel_error,
        lossy_max_rel_error=settings.lossy_max_rel_error,
        lossy_top1=settings.lossy_top1,
        compression_requires_records=settings.compression_requires_records,
        intra_op_threads=settings.tensorflow_intra_op_parallelism,
        inter_op_threads=settings.tensorflow_inter_op_parallelism,
    )


def parameters(settings: Settings) -> BatchingParameters | None:
    """TensorFlow Serving's defaults where batching was asked for without a file; None where it was not asked for."""
    if settings.platform_batching is not None or not settings.enable_batching:
        return settings.platform_batching
    path = settings.batching_parameters_file
    return BatchingParameters() if path is None else batching_parameters.read(path)


def schedule(settings: Settings) -> Schedule:
    """A negative poll interval means "never look for new versions", which is once: a server must load something."""
    seconds = settings.file_system_poll_wait_seconds
    return Schedule(
        poll_s=float(seconds) if seconds > 0 else None,
        retries=settings.max_num_load_retries,
        retry_s=settings.load_retry_interval_micros * 1e-6,
    )
