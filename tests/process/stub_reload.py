"""HandleReloadConfigRequest through tensorflow-serving-api's own stubs: python stub_reload.py ADDRESS CONFIG_TEXT.

Prints the code and the text as JSON. A process of its own, because those stubs import TensorFlow.
"""

from __future__ import annotations

import json
import sys

import grpc
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

if __name__ == "__main__":
    request = model_management_pb2.ReloadConfigRequest(metric_names=["/tensorflow/cc/saved_model/load_attempt_count"])
    text_format.Parse(sys.argv[2], request.config)
    with grpc.insecure_channel(sys.argv[1]) as channel:
        try:
            answer = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=60)
        except grpc.RpcError as error:
            print(json.dumps([error.code().name, error.details()]))
        else:
            rises = [metric.int64_value_increase for metric in answer.metric]
            print(json.dumps(["OK", answer.status.error_message, answer.status.error_code, rises]))
