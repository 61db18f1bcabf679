"""How much memory a server needs at its worst, with a plan and on plain TensorFlow: the start and calls of each size.

`python -m benchmarks.memory [MODEL]` prints it. The peak is the system's own high-water mark of resident memory, summed
over the server's processes; pages of mapped files count as far as they were touched.
"""

from __future__ import annotations

import dataclasses
import http.client
import sys
from pathlib import Path

from benchmarks import inprocess, models, requests, servers

CALLS = 8  # per batch size


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes. `engines`: what the plan runs on."""

    model: str
    plan: int
    plain: int
    engines: tuple[str, ...]


def measure(work: Path, name: str = "bert_base") -> Memory:
    """The plan is made before: the optimizer's processes are not the server's."""
    model, plans = models.MODELS[name], work / "plans"
    models.ensure(model)
    plan, _ = inprocess.optimized(model, inprocess.FLAGS["default"], plans)
    log = work / "logs" / f"memory-{name}.log"
    found = {flags: _peak(model, flags, plans, log) for flags in ((), ("--disable_optimizer",))}
    return Memory(name, found[()], found[("--disable_optimizer",)], tuple(sorted(plan.engines())))


def _peak(model: models.Model, flags: tuple[str, ...], plans: Path, log: Path) -> int:
    with servers.tfopt(model.base, flags, plans, log) as server:
        for batch in model.buckets:
            for body in (requests.rest(model, batch) * CALLS)[:CALLS]:
                _predict(server, body)
        return sum(high_water(Path(f"/proc/{process.pid}/status").read_text()) for process in server.processes())


def _predict(server: servers.Server, body: bytes) -> None:
    connection = http.client.HTTPConnection(servers.HOST, server.rest_port, timeout=60)
    try:
        connection.request("POST", requests.REST_PATH, body)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"a request got {answer.status}: {answer.read()[:300]!r}, see {server.log}")
        answer.read()
    finally:
        connection.close()


def high_water(status: str) -> int:
    """Bytes of VmHWM in /proc/<pid>/status; 0 for a process that has none (it just ended)."""
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0][1]) << 10 if lines else 0


def main(name: str = "bert_base") -> int:
    found = measure(models.ROOT / ".work", name)
    with_plan, without = (f"{peak / 1e6:,.0f} MB" for peak in (found.plan, found.plain))
    print(f"{name}: {with_plan} with a plan ({', '.join(found.engines)}), {without} without")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
