"""Where compiled segments run: cpu, gpu or tpu. Found by a process of its own, so that nothing a driver does harms us.

    found = device.find("auto")             # Found(Device("gpu", "NVIDIA H100 80GB HBM3", 1), {})

A runtime without its hardware may abort, hang on a metadata server, or hold memory that a later process needs: the
process that looks is gone when the answer is there.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

CPU, GPU, TPU, AUTO = "cpu", "gpu", "tpu", "auto"
NAMES = (CPU, GPU, TPU)
FIND_TIMEOUT_S = 120.0  # a TPU's first start takes tens of seconds


@dataclasses.dataclass(frozen=True)
class Device:
    """`kind` is the accelerator's model in its runtime's words, "" on cpu. `count`: how many are used, 0 all.
    `per_replica`: over how many each copy of a model is spread.

    `memory_fraction` of a gpu's memory is the most that this process takes, 0.0 what XLA takes by itself (3/4);
    `reserve`: at its start, so that nobody else can have it.
    """

    name: str = CPU
    kind: str = ""
    count: int = 1
    memory_fraction: float = 0.0
    reserve: bool = False
    per_replica: int = 1

    @property
    def replicas(self) -> int:
        return self.count // self.per_replica

    @property
    def accelerated(self) -> bool:
        return self.name != CPU


ON_CPU = Device()


@dataclasses.dataclass(frozen=True)
class Found:
    """The device to use, and why the ones that were asked for before it are not there."""

    device: Device
    missing: Mapping[str, str]


def find(asked: str, timeout_s: float = FIND_TIMEOUT_S) -> Found:
    """The device that `asked` ("cpu", "gpu", "tpu" or "auto") means on this machine; cpu where it is not there."""
    names = {CPU: (), AUTO: (GPU, TPU)}.get(asked, (asked,))
    missing: dict[str, str] = {}
    for name in names:
        answer = _ask(name, timeout_s)
        if "kind" in answer:
            return Found(Device(name, str(answer["kind"]), int(str(answer["count"]))), missing)
        missing[name] = str(answer["missing"])
    return Found(ON_CPU, missing)


def _ask(name: str, timeout_s: float) -> Mapping[str, object]:
    command = [sys.executable, "-m", "tfopt_optimizer.engines.probe", name]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"missing": f"its runtime gave no answer within {timeout_s:g} s"}
    return _read(done.stdout.splitlines()) or {
        "missing": f"its runtime ended with {done.returncode}: {_last(done.stderr.splitlines())}"
    }


def _read(lines: Sequence[str]) -> Mapping[str, object]:
    """The last line, which is the answer: runtimes print what they like before it."""
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:300]
