"""The Open Inference Protocol over gRPC, in bytes: forms of tensors, refusals, the stream, the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faceplane
import grpc
import numpy as np
import pytest
import rpcclient
from rpcclient import Client, Refusal
from tfopt_protos import messages
from tfopt_server.errors import Code
from tfopt_server.oip import datatypes

SERVICE = "/inference.GRPCInferenceService/"


def message(name: str, /, **fields: Any) -> Any:
    return messages.message(f"inference.{name}")(**fields)


def request(*tensors: dict[str, Any], raw: list[bytes] | None = None, signature: str = "", **fields: Any) -> Any:
    made = message("ModelInferRequest", model_name="m", inputs=tensors, raw_input_contents=raw or [], **fields)
    if signature:
        made.parameters["signature_name"].string_param = signature
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Any]]:
    with rpcclient.face(tmp_path_factory.mktemp("oip")) as (client, plane, _):
        yield client, plane


@pytest.fixture
def client(served: tuple[Client, Any]) -> Client:
    return served[0]


def call(client: Client, name: str, sent: Any, answer: str = "") -> Any:
    found = client.call(SERVICE + name, sent)
    return found if isinstance(found, Refusal) else message(answer or f"{name}Response").FromString(found)


X = {"name": "x", "datatype": "FP32", "shape": [2]}
TYPED = X | {"contents": {"fp32_contents": [1, 2.5]}}


def test_raw_tensors_are_answered_raw(client: Client) -> None:
    sent = request(X, raw=[np.float32([1, 2.5]).tobytes()], id="seven")
    answer = call(client, "ModelInfer", sent)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "2", "seven")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [("y", "FP32", [2])]
    assert list(answer.raw_output_contents) == [np.float32([2.5, 3.25]).tobytes()]


def test_typed_tensors_are_answered_typed(client: Client) -> None:
    answer = call(client, "ModelInfer", request(TYPED))
    assert list(answer.outputs[0].contents.fp32_contents) == [2.5, 3.25]
    assert not answer.raw_output_contents


def test_outputs_that_no_typed_field_carries_are_raw(client: Client) -> None:
    answer = call(client, "ModelInfer", request(TYPED, signature="to_half"))
    assert answer.outputs[0].datatype == "FP16"
    assert list(answer.raw_output_contents) == [np.float16([1, 2.5]).tobytes()]


@pytest.mark.parametrize("dtype", [d for d in faceplane.DTYPES if d not in {"complex64", "half"}])
def test_every_datatype_echoes_both_ways(client: Client, dtype: str) -> None:
    datatype = datatypes.name(dtype)
    array = datatypes.objects([b"a", b"\xff"]) if dtype == "string" else np.array([0, 1], datatypes.numpy_of(datatype))
    tensor = {"name": "x", "datatype": datatype, "shape": [2]}
    raw = call(client, "ModelInfer", request(tensor, raw=[datatypes.raw(array)], signature=f"echo_{dtype}"))
    assert list(raw.raw_output_contents) == [datatypes.raw(array)]
    field = raw.outputs[0].datatype
    fields = {"BOOL": "bool", "INT64": "int64", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes"}
    name = fields.get(field, "uint" if field.startswith("U") else "int") + "_contents"
    sent = request(tensor | {"contents": {name: array.tolist()}}, signature=f"echo_{dtype}")
    assert list(getattr(call(client, "ModelInfer", sent).outputs[0].contents, name)) == array.tolist()


BAD = [
    (request(X), Code.INVALID_ARGUMENT, "input 'x': expected 2 values in fp32_contents for shape [2], received 0"),
    (request(X, raw=[b"1234"]), Code.INVALID_ARGUMENT, "expected 8 bytes for shape [2] of FP32, received 4"),
    (request(X, raw=[b"", b""]), Code.INVALID_ARGUMENT, "raw_input_contents: expected 1, one for each input"),
    (request(TYPED, raw=[b"12345678"]), Code.INVALID_ARGUMENT, "contents or raw_input_contents, received both"),
    (request(TYPED | {"datatype": "INT8"}), Code.INVALID_ARGUMENT, "expected datatype FP32, received 'INT8'"),
    (request(TYPED | {"shape": [-1]}), Code.INVALID_ARGUMENT, "expected a shape of integers >= 0"),
    (request(TYPED, TYPED), Code.INVALID_ARGUMENT, "expected each name once"),
    (request(), Code.INVALID_ARGUMENT, "missing: x"),
    (request(TYPED, signature="no"), Code.INVALID_ARGUMENT, "parameters.signature_name: expected one of"),
    (request(TYPED, model_version="7"), Code.NOT_FOUND, "Servable not found for request: Specific(m, 7)"),
    (request(TYPED, model_version="none"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: none"),
    (request(TYPED, parameters={"sequence_id": {"int64_param": 3}}), Code.UNIMPLEMENTED, "sequences is not served"),
    (request(TYPED, signature="refuses"), Code.INVALID_ARGUMENT, "Matrix size-incompatible"),
    (request(TYPED, signature="later_refuses"), Code.INVALID_ARGUMENT, "Matrix size-incompatible"),
    (request(TYPED, signature="fails"), Code.INTERNAL, "Internal error (incident"),
    (b"\xff", Code.INVALID_ARGUMENT, "The request is no inference.ModelInferRequest"),
    (
        request({"name": "x", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}},
                signature="echo_int8"),
        Code.INVALID_ARGUMENT, "expected integers from -128 to 127 for INT8, received 300",
    ),
    (
        request({"name": "x", "datatype": "FP16", "shape": [1], "contents": {"fp32_contents": [1]}},
                signature="echo_half"),
        Code.INVALID_ARGUMENT, "FP16 needs raw_input_contents",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "code", "text"), BAD)
def test_what_is_wrong_is_named(served: tuple[Client, Any], sent: Any, code: Code, text: str) -> None:
    client, plane = served
    found = client.call(SERVICE + "ModelInfer", sent)
    assert isinstance(found, Refusal), found
    assert (found.code, text in found.text) == (code, True), found
    assert plane.held == 0


def test_the_server_and_its_models(client: Client) -> None:
    assert call(client, "ServerLive", b"").live
    assert call(client, "ServerReady", b"").ready
    assert call(client, "ServerMetadata", b"").name == "tfopt"
    assert call(client, "ModelReady", message("ModelReadyRequest", name="m", version="1")).ready
    assert not call(client, "ModelReady", message("ModelReadyRequest", name="m", version="9")).ready
    described = call(client, "ModelMetadata", message("ModelMetadataRequest", name="m"))
    assert (list(described.versions), described.inputs[0].datatype) == (["1", "2"], "FP32")
    assert list(described.outputs[0].shape) == [-1]
    refused = client.call(SERVICE + "ModelMetadata", message("ModelMetadataRequest", name="no"))
    assert isinstance(refused, Refusal)
    assert refused.code is Code.NOT_FOUND


def test_the_repository(client: Client, tmp_path: Path) -> None:
    listed = call(client, "RepositoryIndex", message("RepositoryIndexRequest", ready=True))
    assert [(m.name, m.version, m.state) for m in listed.models] == [("m", "2", "READY"), ("m", "1", "READY")]
    unload = message("RepositoryModelUnloadRequest", model_name="m")
    refused = client.call(SERVICE + "RepositoryModelUnload", unload)
    assert isinstance(refused, Refusal)
    assert refused.code is Code.FAILED_PRECONDITION
    with rpcclient.face(tmp_path, None, "--enable_model_repository") as (allowed, plane, _):
        assert allowed.call(SERVICE + "RepositoryModelUnload", unload) == b""
        load = message("RepositoryModelLoadRequest", model_name="n")
        load.parameters["base_path"].string_param = "/models/n"
        assert allowed.call(SERVICE + "RepositoryModelLoad", load) == b""
        assert plane.configs == [("unload", "m"), ("load", "n", "/models/n")]


def test_a_stream_answers_in_order_and_outlives_refusals(served: tuple[Client, Any]) -> None:
    client, plane = served
    sent = [
        request(TYPED, id="1"), request(TYPED, id="2", signature="refuses"),
        request({"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [0.05]}}, id="3",
                signature="slow"),
        request(TYPED, id="4"),
    ]  # fmt: skip
    call = client.channel.stream_stream(SERVICE + "ModelStreamInfer")
    answers = call(iter([each.SerializeToString() for each in sent]), timeout=20)
    found = [message("ModelStreamInferResponse").FromString(data) for data in answers]
    assert [each.infer_response.id for each in found] == ["1", "2", "3", "4"]
    assert [bool(each.error_message) for each in found] == [False, True, False, False]
    assert plane.held == 0


def test_a_stream_whose_client_leaves_holds_nothing(tmp_path: Path) -> None:
    with rpcclient.face(tmp_path) as (client, plane, running):
        slow = request({"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [0.3]}},
                       signature="slow")  # fmt: skip
        talk = client.channel.stream_stream(SERVICE + "ModelStreamInfer")(iter([slow.SerializeToString()]))
        rpcclient.until(lambda: plane.held == 1)
        talk.cancel()
        with pytest.raises(grpc.RpcError):
            next(talk)
        rpcclient.until(lambda: plane.held == 0 and not running.open_calls())
