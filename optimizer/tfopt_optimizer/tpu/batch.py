"""Adds in-graph batching: callers of a function go through a BatchFunction; batch ops that are there get new options.

    F_with_batch    BatchFunction(F): arguments that requests bring are batched, what F captured is passed along

A function on the TPU is batched outside of its TPUPartitionedCall, so that the TPU sees whole batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfopt_optimizer.tpu import batch_rules, nodes
from tfopt_optimizer.tpu.batch_rules import BatchOptions
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.graph import DT_RESOURCE, ModelGraph, calls, resolve
from tfopt_optimizer.tpu.place import STUB
from tfopt_optimizer.tpu.shapes import FunctionShapes

OP, WRAPPER = "BatchFunction", "_with_batch"
DEFAULT_ENQUEUED = 10  # the operation's own default


def targets(graph: ModelGraph, given: Iterable[BatchOptions], placed: Sequence[str]) -> dict[str, BatchOptions]:
    """Function -> its batching, before anything is changed. Options for one function win over those for all.

    Functions that run inside a batch op of the model already are left to that op. ConversionError lists what is wrong.
    """
    found: dict[str, BatchOptions] = {}
    wrong = []
    inside = {name for node in existing(graph) for name in batched_by(graph, node)}
    for options in sorted(given, key=lambda o: o.component is not None):
        names = placed if options.component is None else resolve(graph, *options.component)
        if not names and not (inside and options.component is None):
            wrong.append(f"batch_options, line {options.line}: {_nobody(options)}")
        found.update(dict.fromkeys(names, options))
    found = {name: options for name, options in found.items() if name not in inside}
    wrong += [f"batch_options for {n!r}: {p}" for n, o in found.items() for p in batch_rules.missing(o)]
    wrong += list(_nested(graph, found, placed))
    if wrong:
        raise ConversionError(wrong)
    return found


def check_shapes(graph: ModelGraph, names: Iterable[str], shapes: Mapping[str, FunctionShapes]) -> list[str]:
    """Raises what makes every batch fail; returns what may fail some (for the log)."""
    wrong, cautions = [], []
    for name in names:
        inputs, outputs = _named(graph, name, shapes[name])
        wrong += [f"batching {name!r}: {p}" for p in batch_rules.shapes(inputs, outputs)]
        cautions += [f"batching {name!r}: {c}" for c in batch_rules.cautions(inputs)]
    if wrong:
        raise ConversionError(wrong)
    return cautions


def add(graph: ModelGraph, name: str, options: BatchOptions, shapes: FunctionShapes) -> str:
    """Batches one function (its stub, where it is on the TPU); returns the name of what callers now call."""
    called = name + STUB if name + STUB in graph.functions else name
    wrapper = graph.add(_wrapper(graph, called, options, shapes))
    graph.redirect(called, wrapper.signature.name, {wrapper.signature.name})
    return str(wrapper.signature.name)


def update(graph: ModelGraph, given: Iterable[BatchOptions]) -> list[str]:
    """New options for the batch ops that the model has; returns the names of those that changed. ConversionError."""
    changed, wrong = [], []
    for options in sorted(given, key=lambda o: o.component is not None):
        wanted = None if options.component is None else set(resolve(graph, *options.component))
        for node in existing(graph):
            if wanted is not None and not wanted & batched_by(graph, node):
                continue
            _set(node, options)
            changed.append(node.name)
            wrong += [f"batch op {node.name!r}: {p}" for p in batch_rules.consistency(read(node))]
    if wrong:
        raise ConversionError(wrong)
    return sorted(set(changed))


def existing(graph: ModelGraph) -> Iterator[Any]:
    """The batch ops of the model."""
    for body in (graph.meta.graph_def.node, *(f.node_def for f in graph.functions.values())):
        yield from (node for node in body if node.op == OP)


def batched_by(graph: ModelGraph, node: Any) -> set[str]:
    """The functions that run inside a batch op."""
    direct = {f.name for f in calls(node) if f.name in graph.functions}
    return direct | {name for f in direct for name in graph.reachable(f)}


def read(node: Any) -> BatchOptions:
    """The options that a batch op has now."""
    attr = node.attr
    return BatchOptions(
        num_batch_threads=int(attr["num_batch_threads"].i),
        max_batch_size=int(attr["max_batch_size"].i),
        batch_timeout_micros=int(attr["batch_timeout_micros"].i),
        allowed_batch_sizes=tuple(attr["allowed_batch_sizes"].list.i),
        max_enqueued_batches=int(attr["max_enqueued_batches"].i),
        splitting=bool(attr["enable_large_batch_splitting"].b),
    )


def _wrapper(graph: ModelGraph, called: str, options: BatchOptions, shapes: FunctionShapes) -> Any:
    original = graph.functions[called]
    made = nodes.shell(original, called + WRAPPER)
    arguments = list(original.signature.input_arg)
    first = len(arguments) - graph.captures(called)
    node = nodes.add(
        made,
        OP,
        OP,
        [a.name for a in arguments],
        f=nodes.function(called),
        Tin=nodes.types(a.type for a in arguments[:first]),
        Tcaptured=nodes.types(a.type for a in arguments[first:]),
        Tout=nodes.types(a.type for a in original.signature.output_arg),
        # Two ops with one queue would batch requests of different functions together.
        batching_queue=nodes.value(called),
        shared_name=nodes.value(f"batch_{called}"),
        container=nodes.value(""),
        max_enqueued_batches=nodes.value(DEFAULT_ENQUEUED),
        enable_large_batch_splitting=nodes.value(True),
        allowed_batch_sizes=nodes.ints(),
    )
    _set(node, options)
    results = [f"{OP}:out_tensors:{i}" for i in range(len(shapes.outputs))]
    nodes.finish(made, OP, results, shapes.outputs)
    return made


def _set(node: Any, options: BatchOptions) -> None:
    for name in ("num_batch_threads", "max_batch_size", "batch_timeout_micros", "max_enqueued_batches"):
        if (given := getattr(options, name)) is not None:
            node.attr[name].CopyFrom(nodes.value(int(given)))
    if options.allowed_batch_sizes:
        node.attr["allowed_batch_sizes"].CopyFrom(nodes.ints(options.allowed_batch_sizes))
    if options.splitting is not None:
        node.attr["enable_large_batch_splitting"].CopyFrom(nodes.value(options.splitting))


def _named(graph: ModelGraph, name: str, shapes: FunctionShapes) -> tuple[dict[str, Any], dict[str, Any]]:
    signature = graph.functions[name].signature
    first = len(signature.input_arg) - graph.captures(name)
    inputs = [a.name for a in list(signature.input_arg)[:first] if a.type != DT_RESOURCE]
    kinds = [a.type for a in list(signature.input_arg)[:first]]
    sizes = [s for s, kind in zip(shapes.inputs[:first], kinds, strict=True) if kind != DT_RESOURCE]
    outputs = [a.name for a in signature.output_arg]
    return dict(zip(inputs, sizes, strict=True)), dict(zip(outputs, shapes.outputs, strict=True))


def _nested(graph: ModelGraph, found: Mapping[str, BatchOptions], placed: Sequence[str]) -> Iterator[str]:
    for outer in sorted(found):
        for inner in sorted(graph.reachable(outer) & set(found)):
            # A function on the TPU that another one there calls is part of its program: it is not batched by itself.
            if not (outer in placed and inner in placed):
                yield f"batching {outer!r}: it calls {inner!r}, which is batched as well; batch one of the two"
    for outer in sorted(placed):
        for inner in sorted((graph.reachable(outer) & set(found)) - set(placed)):
            yield f"batching {inner!r}: the TPU function {outer!r} calls it, and a batch op cannot run on the TPU"


def _nobody(options: BatchOptions) -> str:
    if options.component is None:
        return "there is no TPU function to batch; name one in tpu_functions, or a function in experimental"
    return f"the model has no {options.for_whom}"
