"""The gRPC face over a UNIX socket: what the methods answer beyond the table in tests/conformance."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faceplane
import grpc
import numpy as np
import pytest
import rpcclient
from rpcclient import HEALTH, MODEL, PREDICTION, Client, Refusal, predict_request
from tfopt_protos import messages
from tfopt_server.errors import Code, ServingError
from tfopt_server.lifecycle import State
from tfopt_server.rpc import probe, status

X = np.float32([[1, 2]])
HEALTH_REQUEST = messages.message("grpc.health.v1.HealthCheckRequest")
HEALTH_RESPONSE = messages.message("grpc.health.v1.HealthCheckResponse")


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, faceplane.FakePlane]]:
    with rpcclient.face(tmp_path_factory.mktemp("rpc")) as (client, plane, _):
        yield client, plane


def test_predict_answers_typed_fields_and_the_filled_in_model_spec(face: Any) -> None:
    client, plane = face
    plane.calls.clear()
    answer = client.predict(predict_request({"x": X}))
    assert answer == messages.from_text(
        "tensorflow.serving.PredictResponse",
        """
        outputs { key: "y" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } dim { size: 2 } }
                  float_val: 2.5 float_val: 3.0 } }
        model_spec { name: "m" version { value: 2 } signature_name: "serving_default" }
        """,
    )
    deadline = plane.calls[0][4]
    assert deadline - time.monotonic() == pytest.approx(10, abs=5)
    assert plane.held == 0


def test_answers_as_tensor_content_when_asked_for(tmp_path: Path) -> None:
    with rpcclient.face(tmp_path, None, "--enable_serialization_as_tensor_content") as (client, _, _):
        answer = client.predict(predict_request({"x": X}))
    assert answer.outputs["y"].tensor_content == np.float32([2.5, 3]).tobytes()
    assert not answer.outputs["y"].float_val


def test_a_call_without_a_deadline_has_none(face: Any) -> None:
    client, plane = face
    plane.calls.clear()
    client.channel.unary_unary(PREDICTION + "Predict")(predict_request({"x": X}).SerializeToString())
    assert plane.calls[0][4] is None


def test_versions_and_labels(face: Any) -> None:
    client, _plane = face
    for spec, version in (({}, 2), ({"version": {"value": 1}}, 1), ({"version_label": "stable"}, 1)):
        answer = client.predict(predict_request({"x": X}, **spec))
        assert answer.model_spec.version.value == version
    assert client.predict(predict_request({"x": X}, version_label="x")) == Refusal(
        Code.INVALID_ARGUMENT, "Unrecognized servable version label: x"
    )


def test_metadata_packs_the_signature_map(face: Any) -> None:
    client, _plane = face
    request = messages.GetModelMetadataRequest(model_spec={"name": "m", "version": {"value": 1}})
    request.metadata_field.append("signature_def")
    answer = messages.GetModelMetadataResponse.FromString(client.call(PREDICTION + "GetModelMetadata", request))
    assert answer.model_spec == messages.ModelSpec(name="m", version={"value": 1})
    packed = answer.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = messages.SignatureDefMap.FromString(packed.value).signature_def
    assert dict(signatures) == {s.info.key: s.proto() for s in faceplane.many_signatures()}


def test_status_of_all_versions_or_one(tmp_path: Path) -> None:
    plane = faceplane.plane()
    plane.statuses["m", 1] = faceplane.Status(1, State.END, Code.NOT_FOUND, "gone")
    with rpcclient.face(tmp_path, plane) as (client, _, _):
        answers = [
            messages.GetModelStatusResponse.FromString(client.call(MODEL + "GetModelStatus", request))
            for request in (
                messages.GetModelStatusRequest(model_spec={"name": "m", "version_label": "nope"}),
                messages.GetModelStatusRequest(model_spec={"name": "m", "version": {"value": 1}}),
            )
        ]
    serving = "model_version_status { version: 2 state: AVAILABLE status {} }\n"
    failed = 'model_version_status { version: 1 state: END status { error_code: NOT_FOUND error_message: "gone" } }\n'
    name = "tensorflow.serving.GetModelStatusResponse"
    assert answers == [messages.from_text(name, serving + failed), messages.from_text(name, failed)]


def test_health_follows_readiness(tmp_path: Path) -> None:
    plane = faceplane.plane()
    with rpcclient.face(tmp_path, plane) as (client, _, _running):

        def check(service: str) -> int:
            return HEALTH_RESPONSE.FromString(client.call(HEALTH + "Check", HEALTH_REQUEST(service=service))).status

        names = ("", "PredictionService", "tensorflow.serving.PredictionService", "ModelService")
        assert [check(name) for name in names] == [1, 1, 1, 1]
        plane.fit = False
        assert check("") == 2
        assert client.call(HEALTH + "Check", HEALTH_REQUEST(service="x")) == Refusal(Code.NOT_FOUND, "unknown service")


def test_watch_follows_readiness(tmp_path: Path) -> None:
    plane = faceplane.plane()
    with rpcclient.face(tmp_path, plane) as (client, _, running):
        watch = client.channel.unary_stream(HEALTH + "Watch", response_deserializer=HEALTH_RESPONSE.FromString)
        said = iter(watch(b"", timeout=10))
        assert next(said).status == 1
        plane.fit = False
        assert next(said).status == 2
        plane.fit = True
        assert next(said).status == 1
        assert next(iter(watch(HEALTH_REQUEST(service="x").SerializeToString(), timeout=10))).status == 3
        running.drain(5)
        assert next(said).status == 2
        with pytest.raises(grpc.RpcError) as ended:
            next(said)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ended.value.details() == "The server is shutting down"


def test_a_probe_asks_without_a_grpc_library() -> None:
    with rpcclient.served_port() as port:
        assert probe.call(port, HEALTH + "Check", b"", 10) == b"\x08\x01"
        with pytest.raises(probe.ProbeError, match="NOT_FOUND unknown service"):
            probe.call(port, HEALTH + "Check", HEALTH_REQUEST(service="x").SerializeToString(), 10)


def test_request_ids_come_back_with_answers_and_refusals(face: Any) -> None:
    client, _ = face
    name = (("x-request-id", "abc-1"),)
    good = predict_request({"x": X}).SerializeToString()
    _, call = client.channel.unary_unary(PREDICTION + "Predict").with_call(good, timeout=10, metadata=name)
    assert ("x-request-id", "abc-1") in tuple(call.initial_metadata())
    with pytest.raises(grpc.RpcError) as raised:
        client.channel.unary_unary(PREDICTION + "Predict")(b"", timeout=10, metadata=name)
    error = raised.value
    assert ("x-request-id", "abc-1") in (*error.initial_metadata(), *error.trailing_metadata())
    _, bare = client.channel.unary_unary(PREDICTION + "Predict").with_call(good, timeout=10)
    assert "x-request-id" not in dict(bare.initial_metadata())
    long = (("x-request-id", "y" * 300),)
    _, call = client.channel.unary_unary(PREDICTION + "Predict").with_call(good, timeout=10, metadata=long)
    assert "x-request-id" not in dict(call.initial_metadata())


RELOAD = MODEL + "HandleReloadConfigRequest"
RELOAD_REQUEST = messages.message("tensorflow.serving.ReloadConfigRequest")
RELOAD_RESPONSE = messages.message("tensorflow.serving.ReloadConfigResponse")


def test_a_config_is_handed_on_and_answered_with_the_counters_that_rose(tmp_path: Path) -> None:
    plane = faceplane.plane()
    request = RELOAD_REQUEST(metric_names=["/tensorflow/serving/request_count", "/no/such"])
    request.config.model_config_list.config.add(name="n", base_path="/n", model_platform="tensorflow")
    with rpcclient.face(tmp_path, plane) as (client, _, _):
        client.predict(predict_request({"x": X}))
        plane.on_reload = lambda: client.predict(predict_request({"x": X}))
        answer = RELOAD_RESPONSE.FromString(client.call(RELOAD, request))
    assert plane.configs == [request.config]
    assert answer == messages.from_text(
        "tensorflow.serving.ReloadConfigResponse",
        """status {} metric { name: "/tensorflow/serving/request_count" int64_value_increase: 1 }
           metric { name: "/no/such" int64_value_increase: 0 }""",
    )


def test_configs_that_are_refused_or_fail_or_take_too_long(tmp_path: Path) -> None:
    only_lists = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    plane = faceplane.plane()
    request = RELOAD_REQUEST()
    with rpcclient.face(tmp_path, plane) as (client, _, _):
        assert client.call(RELOAD, request) == Refusal(Code.INVALID_ARGUMENT, only_lists)
        request.config.custom_model_config.SetInParent()
        assert client.call(RELOAD, request) == Refusal(Code.INVALID_ARGUMENT, only_lists)
        request.config.model_config_list.SetInParent()
        plane.reload_error = ServingError(Code.FAILED_PRECONDITION, "label")
        assert client.call(RELOAD, request) == Refusal(Code.FAILED_PRECONDITION, "label")
        plane.reload_error = None
        plane.reload_outcome = ServingError(Code.UNKNOWN, "1 model(s) did not")
        assert client.call(RELOAD, request) == Refusal(Code.UNKNOWN, "1 model(s) did not")
        plane.reload_outcome = None
        answer = client.call(RELOAD, request, timeout=0.3)
        assert answer.code is Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize("method", ["Classify", "Regress"])
def test_examples_need_a_model(face: Any, method: str) -> None:
    client, _ = face
    assert client.call(PREDICTION + method, b"") == Refusal(Code.INVALID_ARGUMENT, "Missing ModelSpec")


def test_services_that_do_not_exist(face: Any) -> None:
    client, _ = face
    assert client.call("/tensorflow.serving.SessionService/SessionRun", b"").code is Code.UNIMPLEMENTED


def test_bytes_that_are_no_request(face: Any) -> None:
    client, _ = face
    answer = client.call(PREDICTION + "Predict", b"\xff\xff")
    assert answer.code is Code.INVALID_ARGUMENT
    assert answer.text.startswith("The request is no tensorflow.serving.PredictRequest: ")


def test_internal_errors_show_the_client_an_id_and_the_log_the_rest(
    face: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client, plane = face
    with caplog.at_level(logging.ERROR):
        answer = client.predict(predict_request({"x": X}, "fails"))
    assert answer.code is Code.INTERNAL
    assert "secret" not in answer.text
    assert f"incident {answer.text.split('incident ')[1][:8]}" in caplog.text
    assert caplog.text.count("RuntimeError: a secret of the server") == 1
    assert plane.held == 0


def test_long_texts_are_cut(face: Any) -> None:
    client, _ = face
    answer = client.predict(predict_request({"x": X}, "é" * 2000))
    text = f'Serving signature key "{"é" * 2000}" not found.'.encode()[:1024].decode("utf-8", "ignore")
    assert answer == Refusal(Code.FAILED_PRECONDITION, text + "...TRUNCATED")


def test_a_deadline_ends_the_wait(face: Any) -> None:
    client, _plane = face
    answer = client.predict(predict_request({"x": np.float32([60])}, "slow"), timeout=0.2)
    assert answer.code is Code.DEADLINE_EXCEEDED


def test_refusals_of_a_model_that_runs_elsewhere_pass_through(face: Any) -> None:
    client, _ = face
    assert client.predict(predict_request({"x": X}, "later_refuses")) == Refusal(
        Code.INVALID_ARGUMENT, "Matrix size-incompatible: In[0]: [1,3], In[1]: [2,1]"
    )


def test_calls_that_wait_leave_room_for_others(face: Any) -> None:
    """Calls that wait are all waited for at once, and others are answered meanwhile."""
    client, plane = face
    start, queued = plane.start, []

    def begin(handle: Any, key: str, *rest: Any, **more: Any) -> Any:
        if key != "slow":
            return start(handle, key, *rest, **more)
        queued.append(faceplane.Future())
        return queued[-1]

    plane.start = begin
    slow = predict_request({"x": X}, "slow").SerializeToString()
    waiting = [client.channel.unary_unary(PREDICTION + "Predict").future(slow) for _ in range(16)]
    rpcclient.until(lambda: len(queued) == 16)
    client.outputs(predict_request({"x": X}))
    assert not any(call.done() for call in waiting)
    for future in queued:
        future.set_result(faceplane.Result({"y": X}))
    for call in waiting:
        call.result(10)


def test_a_call_that_its_client_cancels_leaves_the_queue(tmp_path: Path) -> None:
    plane = faceplane.plane()
    queued = faceplane.Future()
    plane.start = lambda *_: queued
    with rpcclient.face(tmp_path, plane) as (client, _, _):
        call = client.channel.unary_unary(PREDICTION + "Predict").future(predict_request({"x": X}).SerializeToString())
        end = time.monotonic() + 5
        while not plane.held and time.monotonic() < end:
            time.sleep(0.005)
        call.cancel()
        while plane.held and time.monotonic() < end:
            time.sleep(0.005)
        assert queued.cancelled()
        assert plane.held == 0


def test_long_texts_are_cut_before_they_are_kept():
    """They may hold what a client wrote, a name of a gigabyte."""
    assert status.alone(Code.NOT_FOUND, "m" * 5000) is status.alone(Code.NOT_FOUND, "m" * 6000)


def test_what_is_counted(tmp_path: Path) -> None:
    with rpcclient.face(tmp_path) as (client, plane, _):
        client.predict(predict_request({"x": X}))
        client.predict(predict_request({"x": X}, "nope"))
        unknown = predict_request({"x": X})
        unknown.model_spec.name = "other"
        client.predict(unknown)
        page = plane.metrics.render().decode().splitlines()
    counted = [line for line in page if line.startswith(":tensorflow:serving:request_count{")]
    assert sorted(counted) == [
        ':tensorflow:serving:request_count{model_name="m",status="FAILED_PRECONDITION"} 1',
        ':tensorflow:serving:request_count{model_name="m",status="OK"} 1',
        ':tensorflow:serving:request_count{model_name="other",status="NOT_FOUND"} 1',
    ]
    latency = ':tensorflow:serving:request_latency_count{model_name="m",API="GRPC",entrypoint="Predict"} 1'
    assert latency in page
    for step in ("decode", "encode"):
        assert f'tfopt_step_seconds_count{{model="m",signature="serving_default",step="{step}"}} 1' in page


def test_a_drain_under_load_answers_every_call_that_was_sent(tmp_path: Path) -> None:
    """Clients in a closed loop: each call is answered, or was never taken because nobody listens any more."""
    failed: list[Refusal] = []
    answered: list[int] = []

    def client(address: str) -> None:
        mine, count = Client(address), 0
        while True:
            answer = mine.predict(predict_request({"x": X}))
            if isinstance(answer, Refusal):
                failed.append(answer)
                break
            count += 1
        answered.append(count)
        mine.channel.close()

    with rpcclient.face(tmp_path) as (_, _plane, running):
        threads = [threading.Thread(target=client, args=(f"unix:{tmp_path}/s",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        running.drain(5)
        for thread in threads:
            thread.join(10)
    assert min(answered) > 5
    assert {refusal.code for refusal in failed} == {Code.UNAVAILABLE}
    assert all("connect" in refusal.text.lower() for refusal in failed), failed


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    settings = faceplane.configured("--port=0", f"--grpc_socket_path={tmp_path}/missing/s")
    plane = faceplane.plane()
    with pytest.raises(OSError, match=f"gRPC cannot listen on unix:{tmp_path}/missing/s: No such file"):
        asyncio.run(rpcclient.server.start(plane, settings, plane.metrics))


def test_vertex_direct_raw_predict_is_a_plain_call_with_metadata_of_its_own(face: Any) -> None:
    """DirectRawPredict names the method and passes the bytes on; endpoints add headers that mean nothing here."""
    client, _ = face
    call = client.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    data = predict_request({"x": X}).SerializeToString()
    for name in ("x-vertex-ai-endpoint-id", "grpc-destination"):
        answer = messages.PredictResponse.FromString(call(data, timeout=10, metadata=((name, "123-456"),)))
        assert list(answer.outputs["y"].float_val) == [2.5, 3]
