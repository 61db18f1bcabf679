"""The private message classes: all there, equal to the packages' own, and at peace with TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tfopt_protos import messages

ROOT = Path(__file__).parents[2]

SPOKEN = [
    "tensorflow.serving.PredictRequest",
    "tensorflow.serving.PredictResponse",
    "tensorflow.serving.ClassificationRequest",
    "tensorflow.serving.RegressionResponse",
    "tensorflow.serving.MultiInferenceRequest",
    "tensorflow.serving.Input",
    "tensorflow.serving.ModelSpec",
    "tensorflow.serving.GetModelMetadataResponse",
    "tensorflow.serving.SignatureDefMap",
    "tensorflow.serving.GetModelStatusResponse",
    "tensorflow.serving.ReloadConfigRequest",
    "tensorflow.serving.PredictionLog",
    "tensorflow.serving.ModelServerConfig",
    "tensorflow.serving.PlatformConfigMap",
    "tensorflow.serving.BatchingParameters",
    "tensorflow.serving.SessionBundleConfig",
    "tensorflow.serving.SavedModelBundleSourceAdapterConfig",
    "tensorflow.serving.MonitoringConfig",
    "tensorflow.serving.SSLConfig",
    "tensorflow.serving.ThreadPoolFactoryConfig",
    "tensorflow.SavedModel",
    "tensorflow.MetaGraphDef",
    "tensorflow.SignatureDef",
    "tensorflow.TensorProto",
    "tensorflow.Example",
    "tensorflow.SequenceExample",
    "tensorflow.ConfigProto",
    "tensorflow.BundleHeaderProto",
    "grpc.health.v1.HealthCheckRequest",
    "grpc.health.v1.HealthCheckResponse",
    "google.protobuf.Any",
]


@pytest.mark.parametrize("name", SPOKEN)
def test_every_message_that_tfopt_speaks_is_there(name: str) -> None:
    assert messages.message(name).DESCRIPTOR.full_name == name
    assert messages.message(name) is messages.message(name)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(KeyError, match=r"tensorflow\.Nothing"):
        messages.message("tensorflow.Nothing")
    with pytest.raises(AttributeError, match="Nothing"):
        messages.Nothing  # noqa: B018


def test_short_names_are_attributes() -> None:
    assert messages.PredictRequest is messages.message("tensorflow.serving.PredictRequest")
    assert messages.TensorProto is messages.message("tensorflow.TensorProto")


def test_services_are_in_the_pool() -> None:
    service = messages.pool().FindServiceByName("tensorflow.serving.PredictionService")
    assert [method.name for method in service.methods] == [
        "Classify",
        "Regress",
        "Predict",
        "MultiInference",
        "GetModelMetadata",
    ]
    assert messages.pool().FindServiceByName("grpc.health.v1.Health").FindMethodByName("Watch").server_streaming


def test_a_batching_file_parses_as_in_tensorflow_serving() -> None:
    text = """
        max_batch_size { value: 32 }  # comments are allowed
        batch_timeout_micros { value: 1000 }
        allowed_batch_sizes: 8
        allowed_batch_sizes: [16, 32]
        enable_large_batch_splitting { value: true }
        max_execution_batch_size { value: 32 }
    """
    parsed = messages.from_text("tensorflow.serving.BatchingParameters", text)
    assert parsed.max_batch_size.value == 32
    assert list(parsed.allowed_batch_sizes) == [8, 16, 32]
    assert parsed.HasField("enable_large_batch_splitting")
    assert not parsed.HasField("num_batch_threads")
    # Field numbers count where the message travels as bytes: 1 and 8 by the wire.
    assert messages.from_text(
        "tensorflow.serving.BatchingParameters", "max_batch_size{value:5} enable_large_batch_splitting{value:true}"
    ).SerializeToString() == bytes([0x0A, 2, 8, 5, 0x42, 2, 8, 1])


def test_a_platform_file_with_expanded_any_fields_parses() -> None:
    text = """platform_configs { key: "tensorflow" value { source_adapter_config {
      [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
        legacy_config { batching_parameters { num_batch_threads { value: 3 } } saved_model_tags: "serve"
                        session_config { intra_op_parallelism_threads: 2 } }
      } } } }"""
    parsed = messages.from_text("tensorflow.serving.PlatformConfigMap", text)
    inner = messages.SavedModelBundleSourceAdapterConfig()
    assert parsed.platform_configs["tensorflow"].source_adapter_config.Unpack(inner)
    assert inner.legacy_config.batching_parameters.num_batch_threads.value == 3
    assert inner.legacy_config.session_config.intra_op_parallelism_threads == 2
    assert messages.from_text("tensorflow.serving.PlatformConfigMap", messages.to_text(parsed)) == parsed


def test_text_errors_name_the_line() -> None:
    with pytest.raises(text_format.ParseError, match=r"^2:3 .*no field named \"max_batch\""):
        messages.from_text("tensorflow.serving.BatchingParameters", "num_batch_threads { value: 1 }\n  max_batch: 3")


def test_threads_that_start_together_get_one_class() -> None:
    code = """
import threading
from tfopt_protos import messages
gate, found = threading.Barrier(8), []
def ask():
    gate.wait()
    found.append(messages.message("tensorflow.SavedModel"))
threads = [threading.Thread(target=ask) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(found) == 8 and len(set(map(id, found))) == 1, found
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_tensorflow_is_imported() -> None:
    code = """
import sys
from tfopt_protos import messages, tensors
import numpy
tensors.to_numpy(tensors.from_numpy(numpy.ones((2, 3), "f")))
assert not {"tensorflow", "ml_dtypes", "grpc", "jax"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


USE_TENSORFLOW = """
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
theirs = predict_pb2.PredictRequest()
theirs.model_spec.name = "m"
theirs.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0]]))
"""
USE_PRIVATE = """
from tfopt_protos import messages
import numpy
from tfopt_protos import tensors
ours = messages.PredictRequest()
ours.model_spec.name = "m"
tensors.fill(ours.inputs["x"], numpy.array([[1.0, 2.0]], "float32"), content=True)
"""
SAME = """
assert theirs.SerializeToString() == ours.SerializeToString()
assert type(theirs) is not type(ours)
assert tf.make_ndarray(predict_pb2.PredictRequest.FromString(ours.SerializeToString()).inputs["x"]).tolist() == [[1, 2]]
"""


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "order", [USE_TENSORFLOW + USE_PRIVATE, pytest.param(USE_PRIVATE + USE_TENSORFLOW, marks=pytest.mark.slow)]
)
def test_both_live_in_one_process_in_either_order(order: str) -> None:
    done = subprocess.run([sys.executable, "-c", order + SAME], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.tensorflow
def test_the_committed_set_is_what_the_installed_packages_give(tmp_path: Path) -> None:
    fresh = tmp_path / "descriptors.binpb"
    command = [sys.executable, str(ROOT / "protos/extract.py"), "--out", str(fresh)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    committed = ROOT / "protos/tfopt_protos/descriptors.binpb"
    assert _files(fresh) == _files(committed), "run `make protos`"


def _files(path: Path) -> dict[str, str]:
    from google.protobuf import descriptor_pb2, json_format

    found = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    return {file.name: json.dumps(json_format.MessageToDict(file), sort_keys=True) for file in found.file}
