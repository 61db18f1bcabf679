"""No function is named: the signatures are cut, and what is dense runs on the TPU."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.tpu import convert, files, options, placed
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.errors import ConversionError

pytestmark = pytest.mark.tensorflow

PLAIN = "disable_default_optimizations: true "
WORDS = np.array([list("abcx"), list("ABCD")], object)
X = np.random.default_rng(0).random((4, 4)).astype(np.float32)


@pytest.fixture
def run(tpu_model, tmp_path):
    def convert_model(model: str, text: str = PLAIN, **feeds):
        samples = {"serving_default": [feeds]} if feeds else {}
        job = ConversionJob(tpu_model(model), tmp_path / "out", options.parse(text), samples, "made up")
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
