"""The static shapes of a function's arguments and results, as TensorFlow infers them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from tfopt_optimizer.tpu.batch_rules import Shape
from tfopt_optimizer.tpu.graph import ModelGraph


@dataclasses.dataclass(frozen=True)
class FunctionShapes:
    """In the order of the signature."""

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def infer(graph: ModelGraph, names: Iterable[str]) -> dict[str, FunctionShapes]:
    """Imports every function once; needs TensorFlow."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef.FromString(_only_library(graph))
    found = {}
    for name in names:
        # A graph per function, for their nodes may have equal names; callees must be known before the body is read.
        with tf.Graph().as_default() as imported:
            tf.graph_util.import_graph_def(definition, name="")
            found[name] = _of(tf, imported, graph.functions[name])
    return found


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
