"""A signature as one GraphDef with its weights beside it: for passes that look at operations. Needs TensorFlow.

As freeze.py makes it, but the constants that stand for variables have a type and a shape and no content, which takes
0.13 s for a BERT-base where freezing took 15 (docs/decisions/0204). TensorFlow runs it with the variables themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfopt_optimizer.engines import freeze
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.freeze import Frozen
from tfopt_optimizer.engines.indices import FEW
from tfopt_optimizer.errors import NotLowerable, first_line
from tfopt_optimizer.passes import order
from tfopt_optimizer.plan import SignatureInfo

_RESOURCE, _INT32 = 20, 3  # DataType
_AROUND = 64  # bytes of a message around its content, at most


@dataclasses.dataclass(frozen=True)
class Weightless:
    """`weights`: the constants without content -> the variable's handle, or the tensor, that they stand for."""

    frozen: Frozen
    weights: Mapping[str, Any]


def of(model: tensorflow_engine.FunctionModel, info: SignatureInfo) -> Weightless:
    """NotLowerable when TensorFlow cannot make one graph of it, or variables are not only read."""
    # What convert_variables_to_constants_v2 begins with: private to the pinned TensorFlow, held by test_weightless.py.
    from tensorflow.python.framework import convert_to_constants

    concrete = freeze.one_function(model, info)
    try:
        graph = convert_to_constants._run_inline_graph_optimization(concrete, False, False)
    except Exception as error:
        # Grappler raises whatever it meets: it all means "not this way".
        raise NotLowerable(f"TensorFlow cannot make one graph of it: {first_line(error)}") from error
    nodes = {node.name: node for node in graph.node}
    weights = {end.op.name: value for value, end in concrete.graph.captures}
    types = {name: _emptied(model.tf, nodes[name], value) for name, value in weights.items() if name in nodes}
    for node in order.sorted_nodes(nodes):
        _read(graph, node, types)
    return Weightless(freeze.with_ends(graph, info, concrete.outputs), {n: v for n, v in weights.items() if n in nodes})


def _emptied(tf: Any, node: Any, value: Any) -> int:
    """Turns what is fed a variable or tensor into a constant of its type and shape; returns the type."""
    if value.dtype == tf.resource:
        handle = getattr(value, "_handle_data", None)
        if handle is None or not handle.is_set or len(handle.shape_and_type) != 1:
            raise NotLowerable("it reads a resource that is not a variable (a lookup table, for instance)")
        shape, kind = tf.TensorShape(handle.shape_and_type[0].shape), int(handle.shape_and_type[0].dtype)
    else:
        shape, kind = value.shape, int(value.dtype.as_datatype_enum)
    if not shape.is_fully_defined():
        raise NotLowerable(f"the shape of variable {node.name!r} is not known")
    node.op = "Const"
    node.attr.clear()
    node.attr["dtype"].type = kind
    tensor = node.attr["value"].tensor
    tensor.dtype = kind
    tensor.tensor_shape.CopyFrom(shape.as_proto())
    if shape.num_elements() <= FEW:  # it may tell axes or places
        tensor.tensor_content = np.ascontiguousarray(_read_now(tf, value, kind).numpy()).tobytes()
    return kind


def _read_now(tf: Any, value: Any, kind: int) -> Any:
    if value.dtype != tf.resource:
        return tf.identity(value)  # a graph that is imported takes none of those outside of it
    return tf.raw_ops.ReadVariableOp(resource=value, dtype=tf.dtypes.as_dtype(kind))


def _read(graph: Any, node: Any, types: dict[str, int]) -> None:
    """What reads a variable's handle reads the constant from now on."""
    feeders = [each.partition(":")[0] for each in node.input if not each.startswith("^")]
    handles = [name for name in feeders if name in types]
    if not handles or node.op == "Const":
        return
    if node.op == "ReadVariableOp" or (node.op == "Identity" and node.attr["T"].type == _RESOURCE):
        kind = types[handles[0]]
        if node.op == "Identity":
            types[node.name] = kind
        node.op = "Identity"
        node.attr.clear()
        node.attr["T"].type = kind
    elif node.op == "ResourceGather":
        _gather(graph, node, types[handles[0]])
    elif any(attr.type == _RESOURCE for attr in node.attr.values()) or _takes_resources(node):
        raise NotLowerable(f"{node.op} {node.name!r} takes a variable itself")


def _takes_resources(node: Any) -> bool:
    return any(_RESOURCE in attr.list.type for attr in node.attr.values())


def _gather(graph: Any, node: Any, kind: int) -> None:
    indices, batch = node.attr["Tindices"].type, node.attr["batch_dims"].i
    axis = graph.node.add(op="Const", name=f"{node.name}/tfopt_axis")
    axis.attr["dtype"].type = _INT32
    axis.attr["value"].tensor.dtype = _INT32
    axis.attr["value"].tensor.tensor_shape.SetInParent()
    axis.attr["value"].tensor.int_val.append(int(batch))
    control = [each for each in node.input if each.startswith("^")]
    table, places = (each for each in node.input if not each.startswith("^"))
    node.op = "GatherV2"
    node.attr.clear()
    for key, value in (("Tparams", kind), ("Tindices", indices), ("Taxis", _INT32)):
        node.attr[key].type = value
    node.attr["batch_dims"].i = batch
    del node.input[:]
    node.input.extend([table, places, axis.name, *control])


def write(tf: Any, light: Weightless, path: Path) -> None:
    """Writes the graph with its weights in it, as freeze makes it. NotLowerable where that cannot be.

    A node at a time: messages one behind the other are read as one. With all weights in it at once, making the two
    graphs of a BERT-base took 11 s instead of 5, and the process 2,303 MB at its peak instead of 1,351.
    """
    weights = sum(freeze.bytes_of(tf, value) + _AROUND for value in light.weights.values())
    freeze.refuse(light.frozen.graph.ByteSize() + weights)
    rest = type(light.frozen.graph)()
    rest.CopyFrom(light.frozen.graph)
    del rest.node[:]
    with path.open("wb") as file:
        file.write(rest.SerializeToString())
        for node in light.frozen.graph.node:
            part = type(rest)(node=[node])
            if node.name in light.weights:
                array = np.ascontiguousarray(value_of(tf, light, node.name).numpy())
                part.node[0].attr["value"].tensor.tensor_content = array.tobytes()
            file.write(part.SerializeToString())


def value_of(tf: Any, light: Weightless, name: str) -> Any:
    """The weights that a constant stands for, in whatever graph is being traced."""
    kind = next(node.attr["dtype"].type for node in light.frozen.graph.node if node.name == name)
    return _read_now(tf, light.weights[name], kind)
