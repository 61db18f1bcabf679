"""No function is named: the signatures are cut, and what is dense runs on the TPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tfopt_optimizer.tpu import ahead, convert, files, lowered, options, placed
from tfopt_optimizer.tpu.ahead import Compiled
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.errors import CompilerError, ConversionError
from tfopt_optimizer.tpu.report import lines

pytestmark = pytest.mark.tensorflow

PLAIN = "disable_default_optimizations: true "
WORDS = np.array([list("abcx"), list("ABCD")], object)
X = np.random.default_rng(0).random((4, 4)).astype(np.float32)


@pytest.fixture
def run(tpu_model, tmp_path):
    def convert_model(model: str, text: str = PLAIN, topology: str = "", **feeds):
        samples = {"serving_default": [feeds]} if feeds else {}
        job = ConversionJob(tpu_model(model), tmp_path / "out", options.parse(text), samples, "made up", topology)
        return convert.convert(job), tmp_path / "out"

    return convert_model


def kinds(folder, function: str) -> set[str]:
    library = files.read(folder).meta_graphs[0].graph_def.library
    return {n.op for f in library.function if f.signature.name == function for n in f.node_def}


def test_strings_and_tables_stay_and_the_dense_middle_goes(run) -> None:
    import tensorflow as tf

    report, folder = run("labels", words=WORDS)
    assert [str(p.chosen_by) for p in report.placed] == ['the converter\'s own cut of signature "serving_default"']
    on_tpu = kinds(folder, f"{report.placed[0].name}_tpu")
    assert {"MatMul", "Softmax", "ArgMax"} <= on_tpu
    assert not {"StringLower", "LookupTableFindV2"} & on_tpu
    assert report.cut.reasons["serving_default"]["LookupTableFindV2 reads a table"] == 2
    # The same answers, labels included; the signature keeps its shapes; both ways of loading take it.
    assert report.tried[0].agreement.max_rel_error < 1e-5
    loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
    assert {k: v.shape.as_list() for k, v in loaded.structured_outputs.items()} == {"probs": [None, 3], "label": [None]}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(folder))


def test_a_string_operation_in_the_middle(run) -> None:
    report, folder = run("stringy", x=X)
    assert "StringLength works on string tensors" in report.cut.whole_on_host["lengths"]
    assert "MatMul" in kinds(folder, f"{report.placed[0].name}_tpu")
    assert report.tried[0].agreement.max_rel_error < 1e-5


def test_shapes_from_values_and_assertions_stay_on_the_host(run, tmp_path) -> None:
    import tensorflow as tf

    size = np.array([2, 8], np.int32)
    report, folder = run("guarded", x=X + 1, size=size)
    assert "Reshape takes a shape that is computed from values" in report.cut.reasons["serving_default"]
    assert "MatMul" in set().union(*(kinds(folder, f"{p.name}_tpu") for p in report.placed))
    assert report.tried[0].agreement.max_rel_error < 1e-5
    placed.unplace(folder, tmp_path / "plain")
    signature = tf.saved_model.load(str(tmp_path / "plain")).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="x must be positive"):
        signature(x=-X - 1, size=tf.constant(size))


def test_everything_else_goes_on_as_if_somebody_had_named_it(run) -> None:
    batching = "batch_options { num_batch_threads: 1 max_batch_size: 8 batch_timeout_micros: 100 }"
    report, folder = run("toy", f"io_shape_optimization: DISABLED {batching}")
    parts = {"tfopt_tpu_part_raw_0", "tfopt_tpu_part_serving_default_0"}
    assert {p.name for p in report.placed} == {b.name for b in report.batched} == {f.name for f in report.bfloat16}
    assert {p.name for p in report.placed} == parts
    assert report.bfloat16_variables.changed == 3
    found = placed.read(files.read(folder).meta_graphs[0])
    assert set(found.functions) == {f"{p}_tpu" for p in parts}
    assert set(found.batching) == {"raw", "serving_default"}


def test_a_model_without_work_for_a_tpu_is_refused_with_the_reasons(tpu_model, tmp_path) -> None:
    job = ConversionJob(tpu_model("faq"), tmp_path / "out", options.parse(PLAIN), {}, "")
    with pytest.raises(ConversionError) as error:
        convert.convert(job)
    assert error.value.problems == (
        "signature 'segments': no part of it is for the TPU: compilers have no kernel for SegmentSum",
        "signature 'serving_default': no part of it is for the TPU: too little work for a trip to the device",
    )


def test_what_a_compiler_refuses_goes_to_the_host_and_the_cut_is_made_again(run) -> None:
    report, folder = run("refused", x=X)
    moved = [line.split(" of signature ") for line in report.cut.moved]
    assert {(node.split("/")[-1], why) for node, why in moved} == {
        ("Cumsum", "serving_default: compilers have no kernel for Cumsum"),
        ("Cumsum", "only: compilers have no kernel for Cumsum"),
        ("while", "serving_default: Fill takes a shape that is computed from values"),
    }
    on_tpu = set().union(*(kinds(folder, f"{p.name}_tpu") for p in report.placed))
    assert "MatMul" in on_tpu
    assert not {"Cumsum", "While", "StatelessWhile"} & on_tpu
    assert report.cut.whole_on_host["only"] == "compilers have no kernel for Cumsum"
    assert report.tried[0].agreement.max_rel_error < 1e-5
    assert sum(line.startswith("moved to the host, for a compiler refused it") for line in lines(report)) == 3


def test_a_compiler_that_refuses_ahead_of_time_is_heard_as_well(run, monkeypatch) -> None:
    def compile_all(programs, _):
        for program in programs:
            graph = files.read(Path(program.model)).meta_graphs[0].graph_def.library.function
            body = next(f for f in graph if f.signature.name == program.function)
            bad = [n.name for n in body.node_def if n.op == "Softmax"]
            yield Compiled(program.name, error="no Softmax" if bad else "", about=f'op_name="{bad[0]}"' if bad else "")

    monkeypatch.setattr(ahead, "compile_all", compile_all)
    report, folder = run("labels", topology="v5e:1x1", words=WORDS)
    assert [line.split(" of signature ")[1] for line in report.cut.moved] == [
        "serving_default: the compiler refuses Softmax: no Softmax"
    ]
    assert "MatMul" in kinds(folder, f"{report.placed[0].name}_tpu")
    assert report.tried[0].agreement.max_rel_error < 1e-5


def test_where_nothing_is_left_the_compilers_reasons_are_told(tpu_model, tmp_path, monkeypatch) -> None:
    def refuse(conversion):
        (function,) = conversion.borders
        body = conversion.saved_model.meta_graphs[0].graph_def.library.function
        nodes = [n.name for f in body if f.signature.name == function for n in f.node_def if n.op == "MatMul"]
        raise CompilerError(["not liked"], {function: f"not liked {{{{node body/{nodes[0]}}}}}"})

    monkeypatch.setattr(lowered, "check", refuse)
    job = ConversionJob(tpu_model("jitted"), tmp_path / "out", options.parse(PLAIN), {}, "")
    with pytest.raises(ConversionError) as error:
        convert.convert(job)
    (problem,) = error.value.problems
    told = "signature 'serving_default': no part of it is for the TPU: the compiler refuses MatMul: not liked {{node "
    assert problem.startswith(told)
    assert problem.count("the compiler refuses MatMul") == 2
    assert list(tmp_path.iterdir()) == []
