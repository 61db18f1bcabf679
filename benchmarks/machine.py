"""Describes the machine a result was measured on: a number without its machine cannot be compared."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import re
from pathlib import Path

from tfopt_optimizer.cpu import usable_cores

# The instruction sets that decide how fast float32, bfloat16 and int8 run.
FLAGS = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
)
PACKAGES = (
    *("tfopt", "tensorflow", "tensorflow-cpu", "jax", "jaxlib", "ai-edge-litert", "openvino", "numpy"),
    *("grpcio", "gunicorn", "uvloop", "orjson", "protobuf"),
)


@dataclasses.dataclass(frozen=True)
class Machine:
    """`cores` are those this process may use (affinity and the cgroup's CPU quota); `load` is the 1-minute average."""

    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory_gib: float
    system: str
    python: str
    versions: dict[str, str]
    load: float

    def label(self) -> str:
        """Short, for a file name: "xeon-processor-2c"."""
        words = re.sub(r"\((r|tm)\)|cpu|@.*", " ", self.cpu.lower())
        name = "-".join(re.findall(r"[a-z0-9]+", words)[:4]) or "unknown"
        return f"{name}-{self.cores}c"


def describe() -> Machine:
    info = Path("/proc/cpuinfo").read_text()
    memory = Path("/proc/meminfo").read_text()
    return Machine(
        cpu=cpu_model(info),
        cores=usable_cores(),
        flags=cpu_flags(info),
        memory_gib=round(memory_gib(memory), 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=_versions(),
        load=round(os.getloadavg()[0], 2),
    )


def cpu_model(cpuinfo: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return " ".join(found.group(1).split()) if found else platform.machine()


def cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    present = set(found.group(1).split()) if found else set()
    return tuple(flag for flag in FLAGS if flag in present)


def memory_gib(meminfo: str) -> float:
    found = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(found.group(1)) / 2**20 if found else 0.0


def _versions() -> dict[str, str]:
    installed = {dist.name.lower().replace("_", "-"): dist.version for dist in importlib.metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}
