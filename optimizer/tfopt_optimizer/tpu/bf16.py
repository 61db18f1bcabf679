"""A function's body in bfloat16: inlined by TensorFlow, rewritten by bf16_rules, a function again with the same border.

Arguments and results keep their types. Variables stay in float32 and are cast where they are read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tfopt_protos import messages

from tfopt_optimizer.saved_model import writes_state
from tfopt_optimizer.tpu import bf16_rules
from tfopt_optimizer.tpu.bf16_rules import Rewritten
from tfopt_optimizer.tpu.graph import MUST_COMPILE, ModelGraph


def body(graph: ModelGraph, name: str, keep: Collection[str]) -> tuple[Any, Rewritten]:
    """The FunctionDef (private pool) that computes what `name` does, in bfloat16. The graph is not changed."""
    import tensorflow as tf
    from tensorflow.python.framework import function_def_to_graph, op_def_registry

    original = tf.compat.v1.GraphDef.FromString(_library(graph))
    for function in original.library.function:
        _allow_inlining(function)
    proto = next(f for f in original.library.function if f.signature.name == name)
    definition, names = function_def_to_graph.function_def_to_graph_def(proto)
    definition.library.CopyFrom(original.library)
    results = [names.get(proto.ret[a.name], proto.ret[a.name]) for a in proto.signature.output_arg]
    inlined = _inline(tf, definition, [*results, *(a.name for a in proto.signature.input_arg)])
    # Kinds that only TensorFlow knows would be None here; a body with a function as operation has been inlined.
    rewritten = bf16_rules.rewrite(inlined, keep, op_def_registry.get)
    return _as_function(tf, inlined, proto, results), rewritten


def holds_bfloat16(graph: ModelGraph, name: str) -> bool:
    """Whether the function, or one that it calls, computes in bfloat16 already."""
    return any(bf16_rules.holds(graph.functions[f].node_def) for f in {name} | graph.reachable(name))


def writes(graph: ModelGraph, name: str) -> list[str]:
    """Operations of the function that write state: inlining would lose those that no result needs."""
    bodies = [graph.functions[f].node_def for f in {name} | graph.reachable(name)]
    return sorted({node.op for body in bodies for node in body if writes_state(node.op)})


def _allow_inlining(function: Any) -> None:
    """Calls that are marked for XLA are never inlined; on the TPU everything is compiled anyway."""
    function.attr.pop(MUST_COMPILE, None)
    for node in function.node_def:
        node.attr.pop(MUST_COMPILE, None)


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


def _as_function(tf: Any, definition: Any, proto: Any, results: list[str]) -> Any:
    from tensorflow.python.framework import graph_to_function_def

    with tf.Graph().as_default() as made:
        tf.graph_util.import_graph_def(definition, name="")
        outputs = []
        for tensor, arg in zip(results, proto.signature.output_arg, strict=True):
            found = made.as_graph_element(tensor if ":" in tensor else f"{tensor}:0")
            wanted = tf.dtypes.as_dtype(arg.type)
            outputs.append(tf.identity(found) if found.dtype == wanted else tf.cast(found, wanted))
        inputs = [made.as_graph_element(f"{a.name}:0") for a in proto.signature.input_arg]
        operations = [op for op in made.get_operations() if op.type != "Placeholder"]
        function = graph_to_function_def.graph_to_function_def(made, operations, inputs, outputs)
    return _same_border(function, proto)


def _same_border(function: Any, proto: Any) -> Any:
    """The names, attributes and side effects that callers of the original rely on."""
    made: Any = messages.message("tensorflow.FunctionDef").FromString(function.SerializeToString())
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
