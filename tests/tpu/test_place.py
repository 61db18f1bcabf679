"""The structure of a placed function, beside what tf.compat.v1.tpu.rewrite emits for the same computation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tfopt_optimizer.tpu import convert, files, options
from tfopt_optimizer.tpu.convert import ConversionJob

pytestmark = pytest.mark.tensorflow

ALIAS = 'disable_default_optimizations: true tpu_functions { function_alias: "tpu_func" }'
# What the rewriting tags every node of the computation with, and what it adds around it.
FRAME = (
    "TPUReplicateMetadata",
    "TPUReplicatedInput",
    "TPUReplicatedOutput",
    "TPUCompilationResult",
)


@pytest.fixture(scope="module")
def placed(tpu_model, tmp_path_factory) -> Any:
    """The function that TPUPartitionedCall calls, as our converter wrote it."""
    folder = tmp_path_factory.mktemp("placed") / "out"
    report = convert.convert(ConversionJob(tpu_model("toy"), folder, options.parse(ALIAS), {}, ""))
    library = files.read(folder).meta_graphs[0].graph_def.library
    return next(f for f in library.function if f.signature.name == f"{report.placed[0].name}_tpu")


@pytest.fixture(scope="module")
def rewritten() -> Any:
    """A FunctionDef of TensorFlow's own rewriting of the same computation."""
    import numpy as np
    import tensorflow as tf

    module = tf.Module()
    module.w1, module.b1 = tf.Variable(np.ones((10, 16), np.float32)), tf.Variable(np.ones(16, np.float32))
    module.w2 = tf.Variable(np.ones((16, 4), np.float32))

    def computation(x: Any) -> Any:
        return tf.nn.relu(x @ module.w1 + module.b1) @ module.w2

    @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32, name="x")], autograph=False)
    def run(x: Any) -> Any:
        return tf.compat.v1.tpu.rewrite(computation, [x])

    return run.get_concrete_function().function_def


def attributes(function: Any, op: str) -> list[dict[str, bytes]]:
    """Every attribute that is not a generated name, by its serialized value."""
    named = ("_tpu_replicate", "_tpu_compilation_status", "_output_shapes")
    return [
        {key: value.SerializeToString() for key, value in node.attr.items() if key not in named}
        for node in function.node_def
        if node.op == op
    ]


@pytest.mark.parametrize("op", FRAME)
def test_the_frame_has_tensorflows_attributes(placed: Any, rewritten: Any, op: str) -> None:
    ours, theirs = attributes(placed, op), attributes(rewritten, op)
    # An attribute at its default may be left out: TensorFlow fills it in.
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert {k: v for k, v in other.items() if k in mine} == mine


def test_the_computation_has_the_same_operations(placed: Any, rewritten: Any) -> None:
    bookkeeping = ("NoOp", "Identity")  # the rewriting adds control edges through these
    ours, theirs = (Counter(n.op for n in f.node_def if n.op not in bookkeeping) for f in (placed, rewritten))
    assert ours == theirs


def test_tags_and_devices(placed: Any, rewritten: Any) -> None:
    def tagged(function: Any) -> set[str]:
        return {n.op for n in function.node_def if "_tpu_replicate" in n.attr} - {"NoOp", "Identity"}

    def outputs(function: Any) -> list[tuple[str, str]]:
        return [(n.op, n.device) for n in function.node_def if "_tpu_output_identity" in n.attr]

    assert tagged(placed) == tagged(rewritten)
    assert outputs(placed) == outputs(rewritten) == [("Identity", "/device:TPU_REPLICATED_CORE:0")]
    clusters = {n.attr["_tpu_replicate"].s for n in placed.node_def if "_tpu_replicate" in n.attr}
    (pivot,) = [n for n in placed.node_def if "_pivot_for_cluster" in n.attr]
    assert clusters == {pivot.attr["_pivot_for_cluster"].s}


def test_variables_are_read_by_tagged_nodes_directly(placed: Any) -> None:
    """The runtime mirrors only such resources to the TPU."""
    resources = {a.name for a in placed.signature.input_arg if a.type == 20}
    readers = [n for n in placed.node_def if resources & set(n.input)]
    assert len(readers) == 3
    assert {n.op for n in readers} == {"ReadVariableOp"}
    assert all("_tpu_replicate" in n.attr for n in readers)


def test_every_node_runs_after_the_metadata(placed: Any) -> None:
    roots = [n for n in placed.node_def if "_tpu_replicate" in n.attr and n.op == "ReadVariableOp"]
    assert all("^TPUReplicateMetadata" in n.input for n in roots)
