"""What the process must hold, measured from outside: the second start, and SIGTERM under load."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

from benchmarks import models, requests, servers, stats, wire
from benchmarks.load import client

TENSORFLOW = "/site-packages/tensorflow/"
FLAGS = ("--allow_precompilation",)


@dataclasses.dataclass(frozen=True)
class Starts:
    """Seconds from the start of the process to the first 200 of the health route.

    `tensorflow`: files of TensorFlow that any of the server's processes had mapped after the last start (its modules
    cannot be imported without them); `engines`: the engines of the plan it started from.
    """

    first_s: float
    second_s: stats.Spread
    tensorflow: tuple[str, ...]
    engines: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Drain:
    """A server that got SIGTERM in the middle of a closed loop. `lost` and `failed` must be 0, and so `exit_code`."""

    face: str
    sent: int
    answered: int
    failed: int
    lost: int
    refused: int
    exit_code: int
    stop_s: float
    first_error: str


def starts(work: Path, times: int = 5, name: str = "mlp") -> Starts:
    """Starts once without a plan, then `times` times with the plan of the first start."""
    model = models.MODELS[name]
    base, plans, log = models.ensure(model), work / "start_plans", work / "logs" / "start.log"
    shutil.rmtree(plans, ignore_errors=True)
    with servers.tfopt(base, FLAGS, plans, log) as server:
        first = server.ready_s
    seconds: list[float] = []
    mapped: tuple[str, ...] = ()
    for _ in range(times):
        with servers.tfopt(base, FLAGS, plans, log) as server:
            seconds.append(server.ready_s)
            mapped = tuple(server.maps(TENSORFLOW))
    return Starts(first, stats.spread(seconds), mapped, engines(plans))


def engines(plans: Path) -> tuple[str, ...]:
    """The engines of every plan below a cache folder."""
    from tfopt_optimizer import plan

    return tuple(
        sorted({engine for file in plans.rglob(plan.FILE_NAME) for engine in plan.read(file.parent).engines()})
    )


def drain(face: str, work: Path, effort: wire.Effort, name: str = "mlp") -> Drain:
    """SIGTERM after half of the measured time; every request that was written must be answered, and well."""
    model = models.MODELS[name]
    base, log = models.ensure(model), work / "logs" / f"drain-{face}.log"
    load = wire.Load(face, wire.REST_CONNECTIONS if face == "rest" else wire.GRPC_IN_FLIGHT)
    bodies = requests.rest(model) if face == "rest" else requests.grpc(model)
    with servers.tfopt(base, FLAGS, work / "plans", log) as server:
        task = wire.job(load, server, bodies, effort)
        with client.start(task) as process:
            time.sleep(task.warmup_s + task.seconds / 2)
            began = time.monotonic()
            server.terminate()
            code = server.process.wait(servers.STOP_TIMEOUT_S)
            stopped = time.monotonic() - began
            found = client.outcome(process, task)
    lost = found.lost + found.late
    return Drain(face, found.sent, found.answered, found.failed, lost, found.refused, code, stopped, found.first_error)
