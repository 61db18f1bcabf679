"""Models trained with older TensorFlow, back to TF1's graphs, in the image as it ships (tests/old_models)."""

from __future__ import annotations

import importlib
import shutil

import grpc
import pytest
from tfopt_protos import messages, tensors

from .conftest import free_port, readable, volume

pytestmark = pytest.mark.image
old = importlib.import_module("old_models.test_old_models")


def test_every_old_model_is_served_with_its_own_answers(start, runtime, tmp_path):
    if runtime:
        pytest.skip("plans for these are made by the image with TensorFlow")
    configs = []
    for model in old.MODELS:
        name = f"{model.name}-{model.parent.name}"
        shutil.copytree(model / "1", tmp_path / name / "1")
        configs.append(f'config {{ name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" }}')
    (tmp_path / "models.config").write_text(f"model_config_list {{ {' '.join(configs)} }}")
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        parent.chmod(0o755)
    readable(tmp_path)
    port, rpc_port = free_port(), free_port()
    words = (f"--rest_api_port={port}", f"--port={rpc_port}", "--optimize_budget_s=2")
    container = start(*words, "--model_config_file=/models/models.config", options=(volume(tmp_path),), port=port)
    container.wait_until_ready(600)
    with grpc.insecure_channel(f"127.0.0.1:{rpc_port}") as channel:
        for model in old.MODELS:
            for key, inputs, outputs in old.calls(model):
                spec = {"name": f"{model.name}-{model.parent.name}", "signature_name": key}
                request = messages.PredictRequest(model_spec=spec)
                for name, array in inputs.items():
                    tensors.fill(request.inputs[name], array, False)
                predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
                answer = messages.PredictResponse.FromString(predict(request.SerializeToString(), timeout=60))
                old.same({name: tensors.to_numpy(proto) for name, proto in answer.outputs.items()}, outputs)
