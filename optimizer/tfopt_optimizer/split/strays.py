"""Values that TensorFlow refuses in a device segment and compilers compute with: an index outside the weights that it
chooses from, an assertion in a branch, a division of integers by zero (engines/guards.py).

What an index may be is known per tensor here, before tensors are packed: the host checks each against its own limits,
and look-ups whose table holds nothing beyond them need no check. What no limit covers goes to the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tfopt_optimizer.engines import guards
from tfopt_optimizer.engines.indices import Shape
from tfopt_optimizer.engines.limits import Limits
from tfopt_optimizer.split.emit import Emitter
from tfopt_optimizer.split.graph import Graph, node_of
from tfopt_optimizer.split.partition import Segment
from tfopt_optimizer.split.program import Columns


@dataclasses.dataclass(frozen=True)
class Strays:
    """`limits`: inputs of the segment -> what they may be, `columns`: what some of their columns may be; `trouble`:
    node -> why it cannot be there."""

    limits: Mapping[str, Limits]
    trouble: Mapping[str, str]
    columns: tuple[Columns, ...] = ()


def find(
    graph: Graph,
    segment: Segment,
    emitter: Emitter,
    variable_shape: Callable[[str], tuple[int, ...]],
    values: Callable[[str], np.ndarray | None],
) -> Strays:
    """`values`: all that a tensor can be, where the host knows it."""
    definition, names = emitter.definition(segment.inputs, segment.outputs)
    inputs = {node_of(name): tensor for tensor, name in names.items()}
    shapes: dict[str, Shape] = {}
    for node in definition.node:
        if node.name in graph.variables:
            shapes[node.name] = variable_shape(node.name)
        elif node.name in graph.nodes and (shape := graph.shape(f"{node.name}:0")) is not None:
            shapes[node.name] = shape
    for name, tensor in inputs.items():
        if (shape := graph.shape(tensor)) is not None:
            shapes[name] = shape
    functions = {f.signature.name: f for f in definition.library.function}
    inferred = emitter.inferred(definition, {name: shapes[name] for name in inputs if name in shapes})
    found = guards.find(definition.node, inputs, shapes, functions, emitter.scalar, inferred=inferred)
    if found.refusal:
        return Strays({}, {found.node: found.refusal})
    held = {part: limit for part, limit in found.limits.items() if not _within(values(part.name), limit)}
    whole = {part.name: limit for part, limit in held.items() if part.axis is None}
    columns = tuple(
        Columns(part.name, part.axis, part.start, part.stop, *limit)
        for part, limit in held.items()
        if part.axis is not None
    )
    return Strays(whole, {}, columns)


def _within(values: np.ndarray | None, limit: Limits) -> bool:
    return values is not None and bool(values.size == 0 or (values.min() >= limit[0] and values.max() <= limit[1]))
