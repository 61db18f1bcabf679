"""Conversions of real models: what callers find afterwards, what is refused and why, and the command."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from tfopt_optimizer.tpu import convert, files, link, options, report, trial
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_server.__main__ import main

pytestmark = pytest.mark.tensorflow

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 10)).astype(np.float32)
IMAGES = RNG.standard_normal((2, 16, 16, 3)).astype(np.float32)
TEXT = np.array([",".join(map(str, row)) for row in X.tolist()], object)
PLAIN = "disable_default_optimizations: true "
BATCHING = (
    "batch_options { num_batch_threads: 2 max_batch_size: 8 batch_timeout_micros: 50000 allowed_batch_sizes: [2, 4, 8]"
)


def on_tpu(kind: str, *names: str) -> str:
    return PLAIN + " ".join(f'tpu_functions {{ {kind}: "{name}" }}' for name in names)


def job_of(source: Path, to: Path, text: str, samples=()) -> ConversionJob:
    return ConversionJob(source, to, options.parse(text), {k: [v] for k, v in dict(samples).items()}, "made up")


def batch_op(folder: Path):
    library = files.read(folder).meta_graphs[0].graph_def.library
    return next(n for f in library.function for n in f.node_def if n.op == "BatchFunction").attr


@pytest.fixture
def run(tpu_model, tmp_path):
    """run(model, options, **samples per signature) -> report and the folder that was written."""

    def convert_model(model: str, text: str, **samples):
        folder = tmp_path / f"{model}_tpu"
        return convert.convert(job_of(tpu_model(model), folder, text, samples)), folder

    return convert_model


@pytest.fixture
def refused(tpu_model, tmp_path):
    """refused(model, options) -> the problems; nothing may have been written."""

    def problems(model: str, text: str, **samples):
        job = job_of(tpu_model(model), tmp_path / "out", text, samples)
        with pytest.raises(ConversionError) as error:
            convert.convert(job)
        assert list(tmp_path.iterdir()) == []
        return error.value.problems

    return problems


def operations(folder: Path) -> dict[str, list[str]]:
    """Kinds of the nodes of every function."""
    library = files.read(folder).meta_graphs[0].graph_def.library
    return {f.signature.name: [n.op for n in f.node_def] for f in library.function}


def called(folder: Path, caller: str) -> list[str]:
    library = files.read(folder).meta_graphs[0].graph_def.library
    found = next(f for f in library.function if caller in f.signature.name and "tpu" not in f.signature.name)
    return [n.attr["f"].func.name for n in found.node_def if "f" in n.attr]


def test_callers_of_an_alias_go_through_the_tpu(run) -> None:
    import tensorflow as tf

    report, folder = run("toy", on_tpu("function_alias", "tpu_func"), serving_default={"text": TEXT}, raw={"x": X})
    (placed,) = report.placed
    for caller in ("__inference_serve_", "__inference_raw_"):
        assert called(folder, caller) == [f"{placed.name}_callstub"]
    assert operations(folder)[f"{placed.name}_callstub"] == ["TPUOrdinalSelector", "TPUPartitionedCall", "EnsureShape"]
    assert {t.signature for t in report.tried} == {"serving_default", "raw"}
    assert max(t.agreement.max_rel_error for t in report.tried) < 1e-6
    # What users of the file find is what was there: objects, aliases, signatures, shapes; both loaders take it.
    loaded = tf.saved_model.load(str(folder))
    assert [s.structured_outputs["y"].shape.as_list() for s in loaded.signatures.values()] == [[None, 4]] * 2
    assert loaded.w1.shape == (10, 16)
    assert set(files.read(folder).meta_graphs[0].meta_info_def.function_aliases.values()) == {"tpu_func"}
    assert not (folder / "fingerprint.pb").exists()
    concrete = loaded.tpu_func.concrete_functions[0]
    assert "TPUPartitionedCall" in {
        n.op for f in concrete.graph.as_graph_def().library.function for n in f.node_def
    } | {op.type for op in concrete.graph.get_operations()}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(folder))


def test_without_a_tpu_a_call_fails_with_tensorflows_own_words(run) -> None:
    import tensorflow as tf

    _, folder = run("toy", on_tpu("function_alias", "tpu_func"))
    with pytest.raises(tf.errors.OpError, match="No OpKernel was registered to support Op 'TPUOrdinalSelector'"):
        tf.saved_model.load(str(folder)).signatures["raw"](x=X)


def test_an_alias_with_several_traces(run) -> None:
    three, five = {"x": np.ones((2, 3), np.float32)}, {"x": np.ones((2, 5), np.float32)}
    report, folder = run("traces", on_tpu("function_alias", "double"), three=three, five=five)
    assert len(report.placed) >= 2
    assert called(folder, "__inference_run_") in ([f"{p.name}_callstub"] for p in report.placed)
    assert [t.agreement.max_rel_error for t in report.tried] == [0.0, 0.0]


def test_jit_compiled_functions_the_outermost_of_each(run) -> None:
    report, folder = run("jitted", PLAIN + "tpu_functions { jit_compile_functions: true }", serving_default={"x": X})
    (placed,) = report.placed
    assert "outer" in placed.name
    library = files.read(folder).meta_graphs[0].graph_def.library
    stub = f"{placed.name}_callstub"
    callers = [n for f in library.function for n in f.node_def if n.attr["f"].func.name == stub]
    assert len(callers) == 1
    assert "_XlaMustCompile" not in callers[0].attr


def test_a_whole_signature_of_an_exported_keras_model(run) -> None:
    report, _ = run("cnn_exported", on_tpu("signature_name", "serving_default"), serving_default={"image": IMAGES})
    assert report.tried[0].agreement.max_rel_error < 1e-5


@pytest.mark.parametrize("model", ["cnn", "subclassed"])
def test_keras_models_of_the_documentations_recipe_load_in_a_session(run, tpu_model, model) -> None:
    """tf.saved_model.save gives Keras 3 variables two handles, and TensorFlow Serving cannot find the second."""
    import tensorflow as tf

    feeds = {"image": IMAGES} if model == "cnn" else {"ids": RNG.integers(0, 100, (4, 8)).astype(np.int32)}
    report, folder = run(model, on_tpu("function_alias", "tpu_func"), serving_default=feeds)
    assert report.joined_handles > 0
    assert report.tried[0].agreement.max_rel_error < 1e-5
    emulated = files.read(folder)
    trial.emulate(emulated.meta_graphs[0], compiled=False)
    files.link(folder, emulated, folder.with_name("emulated"))
    wanted = tf.saved_model.load(str(tpu_model(model))).signatures["serving_default"](**feeds)["scores"].numpy()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder.with_name("emulated")))
        definition = meta.signature_def["serving_default"]
        fed = {definition.inputs[name].name: value for name, value in feeds.items()}
        found = session.run(definition.outputs["scores"].name, fed)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_function_that_neither_samples_nor_shapes_reach_is_not_called_compiled(run) -> None:
    report, _ = run("unshaped", on_tpu("function_alias", "double", "fixed"))
    (never,) = [c for c in report.cautions if "was not compiled, only its operations were looked at" in c]
    assert "double" in never
    assert "the shape of its argument 'x' is (None, None), which only a request can tell" in never
    report, _ = run("toy", on_tpu("function_alias", "tpu_func"), raw={"x": X})
    assert report.cautions == ()


def test_a_function_that_only_samples_reach_is_compiled_with_these(run) -> None:
    report, _ = run("unshaped", on_tpu("function_alias", "double"), serving_default={"x": X})
    assert report.cautions == ()


def test_a_function_that_no_sample_reaches_is_lowered_with_the_shapes_of_its_signature(refused) -> None:
    """Its static checks alone would pass: there is a kernel, but not for this type."""
    (problem,) = refused("refused", on_tpu("signature_name", "only"))
    assert "Cumsum (node Cumsum)" in problem
    assert problem.endswith(
        "the compiler has no kernel for it: move it out of the TPU function, so that it runs on the CPU before or after"
    )


def test_direct_calls_between_tpu_functions_stay_inside(run) -> None:
    feeds = {"x": np.ones((2, 4), np.float32)}
    report, folder = run("indirect", on_tpu("function_alias", "outer", "between", "inner"), serving_default=feeds)
    outer = next(p.name for p in report.placed if "outer" in p.name)
    library = files.read(folder).meta_graphs[0].graph_def.library
    inner = next(f for f in library.function if f.signature.name == f"{outer}_tpu")
    assert all("callstub" not in n.attr["f"].func.name for n in inner.node_def)


def test_indirect_calls_between_tpu_functions_are_refused(refused) -> None:
    (problem,) = refused("indirect", on_tpu("function_alias", "outer", "inner"))
    assert problem.startswith("indirect function call: the TPU function '__inference_outer_")
    assert "__inference_between_" in problem


def test_strings_and_tables_in_a_tpu_function_are_refused_with_the_remedy(refused) -> None:
    problems = refused("labels", on_tpu("signature_name", "serving_default"))
    text = "\n".join(problems)
    assert "argument 'words' is a string: the TPU has no strings" in text
    assert "is a table: tables live on the CPU" in text
    assert "StringLower has no compiled kernel (node StringLower of" in text
    problems = refused("stringy", on_tpu("function_alias", "tpu_func"))
    assert [p.split(": ")[1].split(" ")[0] for p in problems] == ["AsString", "StringToNumber"]


def test_the_dense_middle_of_a_string_model(run) -> None:
    words = np.array([list("abcx"), list("ABCD")], object)
    report, _ = run("labels", on_tpu("function_alias", "dense_func"), serving_default={"words": words})
    assert report.tried[0].agreement.max_rel_error < 1e-5


def test_names_that_the_model_does_not_have(refused) -> None:
    assert refused("toy", on_tpu("function_alias", "nope")) == (
        'tpu_functions, line 1: the model has no function_alias "nope"; it has: tpu_func; give it one with '
        "tf.saved_model.SaveOptions(function_aliases=...)",
    )
    assert refused("toy", on_tpu("signature_name", "nope")) == (
        'tpu_functions, line 1: the model has no signature_name "nope"; it has: raw, serving_default',
    )


def test_tf1_models_are_refused_with_the_reason(savedmodel, tmp_path) -> None:
    job = job_of(savedmodel("half_plus_two_v1"), tmp_path / "out", on_tpu("signature_name", "x"))
    with pytest.raises(ConversionError, match="this is a TF1 SavedModel"):
        convert.convert(job)


def test_shards_stand_in_the_metadata(run) -> None:
    sharding = " xla_sharding_options { num_cores_per_replica: 2 device_assignment: [0, 0, 0, 0, 0, 0, 0, 1] }"
    report, folder = run("toy", on_tpu("function_alias", "tpu_func") + sharding)
    library = files.read(folder).meta_graphs[0].graph_def.library
    inner = next(f for f in library.function if f.signature.name == f"{report.placed[0].name}_tpu")
    metadata = next(n for n in inner.node_def if n.op == "TPUReplicateMetadata")
    assert metadata.attr["num_cores_per_replica"].i == 2
    assert list(metadata.attr["device_assignment"].list.i) == [0, 0, 0, 0, 0, 0, 0, 1]


# --- batching ---------------------------------------------------------------------------------------------------------


def test_concurrent_requests_share_batches(run, tmp_path) -> None:
    """The batch op is TensorFlow's own: with the TPU operations taken out it batches on this machine."""
    import tensorflow as tf

    report, folder = run("rows", on_tpu("function_alias", "tpu_func") + BATCHING + " }")
    assert [b.name for b in report.batched] == [p.name for p in report.placed]
    emulated = files.read(folder)
    trial.emulate(emulated.meta_graphs[0], compiled=False, batched=True)
    files.link(folder, emulated, tmp_path / "emulated")
    signature = tf.saved_model.load(str(tmp_path / "emulated")).signatures["serving_default"]
    answers: list[dict[str, np.ndarray]] = [{}] * 16
    gate = threading.Barrier(16)

    def ask(i: int) -> None:
        gate.wait()
        answers[i] = {k: v.numpy() for k, v in signature(x=tf.fill([1, 4], float(i))).items()}

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a["y"].item() for a in answers] == [4.0 * i for i in range(16)]
    assert max(a["rows"].item() for a in answers) > 1


def test_a_signature_is_batched_with_its_host_part(run) -> None:
    text = on_tpu("function_alias", "tpu_func") + BATCHING + ' experimental { signature_name: "serving_default" } }'
    report, folder = run("toy", text, serving_default={"text": TEXT})
    (batched,) = report.batched
    assert "signature_wrapper" in batched.name
    assert operations(folder)[f"{batched.name}_with_batch"] == ["BatchFunction", "EnsureShape"]
    graph = files.read(folder).meta_graphs[0].graph_def
    assert f"{batched.name}_with_batch" in {n.attr["f"].func.name for n in graph.node if "f" in n.attr}


def test_batch_ops_that_are_there_get_new_options(run, tmp_path) -> None:
    _, first = run("toy", PLAIN + 'tpu_functions { function_alias: "tpu_func" } ' + BATCHING + " }")
    attr = batch_op(first)
    assert (attr["max_batch_size"].i, list(attr["allowed_batch_sizes"].list.i)) == (8, [2, 4, 8])
    text = PLAIN + "batch_options { max_batch_size: 16 allowed_batch_sizes: [4, 16] }"
    report = convert.convert(job_of(first, tmp_path / "second", text))
    assert report.updated_batch_ops == ("BatchFunction",)
    attr = batch_op(tmp_path / "second")
    assert (attr["max_batch_size"].i, list(attr["allowed_batch_sizes"].list.i)) == (16, [4, 16])
    assert attr["num_batch_threads"].i == 2
    bad = PLAIN + "batch_options { max_batch_size: 4 }"
    with pytest.raises(ConversionError, match="expected at least the largest of allowed_batch_sizes"):
        convert.convert(job_of(tmp_path / "second", tmp_path / "third", bad))


def test_new_batching_needs_its_options(refused) -> None:
    problems = refused("toy", on_tpu("function_alias", "tpu_func") + " batch_options { max_batch_size: 8 }")
    assert [p.split(": ")[1] for p in problems] == ["num_batch_threads is required", "batch_timeout_micros is required"]


def test_functions_whose_shapes_cannot_be_batched(refused) -> None:
    (problem,) = refused("scalars", on_tpu("function_alias", "tpu_func") + BATCHING + " }")
    assert "\"Batching input tensors must have at least one dimension\": input 'scale'" in problem


# --- the report -------------------------------------------------------------------------------------------------------


def test_what_crosses_the_host_link_by_batch_size(run) -> None:
    done, _ = run("toy", on_tpu("function_alias", "tpu_func") + BATCHING + " }")
    crossed = [(c.rows, link.total(c.to_tpu), link.total(c.from_tpu)) for c in done.link]
    assert crossed == [(n, n * 10 * 4, n * 4 * 4) for n in (2, 4, 8)]
    (name,) = {c.function for c in done.link}
    assert f"host link: {name} x 8: 320 B in 1 tensor to the TPU, 128 B in 1 tensor back" in report.lines(done)
    done, _ = run("subclassed", on_tpu("function_alias", "tpu_func"))  # not batched; its result's shape is found too
    assert {(c.rows, link.total(c.to_tpu), link.total(c.from_tpu)) for c in done.link} == {(1, 32, 20), (8, 256, 160)}


def test_errors_by_output(run) -> None:
    words = np.array([list("abcx"), list("ABCD")], object)
    done, _ = run("labels", on_tpu("function_alias", "dense_func"), serving_default={"words": words})
    (tried,) = done.tried
    assert set(tried.outputs) == {"label", "probs"}
    assert tried.outputs["label"].max_rel_error == 0
    assert tried.agreement.max_rel_error == tried.outputs["probs"].max_rel_error
    assert any("; by output: label 0, probs " in line for line in report.lines(done))


def test_a_report_that_cannot_be_read_names_file_and_field(tmp_path) -> None:
    assert report.read(tmp_path) is None
    path = tmp_path / report.FILE
    path.parent.mkdir()
    path.write_text('{"placed": 1}')
    with pytest.raises(report.ReportError, match=r"tpu_conversion.json: missing field 'batched'"):
        report.read(tmp_path)
    path.write_text("{")
    with pytest.raises(report.ReportError, match=r"tpu_conversion.json: not valid JSON"):
        report.read(tmp_path)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_converts_and_reports(tpu_model, tmp_path, capsys) -> None:
    arguments = [
        "convert-tpu",
        f"--input_model_dir={tpu_model('toy')}",
        f"--output_model_dir={tmp_path / 'out'}",
        '--converter_options_string=tpu_functions { function_alias: "tpu_func" } disable_default_optimizations: true',
        f"--report_file={tmp_path / 'report.json'}",
        f"--report_html={tmp_path / 'report.html'}",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "on the TPU: __inference_tpu_func_" in out
    assert "TPU cost: 9" in out
    assert "signature raw: compiled by XLA and compared on 32 samples" in out
    assert "signature serving_default was not compared: the original refuses the samples" in out  # strings made up
    assert (tmp_path / "out" / "saved_model.pb").exists()
    assert json.loads((tmp_path / "report.json").read_text())["placed"][0]["chosen_by"] == 'function_alias "tpu_func"'
    beside = tmp_path / "out" / report.FILE
    assert beside.read_text() == (tmp_path / "report.json").read_text()
    found = report.read(tmp_path / "out")
    assert found is not None
    assert found.to_json() == beside.read_text().rstrip()
    page = (tmp_path / "report.html").read_text()
    assert "Conversion for Cloud TPU" in page
    assert '<bdi class="name">out</bdi>' in page
    assert main(arguments) == 1
    assert "is not empty; remove it or name another" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(tpu_model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    text = '--converter_options_string=disable_default_optimizations: true tpu_functions { function_alias: "tpu_func" }'
    assert main(["convert-tpu", f"--input_model_dir={tpu_model('toy')}", text, "--dry_run", "--report_html=d"]) == 0
    assert '<bdi class="name">toy</bdi>' in (tmp_path / "d").read_text()
    (tmp_path / "d").unlink()
    assert "dry run: nothing was written" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_mistakes_in_the_arguments(capsys) -> None:
    assert main(["convert-tpu", "--input_model_dir=/x", "--converter_option=1"]) == 2
    err = capsys.readouterr().err
    assert "--output_model_dir is required" in err
    assert "did you mean --converter_options_" in err
