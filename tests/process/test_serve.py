"""The whole server on real models: what an operator sees from start to end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from tfopt_protos import messages, tensors

from .servers import Client, Server, alive, free_port, processes_of, running, tfopt, until

pytestmark = pytest.mark.process

BODY = json.dumps({"instances": [[1.0], [2.0]]}).encode()
BUCKETS = "--allowed_batch_sizes=1,4"
NOBODY = "UNAVAILABLE: failed to connect to all addresses"
METRICS = "/monitoring/prometheus/metrics"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@contextlib.contextmanager
def serve(tmp_path: Path, *flags: str) -> Iterator[tuple[Server, int]]:
    """`tfopt` on free ports: the server and its gRPC port."""
    port, rpc = free_port(), free_port()
    command = [
        sys.executable, "-m", "tfopt_server", f"--rest_api_port={port}", f"--port={rpc}", BUCKETS,
        f"--plan_cache_dir={tmp_path / 'plans'}", *flags,
    ]  # fmt: skip
    with running(command, port, tmp_path / "log", {"HOME": str(tmp_path)}) as server:
        yield server, rpc


def half_plus_two_request() -> bytes:
    request = messages.message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = "default"
    request.inputs["x"].CopyFrom(tensors.from_numpy(np.array([[1.0], [2.0]], np.float32)))
    return request.SerializeToString()


def optimization(server: Server) -> list[tuple[str, dict | None]]:
    """Where each version's plan came from, and the plan."""
    found = json.loads(server.get("/optimization")[1])
    return [(version["why"], version["plan"]) for version in found["models"]]


class RpcClient(threading.Thread):
    """A closed loop of Predict calls until the server says that it is going."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.answered, self.ended = port, 0, ""

    def run(self) -> None:
        request, response = half_plus_two_request(), messages.message("tensorflow.serving.PredictResponse")
        own = [("grpc.use_local_subchannel_pool", 1)]  # channels of one process share a connection otherwise
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", own) as channel:
            call = channel.unary_unary(PREDICT, response_deserializer=response.FromString)
            while True:
                try:
                    answer = call(request, timeout=10)
                except grpc.RpcError as error:
                    self.ended = f"{error.code().name}: {error.details()}"
                    return
                assert list(answer.outputs["y"].float_val) == [2.5, 3.0]
                self.answered += 1


@pytest.mark.tensorflow
def test_a_life_from_the_first_start_to_sigterm_under_load(tmp_path, savedmodel):
    """Optimize, serve over both faces, drain without loss; JSON lines without a warning; no process left behind.

    `tfopt optimize` makes the job that the server made: it finds the server's plan.
    """
    with serve(tmp_path, f"--model_base_path={savedmodel('half_plus_two').parent}") as (server, rpc):
        until(lambda: server.health() == 503, 10, server.text)
        server.wait_for_health(200, 90)
        status, body = server.get("/v1/models/default:predict", "POST", BODY)
        assert (status, json.loads(body)) == (200, {"predictions": [[2.5], [3.0]]})
        assert server.get("/predict", "POST", BODY) == (200, body)
        clients = [Client(server.port, i % 2 == 0, "/predict", BODY, body) for i in range(8)]
        callers = [RpcClient(rpc) for _ in range(2)]
        for client in (*clients, *callers):
            client.start()
        everyone = (*clients, *callers)
        until(lambda: all(c.answered > 10 for c in everyone), 10, lambda: [c.answered for c in everyone])
        family = processes_of(server.process.pid)
        assert server.stop() == 0
        for client in (*clients, *callers):
            client.join(15)
    assert [c.lost for c in clients] == [[]] * 8
    # Not one call failed on a connection that there was: the last ones found nobody to connect to.
    assert {c.ended[: len(NOBODY)] for c in callers} == {NOBODY}
    assert [line for line in server.lines() if line["severity"] != "INFO"] == []
    until(lambda: not any(map(alive, family)), 5, lambda: f"the end of all of {family}")

    again = tfopt(
        "optimize", str(savedmodel("half_plus_two").parent), BUCKETS, f"--plan_cache_dir={tmp_path / 'plans'}"
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert "found in the cache" in again.stdout
    (plan,) = (p for p in (tmp_path / "plans").iterdir() if p.is_dir())
    assert tfopt("report", str(plan)).stdout.startswith("plan of 20")


@pytest.mark.tensorflow
def test_a_missing_base_path_is_waited_for(tmp_path, savedmodel):
    base = tmp_path / "models" / "m"
    with serve(tmp_path, f"--model_base_path={base}", "--disable_optimizer") as (server, _):
        until(lambda: "there is nothing at" in server.text(), 20, server.text)
        assert server.health() == 503
        shutil.copytree(savedmodel("half_plus_two"), base / "1.part")
        os.rename(base / "1.part", base / "1")
        server.wait_for_health(200, 60)
        assert server.stop() == 0


def test_a_model_that_cannot_load_ends_with_255(tmp_path):
    folder = tmp_path / "model" / "1"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"not a SavedModel \xff")
    flags = (f"--model_base_path={folder.parent}", "--max_num_load_retries=1", "--load_retry_interval_micros=100000")
    with serve(tmp_path, *flags) as (server, _):
        assert server.process.wait(30) == 255
    (said,) = [line["message"] for line in server.lines() if line["severity"] == "CRITICAL"]
    assert said.startswith(
        "Failed to start server. Error: 1 servable(s) did not become available: {{{name: default version: 1} due to"
    )


def test_a_grpc_port_that_is_taken_ends_with_255(tmp_path):
    with serve(tmp_path, "--model_base_path=/nowhere", f"--port={(taken := free_port())}") as (first, _):
        until(lambda: first.health() == 503, 10, first.text)
        until(lambda: "there is nothing at" in first.text(), 10, first.text)
        folder = tmp_path / "second"
        folder.mkdir()
        time.sleep(0.5)
        with serve(folder, "--model_base_path=/nowhere", f"--port={taken}") as (second, _):
            assert second.process.wait(20) == 255
    (said,) = [line["message"] for line in second.lines() if line["severity"] == "CRITICAL"]
    assert f":{taken}" in said


def test_a_unix_socket_is_shared_by_all_workers_and_survives_one_of_them(tmp_path):
    """Each bound it anew, so that only the last one was reached."""
    path = tmp_path / "grpc"
    path_flags = (f"--grpc_socket_path={path}", "--model_base_path=/nowhere", "--workers=2")
    check = messages.message("grpc.health.v1.HealthCheckRequest")().SerializeToString()

    def ask() -> bytes:
        with grpc.insecure_channel(f"unix:{path}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            return channel.unary_unary("/grpc.health.v1.Health/Check")(check, timeout=10)

    with serve(tmp_path, *path_flags) as (server, _):
        until(lambda: server.text().count("there is nothing at") == 2, 30, server.text)
        made = path.stat().st_ino
        assert ask() == b"\x08\x02"
        os.kill(server.workers()[-1], signal.SIGKILL)
        until(lambda: server.text().count("there is nothing at") == 3, 30, server.text)
        assert [ask() for _ in range(5)] == [b"\x08\x02"] * 5
        assert path.stat().st_ino == made
        assert server.stop() == 0
    assert not path.exists()


@pytest.mark.tensorflow
def test_grpc_with_several_workers_loses_no_call_to_sigterm(tmp_path, savedmodel):
    """Closed loops on connections of their own, which the kernel spreads over the workers."""
    flags = (f"--model_base_path={savedmodel('half_plus_two').parent}", "--disable_optimizer", "--workers=2")
    with serve(tmp_path, *flags) as (server, rpc):
        server.wait_for_health(200, 90)
        callers = [RpcClient(rpc) for _ in range(20)]
        for caller in callers:
            caller.start()
        until(lambda: all(caller.answered > 5 for caller in callers), 30, lambda: [c.answered for c in callers])
        assert len(server.workers()) == 2
        busy = [pid for pid in server.workers() if established(pid, rpc)]
        assert len(busy) > 1
        assert server.stop() == 0
        for caller in callers:
            caller.join(15)
    assert {caller.ended[: len(NOBODY)] for caller in callers} == {NOBODY}
    assert [line for line in server.lines() if line["severity"] != "INFO"] == []


def established(pid: int, port: int) -> int:
    """How many clients a process holds on its port."""
    connections = psutil.Process(pid).net_connections("tcp")
    return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port for c in connections)


def test_without_rest_the_healthcheck_asks_grpc(tmp_path):
    flags = ("--model_base_path=/nowhere", "--rest_api_port=0")
    with serve(tmp_path, *flags) as (server, rpc):
        asked = ("healthcheck", "--rest_api_port=0", f"--port={rpc}")
        until(lambda: "not serving" in tfopt(*asked).stderr, 20, server.text)
        assert (done := tfopt(*asked)).returncode == 1
        assert done.stderr == f"gRPC port {rpc}: not serving\n"
    assert tfopt(*asked).stderr == f"gRPC port {rpc}: [Errno 111] Connection refused\n"


@pytest.mark.tensorflow
def test_sigterm_while_a_model_is_optimized_ends_its_processes_at_once(tmp_path, savedmodel):
    with serve(tmp_path, f"--model_base_path={savedmodel('cnn').parent}", "--allow_precompilation") as (server, _):
        until(lambda: len(processes_of(server.process.pid)) >= 4, 30, server.text)
        family = processes_of(server.process.pid)
        assert server.stop() == 0
        until(lambda: not any(map(alive, family)), 20, lambda: f"the end of all of {family}")
        assert not any("made in" in line for line in server.messages())


@pytest.mark.tensorflow
def test_optimized_in_the_background_under_load(tmp_path, savedmodel):
    """Ready on plain TensorFlow, the plan swapped in under load: every request of both faces is answered rightly."""
    wanted = json.dumps({"predictions": [[2.5], [3.0]]}).encode()
    base, flags = (
        savedmodel("half_plus_two").parent,
        ("--optimize_in_background", "--optimize_budget_s=2", "--engines=openvino"),
    )
    with serve(tmp_path, f"--model_base_path={base}", *flags) as (server, rpc):
        server.wait_for_health(200, 60)
        ((state, plan),) = optimization(server)
        assert (state, plan) == ("plain TensorFlow serves while a plan is made in the background", None)
        _, body = server.get("/predict", "POST", BODY)
        assert json.loads(body) == json.loads(wanted)
        clients = [Client(server.port, True, "/predict", BODY, body) for _ in range(3)]
        callers = [RpcClient(rpc)]
        for client in (*clients, *callers):
            client.start()
        assert b'tfopt_optimizing_in_background{model="default",version="1"} 1' in server.get(METRICS)[1]
        until(lambda: optimization(server)[0][0].startswith("made in "), 90, server.text)
        everyone = (*clients, *callers)
        swapped = [c.answered for c in everyone]
        until(lambda: b"tfopt_optimizing_in_background{" not in server.get(METRICS)[1], 5, server.text)
        until(lambda: all(c.answered > n for c, n in zip(everyone, swapped, strict=True)), 10, lambda: swapped)
        assert server.stop() == 0
        for client in (*clients, *callers):
            client.join(15)
    assert [c.lost for c in clients] == [[]] * 3
    assert min(swapped) > 0
    assert {c.ended[: len(NOBODY)] for c in callers} == {NOBODY}
    assert any(m.startswith("the plan is ready and serves from now on (made in ") for m in server.messages())
    assert "plain TensorFlow is given back" in server.messages()
    assert [line for line in server.lines() if line["severity"] != "INFO"] == []
