"""The border of every function that is to be placed, as io_shapes.py weighs it, read off the model before placing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfopt_optimizer.tpu import batch, io_programs, io_shapes, link
from tfopt_optimizer.tpu.ahead import AheadUnavailable
from tfopt_optimizer.tpu.batch_rules import BatchOptions
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.graph import DT_RESOURCE, ModelGraph, calls
from tfopt_optimizer.tpu.io_shapes import Border, Function, Weighed
from tfopt_optimizer.tpu.shapes import FunctionShapes


def read(
    model: ModelGraph, shapes: Mapping[str, FunctionShapes], batching: Mapping[str, BatchOptions]
) -> tuple[Function, ...]:
    """The functions of `shapes`. `batching`: the batch ops that they will get."""
    return tuple(_function(model, name, known, batching.get(name)) for name, known in sorted(shapes.items()))


def decide(functions: Sequence[Function], topology: str) -> tuple[dict[str, Border], tuple[Weighed, ...]]:
    """`topology`: weighed by this TPU's compiler, by arithmetic when "". ConversionError when there is no such
    compiler."""
    try:
        weigh = io_programs.compiled(functions, topology) if topology else io_shapes.estimate
    except AheadUnavailable as error:
        raise ConversionError([str(error)]) from error
    chosen = {function.name: io_shapes.choose(function, weigh) for function in functions}
    borders = {name: border for name, (border, _) in chosen.items()}
    return borders, tuple(w for _, weighed in chosen.values() for w in weighed)


def _function(model: ModelGraph, name: str, shapes: FunctionShapes, batching: BatchOptions | None) -> Function:
    signature = model.functions[name].signature
    options = [batching] if batching is not None else list(_batched(model, name))
    arguments = io_shapes.tensors(_named(signature.input_arg), shapes.inputs, (DT_RESOURCE,))
    first = len(signature.input_arg) - model.captures(name)
    return Function(
        name,
        arguments,
        io_shapes.tensors(_named(signature.output_arg), shapes.outputs, ()),
        _sizes(options),
        # What a batch op captured is no part of the batch.
        equal_rows=bool(options) and not any(t.by_rows and t.index >= first for t in arguments),
    )


def _batched(model: ModelGraph, name: str) -> Iterable[BatchOptions]:
    """The options of batch ops that the function is called by, where nothing else calls it."""
    bodies = (model.meta.graph_def.node, *(f.node_def for f in model.functions.values()))
    callers = [node for body in bodies for node in body if any(f.name == name for f in calls(node))]
    return [batch.read(node) for node in callers] if all(node.op == batch.OP for node in callers) else []


def _sizes(options: Iterable[BatchOptions]) -> tuple[int, ...]:
    found = {size for o in options for size in (o.allowed_batch_sizes or (o.max_batch_size or 0,)) if size}
    return tuple(sorted(found)) or link.SIZES


def _named(arguments: Any) -> list[tuple[str, int]]:
    return [(a.name, a.type) for a in arguments]
