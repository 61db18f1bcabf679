"""The id that a client gave its request stands in every line of the log that the request costs, whatever thread or task
writes it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from rpcclient import PREDICTION, predict_request
from tfopt_protos import messages

from .servers import Server, free_port, running, until

pytestmark = pytest.mark.process
SERVER = Path(__file__).parents[1] / "client" / "plane_server.py"
PREDICT = "/v1/models/bad:predict"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    port, rpc = free_port(), free_port()
    command = [sys.executable, str(SERVER), f"--port={rpc}", f"--rest_api_port={port}"]
    with running(command, port, tmp_path_factory.mktemp("server") / "log") as server:
        server.wait_for_health(200, 60)
        yield server, rpc


def named(server: Server, name: str) -> dict[str, Any]:
    """The one line that names the request."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [line for line in server.lines() if line.get("request_id") == name]
        return bool(found)

    until(there, 10, lambda: f"a line about {name}: {server.text()}")
    (line,) = found
    return line


LONG = [0.0] * 20_000  # a body that is read in a thread


@pytest.mark.parametrize(
    ("name", "body", "headers"),
    [
        ("now", {"signature_name": "now", "instances": [1]}, {}),
        ("later", {"signature_name": "later", "instances": [1]}, {}),
        ("long", {"signature_name": "now", "instances": LONG}, {}),
        ("stream", {"signature_name": "now", "instances": [1]}, {"accept": "text/event-stream"}),
    ],
)
def test_over_rest(served: tuple[Server, int], name: str, body: dict[str, Any], headers: dict[str, str]) -> None:
    server, _ = served
    status, answer = server.get(PREDICT, "POST", json.dumps(body).encode(), {**headers, "x-request-id": f"rest-{name}"})
    assert (status, b"incident" in answer) == (500, True)
    assert named(server, f"rest-{name}")["stack_trace"].endswith("RuntimeError: a secret of the server")


@pytest.mark.parametrize("signature", ["now", "later", "long"])
def test_over_grpc(served: tuple[Server, int], signature: str) -> None:
    server, rpc = served
    request = predict_request({"x": np.float32(LONG if signature == "long" else [1])}, signature.replace("long", "now"))
    request.model_spec.name = "bad"
    metadata = (("x-request-id", f"grpc-{signature}"),)
    with grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(PREDICTION + "Predict")(request.SerializeToString(), timeout=10, metadata=metadata)
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "a secret of the server" in named(server, f"grpc-{signature}")["stack_trace"]


def test_over_a_stream_of_grpc(served: tuple[Server, int]) -> None:
    server, rpc = served
    request = messages.message("inference.ModelInferRequest")(model_name="bad")
    request.parameters["signature_name"].string_param = "now"
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    with grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel:
        talk = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        answers = talk(iter([request.SerializeToString()]), timeout=10, metadata=(("x-request-id", "talk"),))
        assert b"incident" in next(iter(answers))
    assert named(server, "talk")["severity"] == "ERROR"


def test_a_line_about_another_request_has_no_name(served: tuple[Server, int]) -> None:
    """Neither one without an id, nor one whose id is too long, on connections and threads that had others."""
    server, _ = served
    before = sum("request_id" not in line for line in server.lines())
    body = json.dumps({"signature_name": "now", "instances": [1]}).encode()
    for headers in ({}, {"x-request-id": "x" * 257}):
        assert server.get(PREDICT, "POST", body, headers)[0] == 500
    until(lambda: sum("request_id" not in line for line in server.lines()) >= before + 2, 10, server.text)
