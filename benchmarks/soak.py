"""A soak: mixed REST and gRPC traffic for many minutes while versions roll, models come and go, and workers are killed.

    python -m benchmarks.soak --minutes 30        (make soak MINUTES=30)

Fails (exit code 1) when a request was lost or answered wrongly, or when the memory of the worker that lived all the
time grew. What a killed worker had in hand is allowed to fail: UNAVAILABLE over gRPC, a broken connection over REST,
one request of each client for each kill, within EXCUSE_S. A request for a model that a client just removed may be
NOT_FOUND.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from tfopt_protos import messages, tensors

from benchmarks import models, servers

MODEL = models.MODELS["mlp"]
REST_CLIENTS, RPC_CLIENTS = 6, 6
PAUSE_S = 0.005  # of a client between two requests: the soak is about events, not about load
PERIOD_S = 15.0  # of one round of events
KILL_EVERY = 2  # rounds
RECONNECT = 100  # requests; without it the workers that replaced killed ones would get no connection to lose
EXCUSE_S = 5.0  # after a kill a client may find its connection broken: a reconnect may take a second
# Of the long-lived worker, between the second quarter of the time and the last: an allocator's noise, not a leak of
# models, which are several MB each and roll by dozens.
GROWTH, GROWTH_BYTES = 0.05, 30e6
SERVICE = "/tensorflow.serving."


@dataclasses.dataclass
class Tally:
    """What became of the requests of one face. `lost` quotes some of those that nothing excuses."""

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    lost: list[str] = dataclasses.field(default_factory=list)

    def lose(self, what: str) -> None:
        self.outcomes["lost"] += 1
        if len(self.lost) < 10:
            self.lost.append(what)


class House:
    """The server, its models and what is known of them."""

    def __init__(self, folder: Path, minutes: float, workers: int) -> None:
        self.folder, self.end, self.workers_wanted = folder, time.monotonic() + minutes * 60, workers
        self.rest, self.rpc = servers.free_port(), servers.free_port()
        self.begin = time.monotonic()
        self.guest = False  # whether the guest is configured
        self.rest_tally, self.rpc_tally = Tally(), Tally()
        self.events: Counter[str] = Counter()
        self.problems: list[str] = []
        self.memory: list[tuple[float, float]] = []  # seconds, bytes of the long-lived worker
        self.survivor = 0
        self.kills, self.last_kill = 0, 0.0
        self.version = 1
        rows = MODEL.rows(4, 7)
        self.feeds = rows
        self.body = json.dumps({"inputs": {k: v.tolist() for k, v in rows.items()}}).encode()
        self.wanted: np.ndarray | None = None
        self.stopping = threading.Event()

    @property
    def running(self) -> bool:
        return time.monotonic() < self.end and not self.stopping.is_set()


class Excuse:
    """Of one client: for each kill, one request."""

    def __init__(self, house: House) -> None:
        self._house, self._used = house, 0

    def taken(self) -> bool:
        kills = self._house.kills
        if self._used == kills or time.monotonic() - self._house.last_kill > EXCUSE_S:
            return False
        self._used = kills
        return True


def put(house: House, name: str, version: int) -> None:
    """As a careful copier does: under another name first."""
    target = house.folder / "models" / name / str(version)
    part = target.with_name(f"{version}.part")
    shutil.copytree(MODEL.saved_model, part)
    part.rename(target)


def config(house: House, *names: str) -> str:
    one = 'config {{ name: "{0}" base_path: "{1}/models/{0}" model_platform: "tensorflow" }}'
    return f"model_config_list {{ {' '.join(one.format(name, house.folder) for name in names)} }}"


@contextmanager
def server(house: House) -> Iterator[subprocess.Popen[bytes]]:
    file = house.folder / "models.txt"
    file.write_text(config(house, "steady", "rolling"))
    command = [
        sys.executable, "-m", "tfopt_server", f"--rest_api_port={house.rest}", f"--port={house.rpc}",
        f"--model_config_file={file}", f"--workers={house.workers_wanted}", "--optimize_budget_s=5",
        "--allowed_batch_sizes=1,4", f"--plan_cache_dir={house.folder / 'plans'}", "--max_num_load_retries=0",
    ]  # fmt: skip
    with (house.folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def is_ready(house: House) -> bool:
    try:
        return servers.get(house.rest, "/health")[0] == 200
    except OSError:
        return False


def right(house: House, outputs: np.ndarray) -> bool:
    if house.wanted is None:
        house.wanted = outputs
    return outputs.shape == house.wanted.shape and bool(np.allclose(outputs, house.wanted, rtol=1e-3, atol=1e-4))


def rest_client(house: House, turn: int) -> None:
    tally, excuse, connection, sent = house.rest_tally, Excuse(house), None, 0
    while house.running:
        time.sleep(PAUSE_S)
        name = ("steady", "rolling", "guest")[(turn + sent) % 3]
        sent += 1
        known = house.guest
        try:
            if connection is not None and sent % RECONNECT == 0:
                connection.close()
                connection = None
            connection = connection or http.client.HTTPConnection("127.0.0.1", house.rest, timeout=30)
            connection.request("POST", f"/v1/models/{name}:predict", house.body)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection = None
            if excuse.taken():
                tally.outcomes["cut by a kill"] += 1
            else:
                tally.lose(f"{name}: {error!r}")
            continue
        if status == 200 and right(house, np.asarray(json.loads(body)["outputs"], np.float32)):
            tally.outcomes["ok"] += 1
        elif status == 404 and name == "guest" and not (known and house.guest):
            tally.outcomes["not configured"] += 1
        else:
            tally.lose(f"{name}: {status} {body[:200]!r}")


def rpc_client(house: House, turn: int) -> None:
    excuse, sent = Excuse(house), 0
    request = messages.message("tensorflow.serving.PredictRequest")()
    for key, array in house.feeds.items():
        request.inputs[key].CopyFrom(tensors.from_numpy(array))
    response = messages.message("tensorflow.serving.PredictResponse")
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    while house.running:
        with grpc.insecure_channel(f"127.0.0.1:{house.rpc}", own) as channel:
            call = channel.unary_unary(
                f"{SERVICE}PredictionService/Predict",
                request_serializer=lambda r: r.SerializeToString(), response_deserializer=response.FromString,
            )  # fmt: skip
            for _ in range(RECONNECT):
                if not house.running:
                    return
                time.sleep(PAUSE_S)
                request.model_spec.name = ("steady", "rolling", "guest")[(turn + sent) % 3]
                sent += 1
                rpc_call(house, call, request, excuse)


def rpc_call(house: House, call: Callable[..., Any], request: Any, excuse: Excuse) -> None:
    tally, name, known = house.rpc_tally, request.model_spec.name, house.guest
    try:
        # wait_for_ready: a connection that waited in a killed worker's queue is reset, and grpcio then sends nothing
        # for a second. Calls that it fails meanwhile never left the client, and say nothing of the server.
        (output,) = call(request, timeout=30, wait_for_ready=True).outputs.values()
    except grpc.RpcError as error:
        code = error.code()
        if code is grpc.StatusCode.UNAVAILABLE and excuse.taken():
            tally.outcomes["UNAVAILABLE after a kill"] += 1
        elif code is grpc.StatusCode.NOT_FOUND and name == "guest" and not (known and house.guest):
            tally.outcomes["not configured"] += 1
        else:
            tally.lose(f"{name}: {code.name} {error.details()}")
        return
    if right(house, tensors.to_numpy(output)):
        tally.outcomes["ok"] += 1
    else:
        tally.lose(f"{name}: another answer")


def reload(house: House, *names: str) -> None:
    request = messages.message("tensorflow.serving.ReloadConfigRequest")()
    request.config.CopyFrom(messages.from_text("tensorflow.serving.ModelServerConfig", config(house, *names)))
    with grpc.insecure_channel(f"127.0.0.1:{house.rpc}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            channel.unary_unary(f"{SERVICE}ModelService/HandleReloadConfigRequest")(
                request.SerializeToString(), timeout=120
            )
        except grpc.RpcError as error:
            house.problems.append(f"reload {names}: {error.code().name} {error.details()}")
    house.events["configs"] += 1


def rolled(house: House) -> None:
    """The next version is there, the one before the last goes; the server must serve the new one within a minute."""
    house.version += 1
    put(house, "rolling", house.version)
    shutil.rmtree(house.folder / "models" / "rolling" / str(house.version - 2), ignore_errors=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            status, body = servers.get(house.rest, "/v1/models/rolling")
        except OSError:
            status, body = 0, b""
        first = json.loads(body)["model_version_status"][0] if status == 200 else {}
        if (first.get("version"), first.get("state")) == (str(house.version), "AVAILABLE"):
            house.events["versions"] += 1
            return
        time.sleep(0.2)
    house.problems.append(f"version {house.version} was not served within a minute")


def kill_one(house: House, arbiter: psutil.Process) -> None:
    """Any worker but the one whose memory is watched."""
    others = [child for child in arbiter.children() if child.pid != house.survivor]
    if not others:
        return
    house.last_kill, house.kills = time.monotonic(), house.kills + 1
    os.kill(others[0].pid, signal.SIGKILL)


def watch_memory(house: House) -> None:
    while house.running:
        time.sleep(2.0)
        try:
            family = [psutil.Process(house.survivor)]
            house.memory.append((time.monotonic() - house.begin, float(sum(p.memory_info().rss for p in family))))
        except psutil.NoSuchProcess:
            house.problems.append(f"worker {house.survivor} died although nobody killed it")
            return


def events(house: House, process: subprocess.Popen[bytes]) -> None:
    arbiter, rounds = psutil.Process(process.pid), 0
    while house.running:
        began, rounds = time.monotonic(), rounds + 1
        rolled(house)
        if not house.guest:
            reload(house, "steady", "rolling", "guest")
            house.guest = True
        else:
            house.guest = False
            time.sleep(0.5)  # calls that were sent while it was there
            reload(house, "steady", "rolling")
        if house.workers_wanted > 1 and rounds % KILL_EVERY == 0:
            kill_one(house, arbiter)
        house.stopping.wait(max(0.0, min(began + PERIOD_S, house.end) - time.monotonic()))


def growth(house: House) -> tuple[float, float]:
    """Median bytes of the second quarter and of the last."""
    whole = house.memory[-1][0] if house.memory else 0.0
    quarter = lambda a, b: [m for t, m in house.memory if a * whole <= t < b * whole]  # noqa: E731
    early, late = quarter(0.25, 0.5), quarter(0.75, 1.01)
    return (statistics.median(early), statistics.median(late)) if early and late else (0.0, 0.0)


def report(house: House, code: int) -> int:
    early, late = growth(house)
    lost = house.rest_tally.lost + house.rpc_tally.lost
    if late > early * (1 + GROWTH) + GROWTH_BYTES:
        house.problems.append(f"memory grew from {early / 1e6:.0f} to {late / 1e6:.0f} MB")
    if code:
        house.problems.append(f"the server ended with {code}")
    print(f"{(time.monotonic() - house.begin) / 60:.1f} minutes, {house.workers_wanted} workers")
    print(f"events: {dict(house.events)}, {house.kills} kills")
    print(f"REST: {dict(house.rest_tally.outcomes)}\ngRPC: {dict(house.rpc_tally.outcomes)}")
    print(f"memory of the long-lived worker: {early / 1e6:.0f} MB, later {late / 1e6:.0f} MB")
    for line in (*lost, *house.problems):
        print(f"FAILED: {line}")
    print("passed" if not lost and not house.problems else f"failed; the server's log is {house.folder / 'log'}")
    return 1 if lost or house.problems else 0


def soak(house: House, minutes: float) -> int:
    models.ensure(MODEL)
    for name in ("steady", "rolling", "guest"):
        put(house, name, 1)
    with server(house) as process:
        while not is_ready(house):
            if process.poll() is not None:
                print((house.folder / "log").read_text()[-2000:])
                return 1
            time.sleep(0.5)
        house.survivor = psutil.Process(process.pid).children()[0].pid
        house.begin = time.monotonic()
        house.end = house.begin + minutes * 60
        threads = [threading.Thread(target=rest_client, args=(house, i)) for i in range(REST_CLIENTS)]
        threads += [threading.Thread(target=rpc_client, args=(house, i)) for i in range(RPC_CLIENTS)]
        threads.append(threading.Thread(target=watch_memory, args=(house,)))
        for thread in threads:
            thread.start()
        try:
            events(house, process)
        finally:
            house.stopping.set()
            for thread in threads:
                thread.join(60)
        process.terminate()
        code = process.wait(60)
    return report(house, code)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="tfopt-soak-"))
    code = soak(House(folder, given.minutes, given.workers), given.minutes)
    if not code:
        shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
