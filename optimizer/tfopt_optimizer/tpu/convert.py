"""The conversion from one end to the other: read, choose, check, place, batch, try, write.

    convert(ConversionJob(Path("m/1"), Path("m_tpu/1"), options.parse(text), samples, "warmup records"))

Everything is checked before anything is written; what is wrong comes back together in one ConversionError.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt_optimizer.tpu import (
    automatic,
    batch,
    cost,
    files,
    graph,
    io_functions,
    io_shapes,
    link,
    objects,
    place,
    precision,
    quantize,
    refused,
    shapes,
    sources,
    static_check,
    trial,
)
from tfopt_optimizer.tpu.automatic import Moved, Parted
from tfopt_optimizer.tpu.checked import Check
from tfopt_optimizer.tpu.constants import Demand
from tfopt_optimizer.tpu.errors import CompilerError, ConversionError, Refused
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.io_shapes import Border, Weighed
from tfopt_optimizer.tpu.options import Chosen, Options
from tfopt_optimizer.tpu.precision import Precision
from tfopt_optimizer.tpu.programs import Conversion
from tfopt_optimizer.tpu.quantize import Quantized
from tfopt_optimizer.tpu.report import BatchedFunction, PlacedFunction, Report, write
from tfopt_optimizer.tpu.shapes import FunctionShapes

_TRIES = 30  # as many as the server's own cut has (split/cutter.py)


@dataclasses.dataclass(frozen=True)
class ConversionJob:
    """`output` None is a dry run. `samples`: calls by signature, tried on both models; `samples_source` says whence.
    `topology`: compile for this TPU as well ("v5e:2x2"), by libtpu."""

    source: Path
    output: Path | None
    options: Options
    samples: trial.Samples
    samples_source: str
    topology: str = ""


def convert(job: ConversionJob) -> Report:
    """ConversionError: nothing was written, and why."""
    if job.output is not None:
        files.check_output(job.source, job.output)
    saved_model = files.read(job.source)
    model = ModelGraph(files.meta_graph(saved_model, job.source))
    graph.refuse_tf1(model)
    if job.options.quantization is None:
        return _convert(job, job.source)
    keys = sorted(k for k in model.meta.signature_def if not k.startswith("__saved_model_"))
    with files.workplace(job.output) as work:
        smaller = work / "quantized"
        calibration = quantize.Calibration(job.samples, job.samples_source)
        source = _with_joined_handles(job.source, saved_model, model, work)
        quantized = quantize.quantize(source, smaller, job.options.quantization, calibration, keys)
        samples = {key: calls for key, calls in job.samples.items() if key in quantized.signatures}
        return _convert(dataclasses.replace(job, source=smaller, samples=samples), job.source, quantized)


def _with_joined_handles(source: Path, saved_model: Any, model: ModelGraph, work: Path) -> Path:
    """What the quantizer can read: it opens a model in a session, as TensorFlow Serving does."""
    if not objects.repair_handles(model, objects.checkpoint_keys(source)):
        return source
    files.link(source, saved_model, work / "joined")
    return work / "joined"


def _convert(job: ConversionJob, original: Path, quantized: Quantized | None = None) -> Report:
    """`original` is what the answers are compared with; `job.source` may have been quantized before. Where the
    converter cuts by itself, what a compiler refuses goes to the host, and everything is done again."""
    moved: dict[str, dict[str, str]] = {}
    began = time.monotonic()
    for _ in range(_TRIES):
        try:
            return _attempt(job, original, quantized, moved, began)
        except Refused as error:
            if not _add(moved, error.operations):
                raise
    told = [f"signature {key!r}: {node}: {why}" for key, nodes in moved.items() for node, why in nodes.items()]
    raise ConversionError([f"no cut compiles after {_TRIES} tries; what went to the host:", *told])


def _add(moved: dict[str, dict[str, str]], operations: Moved) -> bool:
    """Whether there is any that was not moved before."""
    before = sum(map(len, moved.values()))
    for key, nodes in operations.items():
        moved.setdefault(key, {}).update(nodes)
    return sum(map(len, moved.values())) > before


def _attempt(job: ConversionJob, original: Path, quantized: Quantized | None, moved: Moved, began: float) -> Report:
    """Refused where the cut that it made itself has operations that no compiler takes."""
    saved_model = files.read(job.source)
    model = ModelGraph(files.meta_graph(saved_model, job.source))
    keys = objects.checkpoint_keys(job.source)
    parted = _part(model, job.options, keys, moved)
    chosen, doubts = _choose(model, job, parted)
    costs = cost.estimate(model, list(chosen), objects.arguments(model, objects.handles(model, keys)))
    precise = precision.apply(model, list(chosen), job.options.bfloat16, keys)
    inferred = shapes.infer(model, chosen, objects.arguments(model, objects.handles(model, keys)))
    report, borders = _rewrite(model, chosen, job, precise, inferred)
    with files.workplace(job.output) as work:
        made = work / "model"
        files.write(job.source, saved_model, made)
        variables = precision.finish(model, precise.variables, keys, made)
        files.rewrite(saved_model, made)
        sizes = _sizes(model, chosen)
        conversion = Conversion(saved_model, made, borders, sizes)
        check = Check(conversion, model, original, job.samples, doubts, sources.read(job.source), job.topology)
        try:
            checked = check.run(work)
        except CompilerError as error:
            raise (refused.again(error, model, parted) if parted else error) from error
        done = dataclasses.replace(
            report,
            bfloat16_variables=variables,
            cut=parted,
            costs=costs,
            quantized=quantized,
            cautions=(*report.cautions, *checked.cautions),
            topology=job.topology,
            ahead=checked.ahead,
            link=link.transfers(model, inferred, sizes),
            tried=checked.tried,
            seconds=time.monotonic() - began,
            written=str(job.output or ""),
        )
        if job.output is not None:
            write(done, made)
            files.publish(made, job.output)
    return done


def _sizes(model: ModelGraph, chosen: Mapping[str, Chosen]) -> dict[str, tuple[int, ...]]:
    """The batch sizes that the batch ops around the placed functions allow."""
    return {
        name: batch.read(node).allowed_batch_sizes
        for node in batch.existing(model)
        for name in chosen
        if {name, name + place.INNER} & batch.batched_by(model, node)
    }


def _part(model: ModelGraph, options: Options, keys: Mapping[str, int], moved: Moved) -> Parted | None:
    """The own cut, when nobody named a function; None when somebody did, or only wants batch ops changed."""
    if options.functions or (options.batching and any(batch.existing(model))):
        return None
    numbers = objects.arguments(model, objects.handles(model, keys))
    variables = {k: model.objects.nodes[n].HasField("variable") for k, n in numbers.items()}
    parted = automatic.choose(model, variables, moved)
    if not parted.chosen:
        told = [f"signature {key!r}: no part of it is for the TPU: {why}" for key, why in parted.whole_on_host.items()]
        raise ConversionError(
            told or "tpu_functions names no function, and the model has no signature to take one from"
        )
    return parted


def _choose(
    model: ModelGraph, job: ConversionJob, parted: Parted | None
) -> tuple[dict[str, Chosen], dict[str, list[Demand]]]:
    """The functions to place, after all checks that need no compiler, and what a compiler has to decide."""
    chosen = dict(parted.chosen) if parted else graph.choose(model, job.options.functions)
    graph.check_indirect_calls(model, chosen)
    keys, lines = objects.checkpoint_keys(job.source), sources.read(job.source)
    of_arguments = objects.arguments(model, objects.handles(model, keys))
    wrong = static_check.problems(model, chosen, of_arguments, lines)
    doubts = static_check.demands(model, chosen)
    told = [static_check.told(model, name, demand, lines) for name, found in doubts.items() for demand in found]
    if wrong:
        raise ConversionError([*told, *wrong])
    if parted and doubts:
        raise refused.unknown(told, doubts, parted)
    return chosen, doubts


def _rewrite(
    model: ModelGraph,
    chosen: dict[str, Chosen],
    job: ConversionJob,
    precise: Precision,
    inferred: Mapping[str, FunctionShapes],
) -> tuple[Report, dict[str, Border]]:
    """`inferred`: the shapes of the functions to place. Gives what crosses to each of them, too."""
    names = list(chosen)
    cautions = static_check.cautions(model, names, sources.read(job.source))
    updated = batch.update(model, job.options.batching) if any(batch.existing(model)) else []
    wanted = batch.targets(model, job.options.batching, names)
    inferred = {**shapes.infer(model, set(wanted) - set(names)), **inferred}
    cautions += batch.check_shapes(model, wanted, inferred)
    joined = objects.repair_handles(model, objects.checkpoint_keys(job.source))
    functions = io_functions.read(model, {n: inferred[n] for n in names}, wanted)
    borders = {f.name: io_shapes.plain(f) for f in functions}
    weighed: tuple[Weighed, ...] = ()
    if job.options.io_shapes:
        borders, weighed = io_functions.decide(functions, job.topology)
    place.place(model, precise.bodies, {n: inferred[n].outputs for n in names}, job.options.sharding, borders)
    wrappers = {name: batch.add(model, name, given, inferred[name]) for name, given in wanted.items()}
    report = Report(
        placed=tuple(PlacedFunction(name, str(one)) for name, one in chosen.items()),
        batched=tuple(_batched(model, name, wrapper) for name, wrapper in wrappers.items()),
        bfloat16=precise.functions,
        bfloat16_variables=None,
        updated_batch_ops=tuple(updated),
        joined_handles=joined,
        io_shapes=weighed,
        cautions=(*cautions, *precise.cautions),
        tried=(),
        samples=job.samples_source,
        seconds=0.0,
    )
    return report, borders


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
