"""Builds the dataplane that settings describe: registry, executor, loader."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tfopt_optimizer.cpu import usable_cores
from tfopt_optimizer.device import ON_CPU, Device
from tfopt_optimizer.flags import OptimizerFlags

from tfopt_server import batching_parameters, checkup, devices, model_config
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.dataplane import Dataplane, Layered, Start
from tfopt_server.executor import Executor
from tfopt_server.loading import Loader, ModelConfig, Schedule
from tfopt_server.metrics import Metrics
from tfopt_server.model_config import Models
from tfopt_server.preparing import LoadOptions
from tfopt_server.registry import Loaded, Registry, Version
from tfopt_server.reloading import Reloader
from tfopt_server.settings import Settings


def models_of(settings: Settings) -> Models:
    """What to serve: --model_config_file's models, else the one of the flags. ModelConfigError for a bad file."""
    if settings.model_config_file is None:
        return Models((ModelConfig(settings.model_name, settings.model_base_path),))
    return model_config.read(settings.model_config_file, settings.allow_version_labels_for_unavailable_models)


def build(
    settings: Settings, metrics: Metrics, run_dir: Path | None = None, models: Models | None = None
) -> tuple[Dataplane, Loader]:
    """Nothing is loaded before the loader is started. BatchingParametersError for a bad --batching_parameters_file;
    DeviceMissing for a device that is required and not there."""
    models = models or models_of(settings)
    device = devices.resolve(settings)
    metrics.device_info.labels(device.name, device.kind).set(device.count)
    options = load_options(settings, device)
    threads = options.parameters.num_batch_threads if options.parameters is not None else None
    # A call to an accelerator waits: the next one's inputs go there meanwhile.
    executor = Executor(metrics, threads or max(usable_cores(), 2 * device.count if device.accelerated else 0))
    wishes: list[int] = []  # of plans; the pool is shared, so the largest counts

    def loaded(version: Loaded) -> None:
        # A model's own batching file may ask for threads; the pool is shared, so the largest wish counts.
        if version.parameters is not None and version.parameters.num_batch_threads is not None:
            executor.runners = max(executor.runners, version.parameters.num_batch_threads)
        elif threads is None and version.plan is not None and version.plan.runners:
            # As many as were measured to answer most: what more than that have in hand only waits in the engine.
            wishes.append(version.plan.runners * device.count)
            executor.runners = max(wishes)

    registry = Registry([model.name for model in models.configs])
    for name, labels in models.labels.items():
        registry.assign_labels(name, labels)

    def available(version: Version) -> None:
        if checkup.claim(run_dir, version.path):
            who = {"model": version.name, "version": version.number}
            checkup.log_in_background(version.path, settings.saved_model_tags, who)

    poll_s = float(settings.model_config_file_poll_wait_seconds)
    changes: dict[str, Any] = {}
    if settings.model_config_file is not None and poll_s:
        ahead = settings.allow_version_labels_for_unavailable_models
        reloader = Reloader(settings.model_config_file, poll_s, ahead, registry, models)
        changes = {"reconfigured": reloader.look, "reconfigure_s": poll_s}
    loader = Loader(
        models.configs, registry, options, schedule(settings), metrics, loaded=loaded, available=available, **changes
    )
    layers, close = _layers(settings, metrics, run_dir)
    if layers:
        return Layered(registry, executor, metrics, loader, layers, close), loader
    return Dataplane(registry, executor, metrics, loader), loader


def _layers(
    settings: Settings, metrics: Metrics, run_dir: Path | None
) -> tuple[list[Callable[[Start], Start]], Callable[[], None]]:
    """What flags put around every request, outermost first, and how it ends."""
    layers: list[Callable[[Start], Start]] = []
    closing: list[Callable[[], None]] = []
    if settings.response_cache_bytes:
        from tfopt_server.response_cache import ResponseCache

        cache = ResponseCache(
            metrics,
            settings.response_cache_bytes,
            settings.response_cache_ttl_s,
            models=settings.response_cache_models,
            tags=settings.saved_model_tags,
        )
        layers.append(cache.around)
    if settings.record_warmup:
        from tfopt_server.recording import Recorder

        recorder = Recorder(
            settings.record_warmup, settings.record_warmup_every, settings.record_warmup_dir, partial(_first, run_dir)
        )
        layers.append(recorder.around)
        closing.append(recorder.close)

    def close() -> None:
        for each in closing:
            each()

    return layers, close


def _first(run_dir: Path | None, what: str) -> bool:
    """Whether this worker is the first, of those that share `run_dir`, to ask for it: two must not write one file."""
    if run_dir is None:
        return True
    try:
        (run_dir / f"record-{hashlib.sha256(what.encode()).hexdigest()[:16]}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


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
    )


def optimizer_flags(settings: Settings, device: Device = ON_CPU) -> OptimizerFlags:
    return OptimizerFlags(
        device=device.name,
        device_kind=device.kind,
        memory_fraction=device.memory_fraction,
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
    if not settings.enable_batching:
        return None
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
