"""What the documentation of the original answers questions about: here it comes at conversion, or is no question.

docs/tpu.md has the whole list, with a test for each.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from tfopt_optimizer.tpu import advice, ahead, constants, convert, options, static_check
from tfopt_optimizer.tpu.ahead import Compiled
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
    assert "refusals.py:" in problem
    assert ", in PartitionedCall -> while) depends on the values of argument 'size'" in problem


@pytest.mark.tensorflow
def test_an_operation_without_a_kernel_with_its_source_line(problems) -> None:
    problem = problems("segment")
    assert "SegmentSum has no compiled kernel (node SegmentSum, " in problem
    assert "refusals.py:" in problem
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


BATCHING = "batch_options { num_batch_threads: 1 max_batch_size: 8 batch_timeout_micros: 100 allowed_batch_sizes: [8] }"


@pytest.fixture
def unfit(tpu_model, tmp_path):
    """unfit(alias, more options, **samples) -> the report of a conversion of the model of this name."""

    def convert_alias(alias: str, more: str = "", topology: str = "", **samples):
        text = f'{PLAIN} tpu_functions {{ function_alias: "{alias}" }} {more}'
        calls = {key: [feeds] for key, feeds in samples.items()}
        job = ConversionJob(tpu_model("unfit"), tmp_path / "out", options.parse(text), calls, "made up", topology)
        return convert.convert(job)

    return convert_alias


UNBATCHABLE = {
    "fixed": "the first dimension of the inputs is fixed to 1; a batch needs an unknown one",
    "unequal": "Batching input tensors supplied in a given op invocation must have equal 0th-dimension size",
    "total": "Batched output tensor has 0 dimensions",
    "columns": "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input",
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("alias", UNBATCHABLE)
def test_what_cannot_be_batched_is_refused_with_tensorflows_words(unfit, alias) -> None:
    with pytest.raises(ConversionError, match=UNBATCHABLE[alias].replace("'", ".")):
        unfit(alias, BATCHING)
    assert unfit(alias).placed  # the cure: not to batch it


@pytest.mark.tensorflow
def test_requests_of_different_lengths_are_a_caution(unfit) -> None:
    cautions = unfit("tokens", BATCHING).cautions
    assert any('cannot share a batch ("Dimensions of inputs should match")' in c for c in cautions)


@pytest.mark.tensorflow
@pytest.mark.parametrize(("alias", "op"), [("sparse", "SparseTensorDenseMatMul"), ("ragged", "RaggedTensorToTensor")])
def test_sparse_and_ragged_tensors_are_refused_and_dense_ones_are_the_cure(unfit, alias, op) -> None:
    with pytest.raises(ConversionError) as error:
        unfit(alias)
    told = next(p for p in error.value.problems if op in p)
    assert told.endswith(
        "pass dense tensors to the TPU function: tf.sparse.to_dense, or RaggedTensor.to_tensor, before it"
    )
    feeds = {"indices": np.array([[0, 1], [7, 3]]), "v": np.array([1.0, 2.0], np.float32)}
    assert unfit("dense", serving_default=feeds).tried[0].agreement.max_rel_error < 1e-5


@pytest.mark.tensorflow
def test_a_result_whose_size_depends_on_values_is_a_caution_and_padding_the_cure(unfit, tmp_path) -> None:
    told = "its result's shape depends on values: pad to a static size (size= or max_output_size)"
    assert sum(told in c for c in unfit("positive").cautions) == 2  # the operation, and the result of the function
    shutil.rmtree(tmp_path / "out")
    report = unfit("padded", masked={"x": np.array([[1, 2, 3, 4], [-1, 0, 0, 0]], np.float32)})
    assert report.cautions == ()
    assert report.tried[0].agreement.max_rel_error < 1e-5


@pytest.mark.tensorflow
def test_what_does_not_fit_is_told_and_no_operation_is_blamed(tpu_model, tmp_path, monkeypatch) -> None:
    def full(programs, topology):
        return [Compiled(p.name, error="RESOURCE_EXHAUSTED: E1000", about='op_name="body/MatMul"') for p in programs]

    monkeypatch.setattr(ahead, "compile_all", full)
    job = ConversionJob(tpu_model("toy"), tmp_path / "out", options.parse(PLAIN), {}, "", topology="v5e:1x1")
    with pytest.raises(ConversionError) as error:
        convert.convert(job)
    told = "it does not fit into the TPU's memory; allow smaller batch sizes only, convert it to bfloat16 or place less"
    assert all(told in problem for problem in error.value.problems)
