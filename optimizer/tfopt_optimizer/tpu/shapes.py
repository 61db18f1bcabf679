"""The static shapes of a function's arguments and results, as TensorFlow infers them.

Calls have no shape function in TensorFlow, and a resource argument does not say what it holds: where a result's shape
would be lost to these, the body is inlined, and variables have the shapes that the object graph gives them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from tfopt_optimizer.tpu import inline
from tfopt_optimizer.tpu.batch_rules import Shape
from tfopt_optimizer.tpu.graph import ModelGraph


@dataclasses.dataclass(frozen=True)
class FunctionShapes:
    """In the order of the signature."""

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def infer(
    graph: ModelGraph, names: Iterable[str], objects: Mapping[tuple[str, int], int] | None = None
) -> dict[str, FunctionShapes]:
    """`objects`: see objects.arguments. Needs TensorFlow."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef.FromString(_only_library(graph))
    found = {}
    for name in names:
        # A graph per function, for their nodes may have equal names; callees must be known before the body is read.
        with tf.Graph().as_default() as imported:
            tf.graph_util.import_graph_def(definition, name="")
            found[name] = _of(tf, imported, graph.functions[name])
        if any(shape is None or None in shape[1:] for shape in found[name].outputs):
            found[name] = dataclasses.replace(found[name], outputs=_inlined(graph, name, objects or {}))
    return found


def variables(graph: ModelGraph, name: str, objects: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    """Argument -> the variable (of the object graph) that it stands for."""
    found = {}
    for i, argument in enumerate(graph.functions[name].signature.input_arg):
        number = objects.get((name, i))
        if number is not None and graph.objects.nodes[number].HasField("variable"):
            found[argument.name] = graph.objects.nodes[number].variable
    return found


def hold(node: Any, variable: Any) -> None:
    """A resource argument's Placeholder becomes a handle that knows its variable's type and shape."""
    node.op = "VarHandleOp"
    node.attr.clear()
    node.attr["dtype"].type = variable.dtype
    node.attr["shape"].shape.SetInParent()
    for dim in variable.shape.dim:
        node.attr["shape"].shape.dim.add(size=dim.size)


def _inlined(graph: ModelGraph, name: str, objects: Mapping[tuple[str, int], int]) -> tuple[Shape, ...]:
    """Of the results."""
    import tensorflow as tf

    flat, held = inline.flat(graph, name), variables(graph, name, objects)
    for node in flat.definition.node:
        node.attr.pop("_output_shapes", None)
        if node.name in held:
            hold(node, held[node.name])
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(flat.definition, name="")
        tensors = [imported.as_graph_element(t if ":" in t else f"{t}:0") for t in flat.results]
    return tuple(None if t.shape.rank is None else tuple(t.shape.as_list()) for t in tensors)


def _only_library(graph: ModelGraph) -> bytes:
    definition = type(graph.meta.graph_def)()
    definition.library.CopyFrom(graph.library)
    definition.versions.CopyFrom(graph.meta.graph_def.versions)
    return bytes(definition.SerializeToString())


def _of(tf: Any, imported: Any, function: Any) -> FunctionShapes:
    from tensorflow.core.framework import function_pb2
    from tensorflow.python.framework import function_def_to_graph

    proto = function_pb2.FunctionDef.FromString(function.SerializeToString())
    body, names = function_def_to_graph.function_def_to_graph_def(proto)
    body.library.Clear()
    tf.graph_util.import_graph_def(body, name="")

    def shape(tensor: str) -> Shape:
        name = names.get(tensor, tensor)
        found = imported.get_tensor_by_name(name if ":" in name else f"{name}:0").shape
        return None if found.rank is None else tuple(found.as_list())

    return FunctionShapes(
        tuple(shape(a.name) for a in proto.signature.input_arg),
        tuple(shape(proto.ret[a.name]) for a in proto.signature.output_arg),
    )
