"""A function of the model as one flat graph, with all calls inlined by TensorFlow, and back.

What no result depends on is lost on the way: callers look for writes and other effects before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from tfopt_protos import messages

from tfopt_optimizer.tpu.graph import MUST_COMPILE, ModelGraph

# The mark that makes inlining take loops and branches apart, into Switch and Merge, which nothing here could cut.
_LOWER = "_lower_using_switch_merge"


@dataclasses.dataclass(frozen=True)
class Flat:
    """TensorFlow's messages: `definition` (GraphDef) with a Placeholder per argument, of its name; `proto` is the
    FunctionDef that it was. `results`: its tensors there, in order."""

    definition: Any
    proto: Any
    results: Sequence[str]


def flat(graph: ModelGraph, name: str, leave: Collection[str] = (), effects: bool = False) -> Flat:
    """The graph is not changed. Calls of the functions `leave`, and those that control flow makes, stay. `effects`: the
    results wait for what the function does beyond them (assertions), as its callers do."""
    import tensorflow as tf
    from tensorflow.python.framework import function_def_to_graph

    original = tf.compat.v1.GraphDef.FromString(_library(graph))
    for one in original.library.function:
        _allow_inlining(one)
    for one in original.library.function:
        _forbid_inlining(one, leave)
    proto = next(f for f in original.library.function if f.signature.name == name)
    with tf.Graph().as_default():  # what it calls must be known before it is read
        tf.graph_util.import_graph_def(original, name="")
        definition, names = function_def_to_graph.function_def_to_graph_def(proto)
    definition.library.CopyFrom(original.library)
    results = [names.get(proto.ret[a.name], proto.ret[a.name]) for a in proto.signature.output_arg]
    if effects and proto.control_ret:
        results = _waiting(definition, proto, results)
    inlined = _inline(tf, definition, [*results, *(a.name for a in proto.signature.input_arg)])
    for node in inlined.node:
        node.attr.pop(MUST_COMPILE, None)
    return Flat(inlined, proto, tuple(results))


def _waiting(definition: Any, proto: Any, results: Sequence[str]) -> list[str]:
    done = definition.node.add(op="NoOp", name="tfopt_effects")
    done.input.extend(f"^{node}" for node in sorted(set(proto.control_ret.values())))
    waiting = []
    for i, (tensor, arg) in enumerate(zip(results, proto.signature.output_arg, strict=True)):
        node = definition.node.add(op="Identity", name=f"tfopt_result_{i}")
        node.input.extend([tensor, f"^{done.name}"])
        node.attr["T"].type = arg.type
        waiting.append(node.name)
    return waiting


def function(flat: Flat) -> Any:
    """The FunctionDef (private pool) of a flat graph, with the border of the function that it was: results are cast to
    the types that they had."""
    import tensorflow as tf
    from tensorflow.python.framework import graph_to_function_def

    definition, proto, results = flat.definition, flat.proto, flat.results

    with tf.Graph().as_default() as made:
        tf.graph_util.import_graph_def(definition, name="")
        outputs = []
        for tensor, arg in zip(results, proto.signature.output_arg, strict=True):
            found = made.as_graph_element(tensor if ":" in tensor else f"{tensor}:0")
            wanted = tf.dtypes.as_dtype(arg.type)
            outputs.append(tf.identity(found) if found.dtype == wanted else tf.cast(found, wanted))
        inputs = [made.as_graph_element(f"{a.name}:0") for a in proto.signature.input_arg]
        operations = [op for op in made.get_operations() if op.type != "Placeholder"]
        flattened = graph_to_function_def.graph_to_function_def(made, operations, inputs, outputs)
    return _same_border(flattened, proto)


def _allow_inlining(function: Any) -> None:
    """Calls that are marked for XLA are never inlined; on the TPU everything is compiled anyway."""
    function.attr.pop(MUST_COMPILE, None)
    for node in function.node_def:
        node.attr.pop(MUST_COMPILE, None)
        node.attr.pop(_LOWER, None)


def _forbid_inlining(function: Any, leave: Collection[str]) -> None:
    """The mark that _allow_inlining takes away; "_noinline" would not do, aggressive inlining goes over it."""
    for node in function.node_def:
        if any(value.func.name in leave for value in node.attr.values()):
            node.attr[MUST_COMPILE].b = True


def _library(graph: ModelGraph) -> bytes:
    definition = type(graph.meta.graph_def)()
    definition.library.CopyFrom(graph.library)
    definition.versions.CopyFrom(graph.meta.graph_def.versions)
    return bytes(definition.SerializeToString())


def _inline(tf: Any, definition: Any, fetched: list[str]) -> Any:
    from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(definition, name="")
        meta = tf.compat.v1.train.export_meta_graph(graph_def=definition, graph=imported)
    # What is not fetched is pruned, arguments that nothing uses too.
    meta.collection_def["train_op"].node_list.value.extend(dict.fromkeys(f.split(":")[0] for f in fetched))
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1
    rewriting.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    rewriting.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    rewriting.optimizers.append("function")
    inlined = tf_optimizer.OptimizeGraph(config, meta)
    for node in inlined.node:
        node.attr.pop("_class", None)
        node.device = ""
    return inlined


def _same_border(flattened: Any, proto: Any) -> Any:
    """The names, attributes and side effects that callers of the original rely on."""
    made: Any = messages.message("tensorflow.FunctionDef").FromString(flattened.SerializeToString())
    original: Any = messages.message("tensorflow.FunctionDef").FromString(proto.SerializeToString())
    renamed = {
        new.name: (old.name, made.ret[new.name])
        for new, old in zip(made.signature.output_arg, original.signature.output_arg, strict=True)
    }
    arguments = {
        new.name: old.name for new, old in zip(made.signature.input_arg, original.signature.input_arg, strict=True)
    }
    for node in made.node_def:
        edges = [arguments.get(edge, edge) for edge in node.input]
        del node.input[:]
        node.input.extend(edges)
    made.signature.CopyFrom(original.signature)
    made.ret.clear()
    for name, edge in renamed.values():
        made.ret[name] = arguments.get(edge, edge)
    # A function without writes (see `writes`) has no side effect that its callers would wait for.
    del made.signature.control_output[:]
    made.control_ret.clear()
    for key, attr in original.attr.items():
        made.attr[key].CopyFrom(attr)
    for index, attrs in original.arg_attr.items():
        made.arg_attr[index].CopyFrom(attrs)
    for index, unique in original.resource_arg_unique_id.items():
        made.resource_arg_unique_id[index] = unique
    return made
