"""Which object of a SavedModel (a variable, a table) does an argument of a function stand for.

Names are no help: Keras 3 gives many variables the same one. What connects a node of the graph with an object is the
checkpoint: the restore function assigns a key to a handle, and the checkpoint says which object wrote that key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt_protos import messages

from tfopt_optimizer import restoring
from tfopt_optimizer.graphs import Graph, source
from tfopt_optimizer.tpu.graph import ModelGraph, calls

_HANDLE = "VarHandleOp"
_BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})  # their first input is not the branch's
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VARIABLES = Path("variables", "variables")  # the checkpoint's prefix inside of a SavedModel


def checkpoint_keys(folder: Path) -> dict[str, int]:
    """Checkpoint key -> number of the object in the object graph; empty for a model without variables. TensorFlow."""
    import tensorflow as tf

    prefix = folder / VARIABLES
    if not prefix.with_name("variables.index").exists():
        return {}
    checkpoint: Any = tf.train.load_checkpoint(str(prefix))
    if not checkpoint.has_tensor(_OBJECT_GRAPH):
        return {}  # written by a TF1 saver, as the quantizer's
    text = checkpoint.get_tensor(_OBJECT_GRAPH)
    objects: Any = messages.message("tensorflow.TrackableObjectGraph").FromString(text)
    return {a.checkpoint_key: i for i, node in enumerate(objects.nodes) for a in node.attributes}


def repair_handles(graph: ModelGraph, keys: Mapping[str, int]) -> int:
    """One handle per variable. Returns how many were joined.

    tf.saved_model.save of a Keras 3 model writes two: restoring fills one, the signatures read the other, and a TF1
    session (TensorFlow Serving's way) does not find the variable (keras issues 19274, 20096). A shared name joins them.
    """
    nodes = {node.name: node for node in graph.meta.graph_def.node}
    restored = {keys[key]: handle for handle, key in restoring.read(Graph(graph.meta)).key_of.items() if key in keys}
    joined = 0
    for handle, number in _bound_handles(graph).items():
        first = restored.get(number)
        if first is None or first == handle or first not in nodes or nodes[handle].op != _HANDLE:
            continue
        shared = nodes[first].attr["shared_name"].s or first.encode()
        nodes[first].attr["shared_name"].s = shared
        joined += nodes[handle].attr["shared_name"].s != shared
        nodes[handle].attr["shared_name"].s = shared
    return joined


def handles(graph: ModelGraph, keys: Mapping[str, int]) -> dict[str, int]:
    """Nodes of the main graph -> the object whose handle they are."""
    restored = restoring.read(Graph(graph.meta)).key_of
    found = {handle: keys[key] for handle, key in restored.items() if key in keys}
    return found | _bound_handles(graph)


def arguments(graph: ModelGraph, of_nodes: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """(function, number of the argument) -> object, followed through all calls."""
    found: dict[tuple[str, int], int] = {}
    todo: list[tuple[str, int, int]] = []

    def learn(name: str, index: int, number: int) -> None:
        if (name, index) not in found and name in graph.functions:
            found[name, index] = number
            todo.append((name, index, number))

    for name, concrete in graph.objects.concrete_functions.items():
        if name in graph.functions:
            first = len(graph.functions[name].signature.input_arg) - len(concrete.bound_inputs)
            for i, number in enumerate(concrete.bound_inputs):
                learn(name, first + i, number)
    for node in graph.meta.graph_def.node:
        for i, edge in enumerate(_data(node)):
            if source(edge) in of_nodes:
                _pass_on(node, i, of_nodes[source(edge)], learn)
    while todo:
        name, index, number = todo.pop()
        function = graph.functions[name]
        argument = function.signature.input_arg[index].name
        for node in function.node_def:
            for i, edge in enumerate(_data(node)):
                if edge == argument:
                    _pass_on(node, i, number, learn)
    return found


def _pass_on(node: Any, index: int, number: int, learn: Any) -> None:
    for function in calls(node):
        learn(function.name, index - (node.op in _BRANCHES), number)


def _bound_handles(graph: ModelGraph) -> dict[str, int]:
    """Nodes that the main graph hands to functions as what these captured."""
    found: dict[str, int] = {}
    concrete = graph.objects.concrete_functions
    for node in graph.meta.graph_def.node:
        for function in calls(node):
            if function.name not in concrete:
                continue
            bound = list(concrete[function.name].bound_inputs)
            edges = _data(node)[-len(bound) :] if bound else []
            found.update({source(e): n for e, n in zip(edges, bound, strict=False)})
    return found


def _data(node: Any) -> list[str]:
    return [edge for edge in node.input if not edge.startswith("^")]
