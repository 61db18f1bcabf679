"""The load process: `python -m benchmarks.load.client < job.json > outcome.json`.

It is a process of its own so that building requests, starting servers and printing tables never share a core's time
slice with the measurement.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import selectors
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from benchmarks import stats
from benchmarks.load import http1, http2, job, pace

CLOCK = time.perf_counter
ROOT = Path(__file__).parents[2]
CONNECT_TIMEOUT_S = 10.0


def run(task: job.Job) -> job.Outcome:
    """Runs the job in a child process and waits for it, never longer than the job allows."""
    with start(task) as process:
        return outcome(process, task)


def start(task: job.Job) -> subprocess.Popen[str]:
    """Starts the load in the background; `outcome` waits for it."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "benchmarks.load.client"]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
    assert process.stdin is not None
    process.stdin.write(job.dump(task))
    process.stdin.close()
    process.stdin = None  # communicate() must not touch it again
    return process


def outcome(process: subprocess.Popen[str], task: job.Job) -> job.Outcome:
    limit = CONNECT_TIMEOUT_S + task.warmup_s + task.seconds + task.grace_s + 10
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"the load process ended with {process.returncode}: {err.strip()[-2000:]}")
    return job.Outcome(**json.loads(out))


async def measure(task: job.Job) -> job.Outcome:
    relay = _Relay()
    lanes, connections = await asyncio.wait_for(_connect(task, relay), CONNECT_TIMEOUT_S)
    began, cpu = CLOCK(), time.process_time()
    start = began + task.warmup_s
    ledger = pace.Ledger(start, start + task.seconds)
    if task.rate:
        arrivals = pace.poisson(task.rate, task.warmup_s + task.seconds, task.limit, task.seed)
        driver = relay.driver = pace.OpenLoop(lanes, CLOCK, ledger, [began + t for t in arrivals])
        while (wait := driver.tick()) is not None:
            await asyncio.sleep(wait)
    else:
        driver = relay.driver = pace.ClosedLoop(lanes, CLOCK, ledger, task.limit)
        driver.begin()
    deadline = ledger.stop + task.grace_s
    while not driver.finished() and CLOCK() < deadline:
        await asyncio.sleep(0.01)
    used = (time.process_time() - cpu) / (CLOCK() - began)
    for connection in connections:
        connection.close()
    return _result(ledger, driver, used)


class _Relay:
    """Lanes need an owner when they connect, the driver needs connected lanes: this stands between."""

    driver: pace.ClosedLoop | pace.OpenLoop

    def answered(self, lane: pace.Lane, error: str = "", reusable: bool = True) -> None:
        self.driver.answered(lane, error, reusable)

    def lost(self, lane: pace.Lane, why: str, refused: bool = False) -> None:
        self.driver.lost(lane, why, refused)


async def _connect(task: job.Job, owner: _Relay):
    loop = asyncio.get_running_loop()
    if task.face == "rest":
        requests = [http1.request(task.host, task.port, task.path, body) for body in task.bodies]
        lanes = [http1.HttpLane(owner, requests, i % len(requests)) for i in range(task.lanes)]
        for lane in lanes:
            await loop.create_connection(lambda lane=lane: lane, task.host, task.port)
        return lanes, lanes
    authority = f"{task.host}:{task.port}"
    connections = [http2.GrpcConnection(owner, authority, task.path, task.bodies) for _ in range(task.connections)]
    for connection in connections:
        await loop.create_connection(lambda connection=connection: connection, task.host, task.port)
        await connection.ready
    return [http2.StreamLane(connections[i % task.connections]) for i in range(task.lanes)], connections


def _result(ledger: pace.Ledger, driver: pace.ClosedLoop | pace.OpenLoop, used: float) -> job.Outcome:
    times = [seconds * 1e6 for seconds in ledger.latencies]
    return job.Outcome(
        rate=ledger.rate(),
        latency_us=dataclasses.asdict(stats.summary(times)) if times else None,
        sent=ledger.sent,
        answered=ledger.answered,
        failed=ledger.failed,
        lost=ledger.lost,
        refused=ledger.refused,
        late=ledger.sent - ledger.answered - ledger.lost - ledger.refused,
        unsent=driver.unsent() if isinstance(driver, pace.OpenLoop) else 0,
        lag_us=ledger.lag * 1e6,
        cpu_share=used,
        first_error=ledger.first_error,
    )


def main() -> int:
    task = job.load(sys.stdin.read())
    gc.disable()  # a collection of the client's own garbage must not look like a slow server
    # The open loop needs timers finer than the millisecond that epoll and libuv round to: select() takes microseconds.
    # It watches 1024 descriptors at most, more than any job here opens.
    fine = asyncio.SelectorEventLoop(selectors.SelectSelector()) if task.rate else uvloop.new_event_loop()
    with asyncio.Runner(loop_factory=lambda: fine) as runner:
        result = runner.run(measure(task))
    json.dump(dataclasses.asdict(result), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
