"""A function's body in bfloat16: inlined (inline.py), rewritten by bf16_rules, a function again with the same border.

Arguments and results keep their types. Variables are cast where they are read; which of them become bfloat16 themselves
is bf16_variables' question.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tfopt_optimizer.saved_model import writes_state
from tfopt_optimizer.tpu import bf16_rules, inline
from tfopt_optimizer.tpu.bf16_rules import Rewritten
from tfopt_optimizer.tpu.graph import ModelGraph


def body(
    graph: ModelGraph, name: str, keep: Collection[str], leave: Collection[str] = (), on_cpu: bool = False
) -> tuple[Any, Rewritten]:
    """The FunctionDef (private pool) that computes what `name` does, in bfloat16. The graph is not changed.

    Calls of the functions `leave` stay calls. `on_cpu`: only operations that this CPU has a bfloat16 kernel for change.
    """
    from tensorflow.python.framework import op_def_registry

    flat = inline.flat(graph, name, leave)
    # Kinds that only TensorFlow knows would be None here; a body with a function as operation has been inlined.
    takes = _cpu_takes if on_cpu else bf16_rules.anything
    rewritten = bf16_rules.rewrite(flat.definition, keep, op_def_registry.get, takes)
    return inline.function(flat), rewritten


def holds_bfloat16(graph: ModelGraph, name: str) -> bool:
    """Whether the function, or one that it calls, computes in bfloat16 already."""
    return any(bf16_rules.holds(graph.functions[f].node_def) for f in {name} | graph.reachable(name))


def writes(graph: ModelGraph, name: str) -> list[str]:
    """Operations of the function that write state: inlining would lose those that no result needs."""
    return sorted(op for op in operations(graph, name) if writes_state(op))


def operations(graph: ModelGraph, name: str) -> set[str]:
    """Kinds of operations in the function and those that it calls."""
    return {node.op for f in {name} | graph.reachable(name) for node in graph.functions[f].node_def}


def _cpu_takes(op: str, attr: str) -> bool:
    """Whether TensorFlow has a kernel of this operation for CPUs with the attribute in bfloat16."""
    from tensorflow.python.framework import kernels

    for kernel in kernels.get_registered_kernels_for_op(op).kernel:
        allowed = [c.allowed_values.list.type for c in kernel.constraint if c.name == attr]
        if kernel.device_type in ("CPU", "DEFAULT") and all(bf16_rules.BFLOAT16 in types for types in allowed):
            return True
    return False
