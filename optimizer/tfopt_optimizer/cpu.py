"""How many cores this process may really use, and which processor they are.

A container with `--cpus=2` on a 64-core host sees 64 cores in os.cpu_count(); thread pools of that size fight over two
cores' worth of time. The CPU affinity and the cgroup quota (v2 cpu.max, v1 cpu.cfs_quota_us) are what counts.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def usable_cores(root: Path = CGROUP_ROOT, proc: Path = PROC, affinity: int | None = None) -> int:
    """Cores by affinity, cut by the tightest cgroup quota above this process, at least 1.

    A quota of 2.5 cores counts as 3: a pool of 2 could not use what was paid for.
    """
    cores = affinity if affinity is not None else len(os.sched_getaffinity(0))
    quotas = [math.ceil(q) for q in _quotas(root, proc)]
    return max(1, min([cores, *quotas]))


def _quotas(root: Path, proc: Path) -> Iterable[float]:
    """Quotas in cores, of this process's cgroups and all their parents."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            base, parse = root, _v2
        elif "cpu" in controllers.split(","):
            base, parse = root / "cpu", _v1
        else:
            continue
        # Inside a container the group's path may not exist below the mount: the mount's own root still holds its quota.
        folder = base / group.strip("/")
        while True:
            quota = parse(folder)
            if quota is not None:
                yield quota
            if folder in (base, base.parent) or base not in folder.parents:
                break
            folder = folder.parent


def _v2(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # no such controller on this machine: no quota


def processor(proc: Path = PROC) -> dict[str, str]:
    """Model name and instruction set flags: compiled code is only valid on an equal processor."""
    found: dict[str, str] = {}
    for line in _read(proc / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        key = {"model name": "model", "flags": "isa", "Features": "isa", "CPU part": "model"}.get(name.strip())
        if key:
            found.setdefault(key, value.strip())
    return found


# Instruction sets that engines and compilers choose their code by, x86-64 and arm64; the kernel names a hundred more.
_COMPUTING = re.compile(r"s?sse\w*|avx\w*|fma\w*|f16c|bmi\d|amx\w*|asimd\w*|sve\w*|sme\w*|i8mm|bf16|fphp")


def features(isa: str) -> tuple[str, ...]:
    """Of a processor's flags those that decide which code runs on it, sorted."""
    return tuple(sorted({word for word in isa.split() if _COMPUTING.fullmatch(word)}))
