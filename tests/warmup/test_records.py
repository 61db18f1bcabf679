"""Warmup records: what TensorFlow Serving's messages become, and each of its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfopt_protos import messages, tensors
from tfopt_warmup import records, tfrecord
from tfopt_warmup.records import Record, Run, WarmupError


def plain(found: list[Record]) -> list[Any]:
    """Records as comparable values: (kind, model, [(signature, {input: list}, outputs)])."""
    return [
        (
            r.kind,
            r.model_name,
            [(run.signature, {k: v.tolist() for k, v in run.feeds.items()}, run.outputs) for run in r.runs],
        )
        for r in found
    ]


def example(**features: float) -> Any:
    proto = messages.Example()
    for name, value in sorted(features.items()):
        proto.features.feature[name].float_list.value.append(value)
    return proto


def features(data: bytes) -> dict[str, list[float]]:
    parsed = messages.Example.FromString(data)
    return {name: list(feature.float_list.value) for name, feature in parsed.features.feature.items()}


def write(path: Path, *logs: Any) -> Path:
    records.write(path, logs)
    return path


def failure(path: Path) -> tuple[int, str, str]:
    """How many records came before the error, its code and its text (the path as PATH)."""
    found: list[Record] = []
    with pytest.raises(WarmupError) as caught:
        found.extend(records.read(path))
    return len(found), caught.value.code, caught.value.message.replace(str(path), "PATH")


def test_the_file_lies_in_the_models_extra_assets(tmp_path: Path) -> None:
    assert records.path_in(tmp_path) == tmp_path / "assets.extra" / "tf_serving_warmup_requests"


def test_predict_logs_come_back_as_arrays(tmp_path: Path) -> None:
    feeds = {
        "x": np.array([[1.5, 2.5]], np.float32),
        "ids": np.array([7], np.int64),
        "name": np.array([b"a\x00", "ä".encode()], object),
        "flag": np.array(True),
    }
    path = write(records.path_in(tmp_path), records.predict_log("m", "sig", feeds), records.predict_log("", "", {}))
    first, second = records.read(path)
    assert (first.kind, first.model_name, first.runs[0].signature) == ("predict", "m", "sig")
    got = first.runs[0].feeds
    assert {k: (v.dtype, v.shape, v.tolist()) for k, v in got.items()} == {
        k: (v.dtype, v.shape, v.tolist()) for k, v in feeds.items()
    }
    assert plain([second]) == [("predict", "", [("serving_default", {}, ())])]


def test_an_output_filter_is_kept(tmp_path: Path) -> None:
    log = records.predict_log("m", "", {"x": np.float32(1)})
    log.predict_log.request.output_filter.extend(["b", "a"])
    (record,) = records.read(write(tmp_path / "f", log))
    assert record.runs == (Run("serving_default", {"x": record.runs[0].feeds["x"]}, ("b", "a")),)


def test_classify_and_regress_logs_become_serialized_examples(tmp_path: Path) -> None:
    classify, regress = messages.PredictionLog(), messages.PredictionLog()
    classify.classify_log.request.input.example_list.examples.extend([example(x=1), example(x=2, y=3)])
    regress.regress_log.request.model_spec.signature_name = "r"
    regress.regress_log.request.model_spec.name = "m"
    regress.regress_log.request.input.example_list.examples.add().CopyFrom(example(x=4))
    first, second = records.read(write(tmp_path / "f", classify, regress))
    assert (first.kind, second.kind) == ("classify", "regress")
    assert [run.signature for run in first.runs + second.runs] == ["serving_default", "r"]
    assert [features(e) for e in first.runs[0].feeds["inputs"]] == [{"x": [1]}, {"x": [2], "y": [3]}]
    assert [features(e) for e in second.runs[0].feeds["inputs"]] == [{"x": [4]}]
    assert first.runs[0].feeds["inputs"].dtype == object


def test_a_context_is_merged_into_each_example_and_the_examples_own_feature_wins(tmp_path: Path) -> None:
    log = messages.PredictionLog()
    with_context = log.classify_log.request.input.example_list_with_context
    with_context.context.CopyFrom(example(x=9, shared=5))
    with_context.examples.extend([example(x=1), example(y=2)])
    (record,) = records.read(write(tmp_path / "f", log))
    assert [features(e) for e in record.runs[0].feeds["inputs"]] == [
        {"x": [1], "shared": [5]},
        {"x": [9], "shared": [5], "y": [2]},
    ]


def multi_inference(*tasks: tuple[str, str, str], examples: int = 1) -> Any:
    log = messages.PredictionLog()
    for model, signature, method in tasks:
        task = log.multi_inference_log.request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    log.multi_inference_log.request.input.example_list.examples.extend([example(x=1)] * examples)
    return log


def test_multi_inference_logs_have_a_run_per_task(tmp_path: Path) -> None:
    (record,) = records.read(write(tmp_path / "f", multi_inference(("m", "", "classify"), ("m", "r", "regress"))))
    assert (record.kind, record.model_name) == ("multi_inference", "m")
    assert [run.signature for run in record.runs] == ["serving_default", "r"]
    assert all([features(e) for e in run.feeds["inputs"]] == [{"x": [1]}] for run in record.runs)


@pytest.mark.parametrize(
    ("log", "code", "text"),
    [
        (
            multi_inference(("", "a", "classify")),
            "INVALID_ARGUMENT",
            "Found ModelSpec with an empty model name.",
        ),
        (
            multi_inference(("m", "a", "classify"), ("n", "b", "classify")),
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            multi_inference(("m", "", "classify"), ("m", "serving_default", "regress")),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: serving_default",
        ),
        (
            multi_inference(("m", "a", "predict")),
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (multi_inference(("m", "a", "classify"), examples=0), "INVALID_ARGUMENT", "Input is empty."),
    ],
)
def test_multi_inference_errors(tmp_path: Path, log: Any, code: str, text: str) -> None:
    assert failure(write(tmp_path / "f", log)) == (0, code, text)


def test_a_record_without_a_request_is_given_out_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "f", messages.PredictionLog(), records.predict_log("m", "", {}))
    assert [(record.kind, len(record.runs)) for record in records.read(path)] == [("none", 0), ("predict", 1)]


def test_empty_inputs_fail(tmp_path: Path) -> None:
    log = messages.PredictionLog()
    log.classify_log.request.model_spec.name = "m"
    assert failure(write(tmp_path / "f", log)) == (0, "INVALID_ARGUMENT", "Input is empty.")


@pytest.mark.parametrize(("kind", "number"), [("session_run_log", 5), ("predict_streamed_log", 7)])
def test_other_logs_are_unimplemented(tmp_path: Path, kind: str, number: int) -> None:
    log = messages.PredictionLog()
    getattr(log, kind).SetInParent()
    path = write(tmp_path / "f", records.predict_log("m", "", {}), log)
    assert failure(path) == (1, "UNIMPLEMENTED", f"Unsupported log_type for warmup: {number}")


def test_a_thousand_records_are_fine_and_the_next_one_fails_after_it_was_given_out(tmp_path: Path) -> None:
    log = records.predict_log("m", "", {"x": np.zeros((1, 2), np.float32)})
    assert len(list(records.read(write(tmp_path / "f", *[log] * 1000)))) == 1000
    text = "Number of warmup records exceeds the maximum (1000) at PATH"
    assert failure(write(tmp_path / "f", *[log] * 1001)) == (1001, "INVALID_ARGUMENT", text)
    # Records without a request count as well.
    path = write(tmp_path / "f", *[log] * 1000, messages.PredictionLog())
    assert failure(path) == (1001, "INVALID_ARGUMENT", text)


def test_a_record_that_is_no_log_fails(tmp_path: Path) -> None:
    tfrecord.write(tmp_path / "f", [b"\xff\xffjunk"])
    text = "Failed to parse warmup record: \\xff\\xffjunk from PATH"
    assert failure(tmp_path / "f") == (0, "INVALID_ARGUMENT", text)


def test_a_bad_tensor_names_its_input(tmp_path: Path) -> None:
    log = records.predict_log("m", "", {"x": np.zeros(3, np.float32)})
    log.predict_log.request.inputs["x"].tensor_content = b"123"
    text = "tensor parsing error: x: tensor_content has 3 bytes, but shape [3] of float takes 12"
    assert failure(write(tmp_path / "f", log)) == (0, "INVALID_ARGUMENT", text)


def test_files_that_are_no_records_are_data_loss(tmp_path: Path) -> None:
    hint = "Please verify your warmup data is in TFRecord format."
    path = tmp_path / "f"
    path.write_text("these are no records at all")
    text = f"PATH: corrupted record at 0 (Is this even a TFRecord file?). {hint}"
    assert failure(path) == (0, "DATA_LOSS", text)
    write(path, *[records.predict_log("m", "", {})] * 2)
    path.write_bytes(path.read_bytes()[:-3])
    assert failure(path)[:2] == (1, "DATA_LOSS")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert failure(tmp_path / "absent") == (0, "NOT_FOUND", "PATH: there is no such file")
    assert failure(tmp_path) == (0, "UNKNOWN", "PATH: Is a directory")
    assert str(WarmupError("NOT_FOUND", "text")) == "NOT_FOUND: text"


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert list(records.read(write(tmp_path / "f"))) == []


@pytest.mark.tensorflow
def test_a_file_written_with_tensorflow_and_its_serving_api_reads_the_same(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    from tensorflow_serving.apis import (
        classification_pb2,
        inference_pb2,
        predict_pb2,
        prediction_log_pb2,
        regression_pb2,
    )

    predict = predict_pb2.PredictRequest()
    predict.model_spec.name, predict.model_spec.signature_name = "m", "sig"
    predict.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0]]))
    predict.inputs["s"].CopyFrom(tf.make_tensor_proto(["a", "b"]))
    tf_example = tf.train.Example()
    tf_example.features.feature["x"].float_list.value.append(3.0)
    classify = classification_pb2.ClassificationRequest()
    regress = regression_pb2.RegressionRequest()
    multi = inference_pb2.MultiInferenceRequest()
    for request in (classify, regress, multi):
        request.input.example_list.examples.add().CopyFrom(tf_example)
    task = multi.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name = "m"
    log = prediction_log_pb2.PredictionLog
    logs = [
        log(predict_log=prediction_log_pb2.PredictLog(request=predict)),
        log(classify_log=prediction_log_pb2.ClassifyLog(request=classify)),
        log(regress_log=prediction_log_pb2.RegressLog(request=regress)),
        log(multi_inference_log=prediction_log_pb2.MultiInferenceLog(request=multi)),
    ]
    path = tmp_path / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in logs:
            writer.write(one.SerializeToString())
    inputs = {"inputs": [tf_example.SerializeToString()]}
    expected = [
        ("predict", "m", [("sig", {"x": [[1.0, 2.0]], "s": [b"a", b"b"]}, ())]),
        ("classify", "", [("serving_default", inputs, ())]),
        ("regress", "", [("serving_default", inputs, ())]),
        ("multi_inference", "m", [("serving_default", inputs, ())]),
    ]
    assert plain(list(records.read(path))) == expected
    # And back: their messages through our writer, ours through their parser.
    records.write(tmp_path / "again", logs)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    ours = records.predict_log("m", "sig", {"x": np.array([[1, 2]], np.float32), "s": np.array([b"a", b"b"], object)})
    parsed = log.FromString(ours.SerializeToString()).predict_log.request
    assert {k: tf.make_ndarray(v).tolist() for k, v in parsed.inputs.items()} == {"x": [[1, 2]], "s": [b"a", b"b"]}
    assert tensors.to_numpy(ours.predict_log.request.inputs["x"]).tolist() == [[1, 2]]
