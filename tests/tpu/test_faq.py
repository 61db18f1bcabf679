"""Errors that the documentation of the original answers questions about: here they come at conversion."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.tpu import advice, constants, convert, options, static_check
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_protos import messages

PLAIN = "disable_default_optimizations: true "


@pytest.fixture
def problems(tpu_model, tmp_path):
    def refuse(alias: str) -> str:
        samples = {"serving_default": [{"x": np.ones((2, 4), np.float32), "size": np.array([4, 2], np.int32)}]}
        text = PLAIN + f'tpu_functions {{ function_alias: "{alias}" }}'
        job = ConversionJob(tpu_model("faq"), tmp_path / "out", options.parse(text), samples, "made up")
        with pytest.raises(ConversionError) as error:
            convert.convert(job)
        assert list(tmp_path.iterdir()) == []
        (problem,) = error.value.problems
        return problem

    return refuse


@pytest.mark.tensorflow
def test_a_shape_that_is_no_compile_time_constant(problems) -> None:
    """XLA on a CPU would look at the argument's value and hide it."""
    problem = problems("tpu_func")
    assert "input 1 of Reshape (node Reshape, " in problem
    assert "depends on the values of argument 'size': the value must be known when the function is compiled" in problem


@pytest.mark.tensorflow
def test_also_in_a_loop_of_a_function_that_is_called(problems) -> None:
    problem = problems("nested")
    assert "input 1 of Reshape (node while/Reshape, " in problem
    assert "tpu_builders.py:" in problem
    assert ", in PartitionedCall -> while) depends on the values of argument 'size'" in problem


@pytest.mark.tensorflow
def test_an_operation_without_a_kernel_with_its_source_line(problems) -> None:
    problem = problems("segment")
    assert "SegmentSum has no compiled kernel (node SegmentSum, " in problem
    assert "tpu_builders.py:" in problem
    assert problem.endswith("move it out of the TPU function, so that it runs on the CPU before or after")


def test_xlas_own_list_of_unsupported_operations() -> None:
    error = (
        "Detected unsupported operations when trying to compile graph f[] on XLA_CPU_JIT: SegmentSum (No registered "
        "'SegmentSum' OpKernel for XLA_CPU_JIT devices compatible with node {{node a/SegmentSum}}){{node a/SegmentSum}}"
    )
    explained = advice.explain(error)
    assert explained.startswith("SegmentSum (node a/SegmentSum): the compiler has no kernel for it: move it out of")


def test_other_errors_in_one_line() -> None:
    error = "Graph execution error:\n\nDetected at node f/x\nMatrix size-incompatible {{node f/MatMul}}\n [[x]]"
    assert advice.explain(error) == "Matrix size-incompatible {{node f/MatMul}}"


@pytest.mark.parametrize("op", sorted(constants.CONSTANT_INPUTS))
@pytest.mark.parametrize("through", ["", "Shape"])
def test_every_operation_that_wants_its_shape_at_compile_time(op: str, through: str) -> None:
    """A shape that is itself read off a tensor's static shape is known; the values of an argument are not."""
    meta = messages.message("tensorflow.MetaGraphDef")()
    function = meta.graph_def.library.function.add()
    function.signature.name = "f"
    function.signature.input_arg.add(name="x", type=1)
    function.signature.input_arg.add(name="size", type=3)
    given = function.node_def.add(op=through or "Identity", name="Given")
    given.input.append("size")
    wanted = constants.CONSTANT_INPUTS[op]
    count = 3 if wanted == (-1,) else max(wanted) + 1
    asked = [i % count for i in wanted]
    edges = ["Given:output:0" if i in asked else "x" for i in range(count)]
    node = function.node_def.add(op=op, name="Node")
    node.input.extend([*edges, "^Given"])
    function.ret["y"] = "Node:output:0"
    graph = ModelGraph(meta)
    found = [static_check.told(graph, "f", demand, {}) for demand in static_check.demands(graph, ["f"]).get("f", [])]
    told = f"of {op} (node Node of 'f') depends on the values of argument 'size'"
    expected = [] if through else [f"TPU function 'f': input {i} {told}" for i in asked]
    assert [p.split(": the value")[0] for p in found] == expected
