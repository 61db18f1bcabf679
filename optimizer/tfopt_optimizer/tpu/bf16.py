"""A function's body in bfloat16: inlined by TensorFlow, rewritten by bf16_rules, a function again with the same border.

Arguments and results keep their types. Variables are cast where they are read; which of them become bfloat16 themselves
is bf16_variables' question.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tfopt_protos import messages

from tfopt_optimizer.saved_model import writes_state
from tfopt_optimizer.tpu import bf16_rules
from tfopt_optimizer.tpu.bf16_rules import Rewritten
from tfopt_optimizer.tpu.graph import MUST_COMPILE, ModelGraph


def body(
    graph: ModelGraph, name: str, keep: Collection[str], leave: Collection[str] = (), on_cpu: bool = False
) -> tuple[Any, Rewritten]:
    """The FunctionDef (private pool) that computes what `name` does, in bfloat16. The graph is not changed.

    Calls of the functions `leave` stay calls. `on_cpu`: only operations that this CPU has a bfloat16 kernel for change.
    """
    import tensorflow as tf
    from tensorflow.python.framework import function_def_to_graph, op_def_registry

    original = tf.compat.v1.GraphDef.FromString(_library(graph))
    for function in original.library.function:
        _allow_inlining(function)
    for function in original.library.function:
        _forbid_inlining(function, leave)
    proto = next(f for f in original.library.function if f.signature.name == name)
    with tf.Graph().as_default():  # what it calls must be known before it is read
        tf.graph_util.import_graph_def(original, name="")
        definition, names = function_def_to_graph.function_def_to_graph_def(proto)
    definition.library.CopyFrom(original.library)
    results = [names.get(proto.ret[a.name], proto.ret[a.name]) for a in proto.signature.output_arg]
    inlined = _inline(tf, definition, [*results, *(a.name for a in proto.signature.input_arg)])
    # Kinds that only TensorFlow knows would be None here; a body with a function as operation has been inlined.
    takes = _cpu_takes if on_cpu else bf16_rules.anything
    for node in inlined.node:
        node.attr.pop(MUST_COMPILE, None)
    rewritten = bf16_rules.rewrite(inlined, keep, op_def_registry.get, takes)
    return _as_function(tf, inlined, proto, results), rewritten


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


def _allow_inlining(function: Any) -> None:
    """Calls that are marked for XLA are never inlined; on the TPU everything is compiled anyway."""
    function.attr.pop(MUST_COMPILE, None)
    for node in function.node_def:
        node.attr.pop(MUST_COMPILE, None)


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
