"""bfloat16 on the TPU part: what changes, what stays, how far the answers move, and when it is not applied."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.tpu import convert, files, options
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.errors import ConversionError

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(0)
FEEDS = {
    "cnn": {"image": RNG.standard_normal((4, 16, 16, 3)).astype(np.float32)},
    "subclassed": {"ids": RNG.integers(0, 100, (4, 8)).astype(np.int32)},
    "jitted": {"x": RNG.standard_normal((4, 10)).astype(np.float32)},
    "mixed": {"x": RNG.standard_normal((4, 4)).astype(np.float32)},
}
FUNCTION = {"jitted": "jit_compile_functions: true", "mixed": 'function_alias: "half"'}


@pytest.fixture
def run(tpu_model, tmp_path):
    def convert_model(model: str, text: str = "", function: str = ""):
        chosen = function or FUNCTION.get(model, 'function_alias: "tpu_func"')
        given = options.parse(f"io_shape_optimization: DISABLED tpu_functions {{ {chosen} }} {text}")
        samples = {"serving_default": [FEEDS[model]]}
        return convert.convert(
            ConversionJob(tpu_model(model), tmp_path / "out", given, samples, "random")
        ), tmp_path / "out"

    return convert_model


@pytest.mark.parametrize("model", ["cnn", "subclassed", "jitted"])
def test_on_by_default_and_close_to_float32(run, model) -> None:
    report, folder = run(model)
    (function,) = report.bfloat16
    assert sum(function.changed.values()) > 2
    assert function.kept == {}
    # Three decimal digits is what bfloat16 has; zero would mean that nothing changed.
    assert 1e-5 < report.tried[0].agreement.max_rel_error < 2e-2
    library = files.read(folder).meta_graphs[0].graph_def.library
    inner = next(f for f in library.function if f.signature.name == f"{function.name}_tpu")
    heavy = [n for n in inner.node_def if n.op in ("MatMul", "Conv2D", "DepthwiseConv2dNative", "Einsum")]
    assert heavy
    assert {n.attr["T"].type for n in heavy} == {14}
    # Arguments and results stay what callers know.
    assert [a.type for a in inner.signature.output_arg] == [1]


def test_disabled(run) -> None:
    report, _ = run("cnn", "bfloat16_optimization: DISABLED")
    assert report.bfloat16 == ()
    assert report.tried[0].agreement.max_rel_error < 1e-5


def test_the_filterlist_stays_in_float32(run) -> None:
    report, folder = run("cnn", 'bfloat16_optimization_options { filterlist: "Softmax" filterlist: "Mean" }')
    (function,) = report.bfloat16
    assert function.kept == {"Mean": 1, "Softmax": 1}
    library = files.read(folder).meta_graphs[0].graph_def.library
    inner = next(f for f in library.function if f.signature.name == f"{function.name}_tpu")
    assert [n.attr["T"].type for n in inner.node_def if n.op in ("Softmax", "Mean")] == [1, 1]


def test_a_function_that_holds_bfloat16_is_left_alone(run) -> None:
    report, _ = run("mixed")
    assert report.bfloat16 == ()
    assert "it holds bfloat16 already" in report.cautions[0]


def test_unless_the_safety_check_is_skipped(run) -> None:
    report, _ = run("mixed", "bfloat16_optimization_options { skip_safety_checks: true }")
    assert report.bfloat16[0].changed["MatMul"] == 1


def test_demanded_where_it_cannot_be_is_an_error(run) -> None:
    with pytest.raises(ConversionError, match="holds bfloat16 already"):
        run("mixed", "bfloat16_optimization: ENABLED")


def test_a_function_that_writes_state_keeps_its_writes(run) -> None:
    report, folder = run("mixed", function='function_alias: "counting"')
    assert report.bfloat16 == ()
    assert "it writes state (AssignAddVariableOp)" in report.cautions[0]
    library = files.read(folder).meta_graphs[0].graph_def.library
    inner = next(f for f in library.function if f.signature.name == f"{report.placed[0].name}_tpu")
    assert "AssignAddVariableOp" in {n.op for n in inner.node_def}


def test_whole_numbers_become_floats_exactly_before_they_are_rounded() -> None:
    """An int cast straight to bfloat16 is exact only up to 256."""
    import tensorflow as tf
    from tensorflow.python.framework import op_def_registry
    from tfopt_optimizer.tpu import bf16_rules

    with tf.Graph().as_default() as graph:
        number = tf.compat.v1.placeholder(tf.int32, [None], name="n")
        tf.nn.relu(tf.cast(number, tf.float32), name="y")
    definition = graph.as_graph_def()
    rewritten = bf16_rules.rewrite(definition, (), op_def_registry.get)
    kinds = [(n.op, n.attr["SrcT"].type, n.attr["DstT"].type) for n in definition.node if n.op == "Cast"]
    assert kinds == [("Cast", 3, 1), ("Cast", 1, 14)]
    assert (rewritten.changed, rewritten.kept, rewritten.casts) == ({"Relu": 1}, {}, 1)


def test_what_xla_takes_in_float32_alone_is_known() -> None:
    import tensorflow as tf
    from tensorflow.python.framework import kernels, op_def_registry
    from tfopt_optimizer import ops
    from tfopt_optimizer.tpu import bf16_rules

    tf.function(lambda x: x + 1, jit_compile=True).experimental_get_compiler_ir(tf.TensorSpec([1]))()  # registers them

    def takes(op: str, attr: str, kind: int) -> bool:
        found = [k for k in kernels.get_registered_kernels_for_op(op).kernel if k.device_type == "XLA_CPU_JIT"]
        allowed = [[c.allowed_values.list.type for c in k.constraint if c.name == attr] for k in found]
        return any(all(kind in types for types in each) for each in allowed)

    known = [(op, op_def_registry.get(op)) for op in ops.registry().compiled]
    types = [(op, a) for op, d in known if d for a in d.attr if a.type == "type"]
    types = [(op, a.name) for op, a in types if not a.HasField("allowed_values") or 14 in a.allowed_values.list.type]
    float_only = {op for op, name in types if takes(op, name, 1) and not takes(op, name, 14)}
    assert float_only == bf16_rules.UNCOMPILED
