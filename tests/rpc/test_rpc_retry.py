"""What a client that heard UNAVAILABLE is told about asking again, and grpcio's own retries that follow it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import faceplane
import grpc
import numpy as np
import pytest
import rpcclient
from google.rpc import error_details_pb2, status_pb2
from rpcclient import PREDICTION, predict_request
from tfopt_protos import messages
from tfopt_server.errors import Code
from tfopt_server.rpc import status

X = np.float32([1, 2])


def ask(channel: grpc.Channel) -> bytes:
    request = predict_request({"x": X})
    request.model_spec.name = "busy"
    return channel.unary_unary(PREDICTION + "Predict")(request.SerializeToString(), timeout=10)


def test_a_status_says_when_to_ask_again(tmp_path: Path) -> None:
    plane = faceplane.plane()
    plane.models["busy", 1] = faceplane.busy(2.25)
    with rpcclient.face(tmp_path, plane) as (client, _, _), pytest.raises(grpc.RpcError) as raised:
        ask(client.channel)
    trailers = dict(raised.value.trailing_metadata())
    assert (raised.value.code(), trailers["grpc-retry-pushback-ms"]) == (grpc.StatusCode.UNAVAILABLE, "2250")
    found = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (found.code, found.message) == (14, "busy")
    info = error_details_pb2.RetryInfo()
    assert found.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 2250


@pytest.mark.parametrize("seconds", [0.001, 0.999, 1.0, 60.0, 86400.0])
def test_details_of_any_length_are_what_protobuf_reads(seconds: float) -> None:
    text = "é" * 700  # cut, and longer than one byte of length
    headers = dict(status.headers_of(Code.UNAVAILABLE, text, seconds))
    found = status_pb2.Status.FromString(base64.b64decode(headers[b"grpc-status-details-bin"]))
    assert found.message == status.details(text)
    info = error_details_pb2.RetryInfo()
    assert found.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == round(seconds * 1000)


def test_other_refusals_say_nothing_of_it(tmp_path: Path) -> None:
    with rpcclient.face(tmp_path) as (client, _, _), pytest.raises(grpc.RpcError) as raised:
        ask(client.channel)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert not {"grpc-retry-pushback-ms", "grpc-status-details-bin"} & set(dict(raised.value.trailing_metadata()))


def test_grpcs_own_retries_wait_as_told(tmp_path: Path) -> None:
    """Their own backoff, 1 ms here, would come back too early."""
    policy = {
        "maxAttempts": 2, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }  # fmt: skip
    options = [("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]}))]
    plane = faceplane.plane()
    plane.models["busy", 1] = faceplane.busy(0.3)
    with rpcclient.face(tmp_path, plane), grpc.insecure_channel(f"unix:{tmp_path}/s", options) as channel:
        answer = messages.PredictResponse.FromString(ask(channel))
    assert list(answer.outputs["y"].float_val) == [1, 2]
