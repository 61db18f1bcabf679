"""How much of the work is on the TPU: operations of one row, by function, as the conversion report shows it.

An estimate from shapes: TensorFlow's own statistics per operation, Einsum by its equation, and one operation per
element of the result for everything else. Bodies of loops are not entered. Nothing is run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from tfopt_optimizer.tpu import graph, inline, shapes
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.inline import Flat

TPU, CPU = "TPU", "CPU"
_FREE = frozenset({
    "Const", "Placeholder", "Identity", "NoOp", "ReadVariableOp", "VarHandleOp", "Shape", "StopGradient",
    "PartitionedCall", "StatefulPartitionedCall",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FunctionCost:
    """`where` is "TPU" or "CPU"; `operations` are floating-point operations for one row."""

    name: str
    where: str
    operations: float


@dataclasses.dataclass(frozen=True)
class Costs:
    functions: tuple[FunctionCost, ...]

    def share(self, where: str) -> float:
        """Between 0 and 1; 0 for a model without any cost."""
        total = sum(f.operations for f in self.functions)
        return sum(f.operations for f in self.functions if f.where == where) / total if total else 0.0


def estimate(model: ModelGraph, placed: Collection[str], objects: Mapping[tuple[str, int], int]) -> Costs:
    """Before anything is placed: the functions `placed`, and the host part of every signature's function.

    `objects`: see objects.arguments.
    """

    def of(name: str, flat: Flat) -> float:
        return operations(flat, shapes.variables(model, name, objects))

    keys = sorted(k for k in model.meta.signature_def if not k.startswith("__saved_model_"))
    signatures = dict.fromkeys(f for key in keys for f in graph.signature_functions(model, key))
    found = [FunctionCost(name, TPU, of(name, inline.flat(model, name))) for name in sorted(placed)]
    rest = [name for name in signatures if name not in placed]
    found += [FunctionCost(n, CPU, of(n, inline.flat(model, n, leave=placed, effects=True))) for n in rest]
    return Costs(tuple(found))


def lines(costs: Costs) -> list[str]:
    """The conversion report as the documentation of the original shows it."""
    total = sum(f.operations for f in costs.functions) or 1.0
    told = [f"TPU cost: {costs.share(TPU):.2%}, CPU cost: {costs.share(CPU):.2%} (estimated operations of one row)"]
    return told + [
        f"cost of {f.name} ({f.where}): {f.operations:,.0f}, {f.operations / total:.2%}"
        for f in sorted(costs.functions, key=lambda f: -f.operations)
    ]


def operations(flat: Flat, variables: Mapping[str, Any]) -> float:
    """For one row: unknown sizes count as 1. `variables`: arguments, whose types and shapes those of reads follow."""
    try:
        return _counted(flat, variables, one_row=True)
    except ValueError:  # the graph wants another number of rows than one, a multiple of 8 say
        return _counted(flat, variables, one_row=False)


def _counted(flat: Flat, variables: Mapping[str, Any], one_row: bool) -> float:
    import tensorflow as tf

    definition = type(flat.definition)()
    definition.CopyFrom(flat.definition)
    for node in definition.node:
        node.attr.pop("_output_shapes", None)
        if node.name in variables:
            shapes.hold(node, variables[node.name])
        elif node.op == "Placeholder" and one_row:
            for dim in node.attr["shape"].shape.dim:
                dim.size = max(dim.size, 1)
    with tf.Graph().as_default() as made:
        tf.graph_util.import_graph_def(definition, name="")
        return sum(_of(made, op) for op in made.get_operations())


def _of(made: Any, op: Any) -> float:
    from tensorflow.python.framework import ops

    if op.type in _FREE:
        return 0.0
    if op.type == "Einsum":
        return _einsum(op)
    try:
        known = ops.get_stats_for_node_def(made, op.node_def, "flops").value
    except ValueError:  # a shape that only a request can tell
        known = None
    return float(known) if known else float(sum(_elements(t) for t in op.outputs))


def _einsum(op: Any) -> float:
    sizes: dict[str, int] = {}
    equation = op.get_attr("equation").decode().replace(" ", "")
    for labels, tensor in zip(equation.split("->")[0].split(","), op.inputs, strict=True):
        if "..." in labels or tensor.shape.rank is None:
            return float(sum(_elements(t) for t in op.outputs))
        sizes |= {label: int(n or 1) for label, n in zip(labels, tensor.shape.as_list(), strict=True)}
    return 2.0 * _product(sizes)


def _product(sizes: Mapping[str, int]) -> float:
    found = 1.0
    for n in sizes.values():
        found *= n
    return found


def _elements(tensor: Any) -> float:
    if tensor.shape.rank is None:
        return 1.0
    return _product({str(i): int(n or 1) for i, n in enumerate(tensor.shape.as_list())})
