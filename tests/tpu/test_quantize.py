"""8 bits before everything else: the three methods, where ranges come from, and what goes on afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.tpu import convert, files, options, quantize
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.errors import ConversionError

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

X = np.random.default_rng(0).standard_normal((8, 10)).astype(np.float32)
PLACE = 'disable_default_optimizations: true tpu_functions { function_alias: "tpu_func" } '


def quantization(method: str, more: str = 'signature_keys: "raw"') -> str:
    return (
        f"external_feature_configs {{ quantization_options {{ quantization_method {{ preset_method: {method} }} "
        f"op_set: XLA min_num_elements_for_weights: 1 {more} }} }}"
    )


@pytest.fixture
def run(tpu_model, tmp_path):
    def convert_model(text: str, samples=None):
        calls = {"raw": [{"x": X}]} if samples is None else samples
        job = ConversionJob(tpu_model("toy"), tmp_path / "out", options.parse(PLACE + text), calls, "warmup records")
        return convert.convert(job), tmp_path / "out"

    return convert_model


def inner(folder):
    library = files.read(folder).meta_graphs[0].graph_def.library
    found = {f.signature.name: f for f in library.function}
    todo, seen = [n for n in found if n.endswith("_tpu")], set()
    while todo:
        name = todo.pop()
        for node in found[name].node_def:
            seen.add(node.op)
            todo += [a.func.name for a in node.attr.values() if a.func.name in found]
    return seen


def test_static_range_is_calibrated_on_the_warmup_records_then_placed_and_batched(run) -> None:
    batching = "batch_options { num_batch_threads: 1 max_batch_size: 8 batch_timeout_micros: 100 } "
    report, folder = run(batching + quantization("METHOD_STATIC_RANGE_INT8"))
    assert (report.quantized.method, report.quantized.calibrated_on) == ("METHOD_STATIC_RANGE_INT8", "warmup records")
    assert "XlaDotV2" in inner(folder)
    assert [b.name for b in report.batched] == [p.name for p in report.placed]
    (tried,) = report.tried
    assert tried.signature == "raw"
    assert 1e-3 < tried.agreement.max_rel_error < 0.3


def test_representative_datasets_are_tfrecord_files(run, tmp_path) -> None:
    import tensorflow as tf

    path = tmp_path / "calibration" / "raw.tfrecord"
    path.parent.mkdir()
    saver = tf.quantization.experimental.TfRecordRepresentativeDatasetSaver({"raw": str(path)})
    saver.save({"raw": [{"x": tf.constant(X)}]})
    named = f'signature_keys: "raw" representative_datasets {{ key: "raw" value {{ tfrecord_file_path: "{path}" }} }}'
    report, _ = run(quantization("METHOD_STATIC_RANGE_INT8", named))
    assert report.quantized.calibrated_on == str(path)
    assert report.tried[0].agreement.max_rel_error < 0.3


@pytest.mark.parametrize("method", ["METHOD_DYNAMIC_RANGE_INT8", "METHOD_STATIC_RANGE_WEIGHT_ONLY_INT8"])
def test_what_needs_no_ranges_needs_no_records(run, method) -> None:
    report, _ = run(quantization(method))
    assert report.quantized.calibrated_on == ""
    assert 1e-4 < report.tried[0].agreement.max_rel_error < 0.1


@pytest.mark.parametrize(
    ("more", "samples", "words"),
    [
        ('signature_keys: "nope"', None, "signature_keys: the model has no signature 'nope'; it has: raw, serving_def"),
        ('signature_keys: "raw"', {}, "static range needs samples of signature 'raw'"),
        (
            'representative_datasets { key: "raw" value { tfrecord_file_path: "/none" } }',
            None,
            "there is no file /none",
        ),
    ],
)
def test_mistakes(run, more, samples, words) -> None:
    with pytest.raises(ConversionError, match=words):
        run(quantization("METHOD_STATIC_RANGE_INT8", more), samples)


def test_a_quantizer_that_dies_is_told_with_its_last_words(run, tmp_path, monkeypatch) -> None:
    script = (
        "import os, sys\nsys.stderr.write('noise\\nLLVM ERROR: no result type\\n')\nsys.stderr.flush()\nos.abort()\n"
    )
    (tmp_path / "dies.py").write_text(script)
    monkeypatch.setattr(quantize, "CHILD", "dies")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ConversionError, match="quantizer died with exit code -6: LLVM ERROR: no result type"):
        run(quantization("METHOD_DYNAMIC_RANGE_INT8"))
    assert not (tmp_path / "out").exists()
