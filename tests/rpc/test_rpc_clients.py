"""The face as real gRPC clients meet it: many calls at once, large messages, cancels, deadlines, compression."""

from __future__ import annotations

import asyncio
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
from rpcclient import PREDICTION, Client, Refusal, predict_request
from tfopt_protos import messages, tensors
from tfopt_server.errors import Code

X = np.float32([[1, 2]])
PREDICT = PREDICTION + "Predict"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("rpc")
    with rpcclient.face(path):
        yield path


def outputs(answer: bytes) -> dict[str, Any]:
    return {name: tensors.to_numpy(t) for name, t in messages.PredictResponse.FromString(answer).outputs.items()}


def test_an_asyncio_client_with_many_calls_at_once(folder: Path):
    async def run() -> list[bytes]:
        async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
            predict = channel.unary_unary(PREDICT)
            requests = [predict_request({"x": np.float32([i])}).SerializeToString() for i in range(300)]
            return await asyncio.gather(*(predict(request, timeout=20) for request in requests))

    assert [outputs(answer)["y"].tolist() for answer in asyncio.run(run())] == [[i / 2 + 2] for i in range(300)]


def test_a_hundred_calls_wait_on_one_connection(folder: Path):
    with grpc.insecure_channel(f"unix:{folder}/s") as channel:
        predict = channel.unary_unary(PREDICT)
        request = predict_request({"x": np.float32([0.3])}, "slow").SerializeToString()
        calls = [predict.future(request, timeout=20) for _ in range(100)]  # one after the other would be 30 s
        assert {call.result().startswith(b"\n") for call in calls} == {True}


@pytest.mark.parametrize("megabytes", [1, 40])
def test_large_messages_in_and_out(folder: Path, megabytes: int):
    rows = np.random.default_rng(1).standard_normal(megabytes * 262_144, np.float32)
    request = predict_request({"x": rows}, "echo_float", content=True).SerializeToString()
    with grpc.insecure_channel(f"unix:{folder}/s", UNLIMITED) as channel:
        predict = channel.unary_unary(PREDICT)
        large = predict.future(request, timeout=30)
        small = predict(predict_request({"x": X}).SerializeToString(), timeout=30)
        assert outputs(small)["y"].tolist() == [[2.5, 3]]
        np.testing.assert_array_equal(outputs(large.result())["y"], rows)


def test_several_large_answers_share_a_connection(folder: Path):
    rows = np.arange(2_000_000, dtype=np.float32)
    request = predict_request({"x": rows}, "echo_float", content=True).SerializeToString()
    with grpc.insecure_channel(f"unix:{folder}/s", UNLIMITED) as channel:
        calls = [channel.unary_unary(PREDICT).future(request, timeout=30) for _ in range(6)]
        for call in calls:
            np.testing.assert_array_equal(outputs(call.result())["y"], rows)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(folder: Path, compression: grpc.Compression):
    request = predict_request({"x": np.zeros(50_000, np.float32)}, "echo_float").SerializeToString()
    with grpc.insecure_channel(f"unix:{folder}/s") as channel:
        answer = channel.unary_unary(PREDICT)(request, compression=compression, timeout=10)
    assert outputs(answer)["y"].tolist() == [0.0] * 50_000


def test_messages_over_the_limits(tmp_path: Path):
    limits = "--grpc_channel_arguments=grpc.max_receive_message_length=1000,grpc.max_send_message_length=500"
    with rpcclient.face(tmp_path, None, limits) as (client, _, _):
        assert client.predict(predict_request({"x": np.zeros(1000, np.float32)})) == Refusal(
            Code.RESOURCE_EXHAUSTED, "Received message larger than max (4026 vs. 1000)"
        )
        assert client.predict(predict_request({"x": np.zeros(150, np.float32)}, "echo_float")) == Refusal(
            Code.RESOURCE_EXHAUSTED, "Sent message larger than max (642 vs. 500)"
        )
        assert not isinstance(client.predict(predict_request({"x": X})), Refusal)


def test_a_bomb_is_refused_while_it_is_small(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tfopt_server.rpc.messages.INFLATED_LIMIT", 1000)
    request = predict_request({"x": np.zeros(50_000, np.float32)}, "echo_float").SerializeToString()
    with grpc.insecure_channel(f"unix:{folder}/s") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(PREDICT)(request, compression=grpc.Compression.Gzip, timeout=10)
    assert refused.value.details() == "Received message larger than max (over 1000 once inflated)"
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_may_be_large_but_not_boundless(folder: Path):
    request = predict_request({"x": X}).SerializeToString()
    with grpc.insecure_channel(f"unix:{folder}/s") as channel:
        predict = channel.unary_unary(PREDICT)
        assert predict(request, metadata=[("x-trace", "y" * 8000), ("bytes-bin", b"\0\xff")], timeout=10)
        with pytest.raises(grpc.RpcError) as refused:
            predict(request, metadata=[("x-trace", "y" * 20_000)], timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert predict(request, timeout=10)


def test_a_deadline_that_has_passed_is_not_worked_on(tmp_path: Path):
    plane = faceplane.plane()
    with rpcclient.face(tmp_path, plane) as (client, _, _):
        answer = client.predict(predict_request({"x": np.float32([0.5])}, "slow"), timeout=0.05)
        assert answer.code is Code.DEADLINE_EXCEEDED
        rpcclient.until(lambda: plane.held == 0)


def test_cancels_by_the_hundred_leave_nothing_behind(tmp_path: Path):
    plane = faceplane.plane()
    queued: list[faceplane.Future] = []

    def start(*_: Any) -> faceplane.Future:
        queued.append(faceplane.Future())
        return queued[-1]

    plane.start = start
    with rpcclient.face(tmp_path, plane) as (client, _, running):
        predict = client.channel.unary_unary(PREDICT)
        request = predict_request({"x": X}).SerializeToString()
        calls = [predict.future(request) for _ in range(200)]
        rpcclient.until(lambda: len(queued) == 200)
        for call in calls:
            call.cancel()
        rpcclient.until(lambda: all(future.cancelled() for future in queued))
        rpcclient.until(lambda: plane.held == 0)
        assert running.open_calls() == 0


def test_a_client_that_vanishes_gives_its_calls_up(tmp_path: Path):
    plane = faceplane.plane()
    queued = faceplane.Future()
    plane.start = lambda *_: queued
    with rpcclient.face(tmp_path, plane):
        other = Client(f"unix:{tmp_path}/s")
        call = other.channel.unary_unary(PREDICT).future(predict_request({"x": X}).SerializeToString())
        rpcclient.until(lambda: plane.held == 1)
        other.channel.close()
        rpcclient.until(queued.cancelled)
        rpcclient.until(lambda: plane.held == 0)
        assert call.done()


def test_a_connection_that_is_old_enough_is_replaced_without_losing_a_call(tmp_path: Path):
    ages = "--grpc_channel_arguments=grpc.max_connection_age_ms=300,grpc.max_connection_age_grace_ms=5000"
    with rpcclient.face(tmp_path, None, ages) as (client, _, running):
        end, count = time.monotonic() + 60, 0
        while running.connections_seen() < 3 and time.monotonic() < end:
            assert not isinstance(client.predict(predict_request({"x": X})), Refusal)
            count += 1
        assert running.connections_seen() == 3
    assert count > 20


def test_health_and_predict_answer_while_a_large_request_is_read(folder: Path):
    """A thread reads it; the event loop goes on."""
    rows = np.zeros((200_000,), object)
    rows[:] = [b"word"] * len(rows)
    request = predict_request({"x": rows}, "echo_string").SerializeToString()
    stop, waits = threading.Event(), []

    def small() -> None:
        mine = Client(f"unix:{folder}/s")
        while not stop.is_set():
            began = time.monotonic()
            mine.outputs(predict_request({"x": X}))
            waits.append(time.monotonic() - began)

    thread = threading.Thread(target=small)
    thread.start()
    with grpc.insecure_channel(f"unix:{folder}/s", UNLIMITED) as channel:
        for _ in range(3):
            channel.unary_unary(PREDICT)(request, timeout=30)
    stop.set()
    thread.join(10)
    assert len(waits) > 5
