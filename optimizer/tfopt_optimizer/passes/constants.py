"""What the passes share: GraphDef nodes made without TensorFlow, of whatever pool the graph's messages are."""

from __future__ import annotations

from typing import Any

import numpy as np
from tfopt_protos import dtypes, messages


def scalar(graph: Any, name: str, dtype: int, value: float) -> str:
    """Adds a constant of one value; returns its tensor's name."""
    node = graph.node.add(op="Const", name=name)
    node.attr["dtype"].type = dtype
    tensor = node.attr["value"].tensor
    tensor.dtype = dtype
    tensor.tensor_shape.SetInParent()
    tensor.tensor_content = np.array(value, dtypes.to_numpy(dtypes.name(dtype))).tobytes()
    return name


def add(graph: Any, op: str, name: str, inputs: list[str], dtype: int) -> str:
    """Adds an operation with the one type attribute `T`; returns its first output's name."""
    graph.node.add(op=op, name=name, input=inputs).attr["T"].type = dtype
    return name


def become(node: Any, op: str, inputs: list[str]) -> None:
    """Turns a node into another operation of the same type; what runs before it (control inputs) stays."""
    control = [name for name in node.input if name.startswith("^")]
    node.op = op
    del node.input[:]
    node.input.extend([*inputs, *control])


def told(node: Any, name: str) -> Any:
    """An attribute, or an empty one: asking a node's map of them for what it lacks would add it."""
    found = node.attr.get(name)
    return messages.AttrValue() if found is None else found
