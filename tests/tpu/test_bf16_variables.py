"""Variables in bfloat16: which, the checkpoint's size, and that every way of loading the model still answers."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.tpu import convert, files, options, trial
from tfopt_optimizer.tpu.convert import ConversionJob

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 4)).astype(np.float32)
TEN = RNG.standard_normal((4, 10)).astype(np.float32)
IMAGE = RNG.standard_normal((4, 16, 16, 3)).astype(np.float32)
WORDS = np.array([list("abcx"), list("ABCD")], object)


@pytest.fixture
def run(tpu_model, tmp_path):
    """run(model, options, signature=feeds) -> the report, the folder written, and the same without TPU operations."""

    def convert_model(model: str, text: str, **samples):
        given = options.parse("io_shape_optimization: DISABLED " + text)
        calls = {k: [v] for k, v in samples.items()}
        report = convert.convert(ConversionJob(tpu_model(model), tmp_path / "out", given, calls, "random"))
        emulated = files.read(tmp_path / "out")
        trial.emulate(emulated.meta_graphs[0], compiled=False)
        files.link(tmp_path / "out", emulated, tmp_path / "emulated")
        return report, tmp_path / "out", tmp_path / "emulated"

    return convert_model


def types(folder) -> list[tuple[str, int]]:
    objects = files.read(folder).meta_graphs[0].object_graph_def
    return [(n.variable.name, n.variable.dtype) for n in objects.nodes if n.HasField("variable")]


def test_the_model_is_smaller_and_every_loader_takes_it(run, tmp_path) -> None:
    import tensorflow as tf

    report, folder, emulated = run("toy", 'tpu_functions { function_alias: "tpu_func" }', raw={"x": TEN})
    found = report.bfloat16_variables
    assert (found.changed, found.kept) == (3, ())
    assert found.bytes_before - found.bytes_after == 2 * (10 * 16 + 16 + 16 * 4)
    assert sorted(kind for _, kind in types(folder)) == [9, 14, 14, 14]  # the counter of steps stays a whole number
    assert 1e-5 < report.tried[0].agreement.max_rel_error < 2e-2
    stored = tf.train.load_checkpoint(str(folder / "variables" / "variables")).get_variable_to_dtype_map()
    assert list(stored.values()).count(tf.bfloat16) == 3
    inner = next(
        f for f in files.read(folder).meta_graphs[0].graph_def.library.function if f.signature.name.endswith("_tpu")
    )
    assert {n.attr["dtype"].type for n in inner.node_def if n.op == "ReadVariableOp"} == {14}

    loaded = tf.saved_model.load(str(emulated))
    wanted = loaded.signatures["raw"](x=TEN)["y"].numpy()
    assert loaded.w1.dtype == tf.bfloat16
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(emulated))
        raw = meta.signature_def["raw"]
        answer = session.run(raw.outputs["y"].name, {raw.inputs["x"].name: TEN})
        np.testing.assert_array_equal(answer, wanted)
        # The graph's own saver writes what its restoring reads.
        session.run(meta.saver_def.save_tensor_name, {meta.saver_def.filename_tensor_name: str(tmp_path / "ck")})
        session.run(meta.saver_def.restore_op_name, {meta.saver_def.filename_tensor_name: str(tmp_path / "ck")})
        np.testing.assert_array_equal(session.run(raw.outputs["y"].name, {raw.inputs["x"].name: TEN}), wanted)
    tf.saved_model.save(loaded, str(tmp_path / "again"), signatures=dict(loaded.signatures))
    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path / "again")).signatures["raw"](x=TEN)["y"], wanted)


def test_what_the_filterlist_reads_stays_in_float32(run) -> None:
    text = 'tpu_functions { function_alias: "tpu_func" } bfloat16_optimization_options { filterlist: "MatMul" }'
    report, folder, _ = run("cnn", text, serving_default={"image": IMAGE})
    assert [why for _, why in report.bfloat16_variables.kept] == ["the TPU reads it in float32"]
    assert {name.split("/")[-1] for name, kind in types(folder) if kind == 1} == {"kernel"}


def test_what_the_host_reads_stays_unless_the_scope_is_all(run) -> None:
    report, folder, _ = run("shared", 'tpu_functions { function_alias: "tpu_func" }', serving_default={"x": X})
    assert report.bfloat16_variables.changed == 1
    ((_, why),) = report.bfloat16_variables.kept
    assert why.startswith("the host reads it (ReadVariableOp ")
    assert sorted(kind for _, kind in types(folder)) == [1, 1, 14]


def test_scope_all_changes_the_host_part_too(run) -> None:
    text = 'tpu_functions { function_alias: "tpu_func" } bfloat16_optimization_options { scope: ALL }'
    report, folder, _ = run("shared", text, serving_default={"x": X})
    assert {(f.on_host, f.changed.get("MatMul")) for f in report.bfloat16} == {(True, 1), (False, 2)}
    # What a signature assigns keeps its type.
    assert report.bfloat16_variables.kept == ()
    assert sorted(kind for _, kind in types(folder)) == [1, 14, 14]
    assert 1e-5 < report.tried[0].agreement.max_rel_error < 3e-2


def test_scope_all_with_strings_and_tables_on_the_host(run) -> None:
    text = 'tpu_functions { function_alias: "dense_func" } bfloat16_optimization_options { scope: ALL }'
    report, _, _ = run("labels", text, serving_default={"words": WORDS})
    assert report.tried[0].agreement.max_rel_error < 2e-2
    assert [f.on_host for f in report.bfloat16] == [False, True]
