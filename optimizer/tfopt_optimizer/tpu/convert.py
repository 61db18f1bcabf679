"""The conversion from one end to the other: read, choose, check, place, batch, try, write.

    convert(ConversionJob(Path("m/1"), Path("m_tpu/1"), options.parse(text), samples, "warmup records"))

Everything is checked before anything is written; what is wrong comes back together in one ConversionError.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from tfopt_optimizer.tpu import batch, files, graph, objects, place, shapes, sources, static_check, trial
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.options import Chosen, Options
from tfopt_optimizer.tpu.report import BatchedFunction, PlacedFunction, Report


@dataclasses.dataclass(frozen=True)
class ConversionJob:
    """`output` None is a dry run. `samples`: calls by signature, tried on both models; `samples_source` says whence."""

    source: Path
    output: Path | None
    options: Options
    samples: trial.Samples
    samples_source: str


def convert(job: ConversionJob) -> Report:
    """ConversionError: nothing was written, and why."""
    began = time.monotonic()
    if job.output is not None:
        files.check_output(job.source, job.output)
    saved_model = files.read(job.source)
    model = ModelGraph(files.meta_graph(saved_model, job.source))
    _refuse_missing(job.options, only_batch_ops=any(batch.existing(model)))
    graph.refuse_tf1(model)
    chosen = _choose(model, job)
    report = _rewrite(model, chosen, job)
    with files.workplace(job.output) as work:
        made = work / "model"
        files.write(job.source, saved_model, made)
        tried = trial.run(job.source, made, saved_model, job.samples, work)
        if job.output is not None:
            files.publish(made, job.output)
    return dataclasses.replace(
        report, tried=tuple(tried), seconds=time.monotonic() - began, written=str(job.output or "")
    )


def _refuse_missing(options: Options, only_batch_ops: bool) -> None:
    """What this version does not do must not be passed over in silence."""
    wrong = []
    if not options.functions and not (options.batching and only_batch_ops):
        wrong.append("tpu_functions names no function, and choosing them by itself is not part of this version")
    if options.quantization is not None:
        wrong.append("external_feature_configs.quantization_options: quantization is not part of this version")
    if options.io_shapes_demanded:
        wrong.append("io_shape_optimization: ENABLED is not part of this version")
    if options.bfloat16.demanded:
        wrong.append("bfloat16_optimization: ENABLED is not part of this version")
    if wrong:
        raise ConversionError(wrong)


def _choose(model: ModelGraph, job: ConversionJob) -> dict[str, Chosen]:
    """The functions to place, after all checks that need no compiler."""
    chosen = graph.choose(model, job.options.functions)
    graph.check_indirect_calls(model, chosen)
    keys = objects.checkpoint_keys(job.source)
    of_arguments = objects.arguments(model, objects.handles(model, keys))
    wrong = static_check.problems(model, chosen, of_arguments, sources.read(job.source))
    if wrong:
        raise ConversionError(wrong)
    return chosen


def _rewrite(model: ModelGraph, chosen: dict[str, Chosen], job: ConversionJob) -> Report:
    names = list(chosen)
    cautions = static_check.cautions(model, names, sources.read(job.source)) + _not_done(job.options)
    updated = batch.update(model, job.options.batching) if any(batch.existing(model)) else []
    wanted = batch.targets(model, job.options.batching, names)
    inferred = shapes.infer(model, {*names, *wanted})
    cautions += batch.check_shapes(model, wanted, inferred)
    joined = objects.repair_handles(model, objects.checkpoint_keys(job.source))
    place.place(model, names, {n: inferred[n].outputs for n in names}, job.options.sharding)
    wrappers = {name: batch.add(model, name, given, inferred[name]) for name, given in wanted.items()}
    return Report(
        placed=tuple(PlacedFunction(name, str(one)) for name, one in chosen.items()),
        batched=tuple(_batched(model, name, wrapper) for name, wrapper in wrappers.items()),
        updated_batch_ops=tuple(updated),
        joined_handles=joined,
        cautions=tuple(cautions),
        tried=(),
        samples=job.samples_source,
        seconds=0.0,
    )


def _not_done(options: Options) -> list[str]:
    """Optimizations that are on by default and not part of this version yet."""
    states = {"bfloat16_optimization": options.bfloat16.enabled, "io_shape_optimization": options.io_shapes}
    return [
        f"{name} is on by default in the original converter and not part of this version: not applied"
        for name, on in states.items()
        if on
    ]


def _batched(model: ModelGraph, name: str, wrapper: str) -> BatchedFunction:
    node: Any = next(n for n in model.functions[wrapper].node_def if n.op == batch.OP)
    given = batch.read(node)
    return BatchedFunction(
        name=name,
        num_batch_threads=given.num_batch_threads or 0,
        max_batch_size=given.max_batch_size or 0,
        batch_timeout_micros=given.batch_timeout_micros or 0,
        allowed_batch_sizes=given.allowed_batch_sizes,
        max_enqueued_batches=given.max_enqueued_batches or 0,
        splitting=bool(given.splitting),
    )
