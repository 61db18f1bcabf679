"""Starts and stops the servers under test: `tfopt serve` and the bare ones. Each is a process group of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks import requests

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
HEALTH = "/health"
METRICS = "/monitoring/prometheus/metrics"
READY_TIMEOUT_S = 900.0  # an optimization of BERT-base compiles for minutes on two cores
STOP_TIMEOUT_S = 60.0
ECHO_THREADS = 2


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server. Port 0 means that it has no such face."""

    process: subprocess.Popen[bytes]
    rest_port: int
    grpc_port: int
    log: Path
    began: float  # time.monotonic() just before the process was started
    ready_s: float = 0.0

    def get(self, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
        return get(self.rest_port, path, timeout_s)

    def metric(self, name: str) -> float:
        """The sum of a counter or gauge over its labels; KeyError when the page has no such metric."""
        return metric_sum(self.get(METRICS)[1].decode(), name)

    def processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def maps(self, library: str) -> list[str]:
        """Which mapped files of the server's processes have `library` in their path: proof of what was imported."""
        found = set()
        for process in self.processes():
            for region in process.memory_maps():
                if library in region.path:
                    found.add(region.path)
        return sorted(found)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def metric_sum(page: str, name: str) -> float:
    """Adds up the samples of `name` on a Prometheus page; a metric with a TYPE line and no samples is 0."""
    samples = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", page, re.MULTILINE)
    if not samples and f"# TYPE {name} " not in page:
        raise KeyError(f"there is no metric {name}")
    return sum(float(sample) for sample in samples)


def get(port: int, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def tfopt(base: Path, flags: Sequence[str], plans: Path, log: Path) -> Iterator[Server]:
    """`tfopt serve` on the model at `base`, ready (health 200). `plans` is its plan cache."""
    rest, grpc = free_port(), free_port()
    command = [
        str(Path(sys.executable).with_name("tfopt")),
        "serve",
        f"--model_name={requests.MODEL_NAME}",
        f"--model_base_path={base}",
        f"--rest_api_port={rest}",
        f"--port={grpc}",
        f"--plan_cache_dir={plans}",
        f"--health_route={HEALTH}",
        "--log_format=json",
        *flags,
    ]
    with _running(command, log, rest, grpc) as server:
        yield dataclasses.replace(server, ready_s=_wait_for_health(server))


@contextlib.contextmanager
def bare_asgi(log: Path, workers: int = 1) -> Iterator[Server]:
    """The bare ASGI app under gunicorn's native asgi worker."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "gunicorn", "benchmarks.baselines.bare_asgi:app"),
        *("--worker-class", "asgi", "--workers", str(workers), "--bind", f"{HOST}:{port}"),
        *("--asgi-loop", "uvloop", "--asgi-lifespan", "off", "--keep-alive", "620"),  # as tfopt sets gunicorn up
        *("--no-control-socket", "--log-level", "warning"),
    ]
    with _running(command, log, port, 0) as server:
        _wait_for_port(server, port)
        yield server


@contextlib.contextmanager
def echo_grpc(log: Path) -> Iterator[Server]:
    """The bare grpcio server with the number of threads that is fastest for it (docs/decisions/0031)."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.baselines.echo_grpc", str(port), str(ECHO_THREADS)]
    with _running(command, log, 0, port) as server:
        _wait_for_port(server, port)
        yield server


@contextlib.contextmanager
def _running(command: Sequence[str], log: Path, rest: int, grpc: int) -> Iterator[Server]:
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, start_new_session=True)
    try:
        yield Server(process, rest, grpc, log, began)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, then SIGKILL for the whole group (which this module started) when it does not end in time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode


def _wait_for_health(server: Server) -> float:
    while time.monotonic() - server.began < READY_TIMEOUT_S:
        _check_alive(server)
        try:
            if server.get(HEALTH, timeout_s=5.0)[0] == 200:
                return time.monotonic() - server.began
        except (OSError, http.client.HTTPException):
            pass  # not listening yet: the deadline and the exit code decide
        time.sleep(0.01)
    raise TimeoutError(f"not ready after {READY_TIMEOUT_S:.0f} s, see {server.log}")


def _wait_for_port(server: Server, port: int) -> None:
    for _ in range(1000):
        _check_alive(server)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}, see {server.log}")


def _check_alive(server: Server) -> None:
    if server.process.poll() is not None:
        tail = server.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the server ended with {server.process.returncode}:\n{tail}")
