"""Puts chosen functions on the TPU: their callers go through TPUPartitionedCall, as TensorFlow's own rewriting does it.

    F           stays as it is
    F_tpu       F's body in a replicated computation: TPUReplicateMetadata, TPUReplicatedInput/Output, every node tagged
    F_callstub  TPUOrdinalSelector + TPUPartitionedCall(F_tpu); every caller that is not on the TPU calls this one

The nodes and attributes are those that tf.compat.v1.tpu.rewrite emits (tests/tpu/test_place.py compares). Variables are
passed as plain arguments: the runtime mirrors to the TPU only resources that a tagged node consumes directly
(tensorflow/core/tpu/kernels/tpu_functional_ops.cc).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfopt_optimizer.tpu import nodes, parcels
from tfopt_optimizer.tpu.batch_rules import Shape
from tfopt_optimizer.tpu.graph import DT_RESOURCE, MUST_COMPILE, ModelGraph
from tfopt_optimizer.tpu.io_shapes import Border
from tfopt_optimizer.tpu.options import Sharding

INNER, STUB = "_tpu", "_callstub"
METADATA, CALL = "TPUReplicateMetadata", "TPUPartitionedCall"
OUTPUT_DEVICE = "/device:TPU_REPLICATED_CORE:0"
BODY = "body/"


def place(
    graph: ModelGraph,
    bodies: Mapping[str, Any],
    shapes: Mapping[str, Sequence[Shape]],
    sharding: Sharding,
    borders: Mapping[str, Border] | None = None,
) -> None:
    """Changes the graph. `bodies`: what runs on the TPU for each function, the function itself or a rewritten one.

    `shapes`: the static shapes of each function's results, in order. `borders`: functions whose tensors cross to the
    TPU in another form.
    """
    names, given = list(bodies), {name: b for name, b in (borders or {}).items() if b.changed}
    inner = {}
    for name, body in bodies.items():
        sent = parcels.inside(body, given[name]) if name in given else body
        inner[name] = graph.add(computation(sent, name + INNER, sharding))
    # Calls between functions on the TPU stay direct: both bodies are compiled into one program.
    leave = {*names, *(f.signature.name for f in inner.values())}
    for name in names:
        stub = graph.add(call_stub(graph.functions[name], inner[name].signature, shapes[name], given.get(name)))
        leave.add(stub.signature.name)
    for name in names:
        graph.redirect(name, name + STUB, leave)


def call_stub(original: Any, inner: Any, shapes: Sequence[Shape], border: Border | None = None) -> Any:
    """The function that callers of `original` call; `inner` is the signature of the computation."""
    name = original.signature.name
    made = nodes.shell(original, name + STUB)
    nodes.add(made, "TPUOrdinalSelector", "TPUOrdinalSelector")
    sent = parcels.sent(made, border) if border else [a.name for a in original.signature.input_arg]
    nodes.add(
        made,
        CALL,
        CALL,
        [*sent, "TPUOrdinalSelector:device_ordinals:0"],
        f=nodes.function(inner.name),
        Tin=nodes.types(a.type for a in inner.input_arg),
        Tout=nodes.types(a.type for a in inner.output_arg),
        autotuner_thresh=nodes.value(0),
    )
    results = [f"{CALL}:output:{i}" for i in range(len(inner.output_arg))]
    nodes.finish(made, CALL, parcels.received(made, border, results) if border else results, shapes)
    return made


def computation(original: Any, name: str, sharding: Sharding) -> Any:
    """The function that TPUPartitionedCall calls."""
    made = nodes.shell(original, name)
    for key, attr in original.attr.items():
        if key != MUST_COMPILE:
            made.attr[key].CopyFrom(attr)
    cluster = "cluster_" + re.sub(r"[^A-Za-z0-9_.]", "_", name)
    tag = nodes.value(cluster)
    _metadata(made, cluster, tag, sharding)
    inputs = _inputs(made, original, tag)
    _body(made, original, tag, inputs)
    _outputs(made, original, tag, inputs)
    nodes.add(made, "TPUCompilationResult", "TPUCompilationResult", [f"^{METADATA}"], _tpu_compilation_status=tag)
    return made


def _metadata(made: Any, cluster: str, tag: Any, sharding: Sharding) -> None:
    nodes.add(made, "NoOp", f"{cluster}/pivot", _pivot_for_cluster=tag)
    nodes.add(
        made,
        METADATA,
        METADATA,
        [f"^{cluster}/pivot"],
        num_replicas=nodes.value(1),
        num_cores_per_replica=nodes.value(sharding.num_cores_per_replica),
        topology=nodes.value(sharding.topology),
        use_tpu=nodes.value(True),
        device_assignment=nodes.ints(sharding.device_assignment),
        computation_shape=nodes.ints(),
        host_compute_core=nodes.ints(),
        padding_map=nodes.ints(),
        step_marker_location=nodes.value("STEP_MARK_AT_ENTRY"),
        allow_soft_placement=nodes.value(False),
        use_spmd_for_xla_partitioning=nodes.value(True),
        tpu_compile_options_proto=nodes.value(""),
        _tpu_replicate=tag,
        _has_manual_control_dependencies=nodes.value(True),
    )


def _inputs(made: Any, original: Any, tag: Any) -> dict[str, str]:
    """From the name of each argument that is no resource to its tensor inside the computation."""
    tensors: dict[str, str] = {}
    for arg in original.signature.input_arg:
        if arg.type == DT_RESOURCE:
            continue
        i, kind = len(tensors), nodes.dtype(arg.type)
        given = {"is_mirrored_variable": nodes.value(False), "index": nodes.value(-1), "is_packed": nodes.value(False)}
        nodes.add(made, "TPUReplicatedInput", f"Input_{i}", [arg.name], N=nodes.value(1), T=kind, **given)
        name = f"ReplicatedInput_{i}"
        tagged = {"_tpu_input_identity": nodes.value(True), "_tpu_replicate": tag}
        nodes.add(made, "Identity", name, [f"Input_{i}:output:0", f"^{METADATA}"], T=kind, **tagged)
        tensors[arg.name] = f"{name}:output:0"
    return tensors


def _body(made: Any, original: Any, tag: Any, inputs: Mapping[str, str]) -> None:
    arguments = {a.name for a in original.signature.input_arg}
    names = {n.name for n in original.node_def}
    for node in original.node_def:
        copied = made.node_def.add()
        copied.CopyFrom(node)
        copied.name = BODY + node.name
        copied.device = ""
        copied.attr["_tpu_replicate"].CopyFrom(tag)
        starts = all(i.startswith("^") or i in arguments for i in node.input)
        del copied.input[:]
        copied.input.extend(_inside(i, names, inputs) for i in node.input)
        if starts:  # every node must run after the metadata, as the rewriting makes it
            copied.input.append(f"^{METADATA}")
        _rename_colocation(copied, names)


def _inside(tensor: str, names: set[str], inputs: Mapping[str, str]) -> str:
    if tensor in inputs:
        return inputs[tensor]
    if tensor.startswith("^"):
        return f"^{BODY}{tensor[1:]}" if tensor[1:] in names else tensor
    return BODY + tensor if tensor.split(":", maxsplit=1)[0] in names else tensor


def _rename_colocation(node: Any, names: set[str]) -> None:
    """A colocation hint that names a node of the old body would name none in the new one."""
    if "_class" not in node.attr:
        return
    hints = node.attr["_class"].list.s
    for i, hint in enumerate(hints):
        prefix, _, other = hint.partition(b"@")
        if prefix == b"loc:" and other.decode() in names:
            hints[i] = b"loc:@" + BODY.encode() + other


def _outputs(made: Any, original: Any, tag: Any, inputs: Mapping[str, str]) -> None:
    names = {n.name for n in original.node_def}
    for i, arg in enumerate(original.signature.output_arg):
        kind = nodes.dtype(arg.type)
        tagged = {"_tpu_output_identity": nodes.value(True), "_tpu_replicate": tag}
        source = _inside(original.ret[arg.name], names, inputs)
        nodes.add(made, "Identity", f"OutputIdentity_{i}", [source], T=kind, **tagged).device = OUTPUT_DEVICE
        nodes.add(
            made,
            "TPUReplicatedOutput",
            f"Output_{i}",
            [f"OutputIdentity_{i}:output:0"],
            num_replicas=nodes.value(1),
            T=kind,
        )
        nodes.add(made, "Identity", f"OutputShard_{i}", [f"Output_{i}:outputs:0"], T=kind)
        made.ret[arg.name] = f"OutputShard_{i}:output:0"
    for i, node in enumerate(dict.fromkeys(original.control_ret.values())):
        made.signature.control_output.append(f"control_{i}")
        made.control_ret[f"control_{i}"] = BODY + node
