"""The shapes of a GraphDef's tensors, and of those in its functions, as TensorFlow infers them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from tfopt_optimizer.engines.indices import FEW, Shape


class Inferred:
    """Called with a function's name ("" for the graph itself) and a node's, it gives the shape of the node's first
    result; None for an unknown rank. `variables`: the handles that nodes stand for, which know their shapes. Nothing is
    inferred before it is asked for."""

    def __init__(self, tf: Any, definition: Any, variables: Mapping[str, Any]) -> None:
        self._tf, self._definition, self._variables = tf, definition, variables
        self._known: dict[str, Mapping[str, Shape]] = {}

    def __call__(self, function: str, node: str) -> Shape | None:
        if function not in self._known:
            self._known[function] = _shapes(self._inside(function) if function else self._graph)
        return self._known[function].get(node)

    @functools.cached_property
    def _graph(self) -> Any:
        graph = self._tf.__internal__.FuncGraph("shapes")
        with graph.as_default():
            captured = {
                f"{node}:0": graph.capture(handle, name=f"tfopt_variable_{i}")
                for i, (node, handle) in enumerate(self._variables.items())
            }
            self._tf.graph_util.import_graph_def(self._definition, captured, name="")
        return graph

    def _inside(self, name: str) -> Any:
        from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

        found = next(f for f in self._definition.library.function if f.signature.name == name)
        with self._graph.as_default():  # which knows the functions that this one calls
            return function_def_to_graph(found)


def of_tensors(tf: Any, definition: Any) -> dict[str, Shape | None]:
    """The shapes of all tensors ("node:0") of a graph without variables; None for an unknown rank."""
    light = type(definition)(versions=definition.versions, library=definition.library)
    for node in definition.node:
        value = node.attr["value"].tensor if node.op == "Const" else None
        if value is None or math.prod(int(dim.size) for dim in value.tensor_shape.dim) <= FEW:
            light.node.add().CopyFrom(node)
        else:  # weights of hundreds of megabytes have a shape: that is enough
            place = light.node.add(op="Placeholder", name=node.name)
            place.attr["dtype"].type = value.dtype
            place.attr["shape"].shape.CopyFrom(value.tensor_shape)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(light, name="")
    results = [tensor for operation in graph.get_operations() for tensor in operation.outputs]
    return {t.name: None if t.shape.rank is None else tuple(t.shape.as_list()) for t in results}


def _shapes(graph: Any) -> dict[str, Shape]:
    return {
        operation.name: tuple(operation.outputs[0].shape.as_list())
        for operation in graph.get_operations()
        if operation.outputs and operation.outputs[0].shape.rank is not None
    }
