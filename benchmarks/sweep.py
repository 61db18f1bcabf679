"""Batch-size sweep of exported models on a cpu, gpu or tpu: latency, throughput, share of the chip's peak. jax alone.

    python -m benchmarks.sweep exported --device=gpu --seconds=1

Per batch size and variant: `call`, numpy in and numpy out, one at a time; `device`, the same without the transfers
(inputs stay on the device, the outputs' arrival there is waited for); `throughput`, rows per second with several
callers at once, numpy in and numpy out. The share of the peak is that of `device`: floating-point operations as XLA
counts them, against the vendor's number for dense products of that precision.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tfopt_optimizer import cpu, device
from tfopt_optimizer.device import Device
from tfopt_optimizer.engines import pjrt, xla
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.errors import EngineError

from benchmarks import exported, machine, table
from benchmarks.models import Model

RESULTS = Path(__file__).parent / "results"
VARIANTS = {"cpu": ("pjrt",), "gpu": ("gpu", "gpu+tf32"), "tpu": ("tpu", "tpu+bf16-products")}
CALLERS = (2, 4)
# Vendors' data sheets, dense, operations per second: (float32, what the accelerator does by itself). A TPU has no
# float32 products: XLA takes six of bfloat16 for one.
PEAKS = {
    "NVIDIA H100": (67e12, 495e12),
    "NVIDIA H200": (67e12, 495e12),
    "NVIDIA A100": (19.5e12, 156e12),
    "NVIDIA L4": (30.3e12, 60e12),
    "TPU v5 lite": (197e12 / 6, 197e12),
    "TPU v6 lite": (918e12 / 6, 918e12),
}


def peak(kind: str, variant: str) -> float | None:
    """Operations per second of the chip at a variant's precision; None for a chip that is not in the table."""
    found = next((both for name, both in PEAKS.items() if kind.startswith(name)), None)
    return found["+" in variant] if found else None


@dataclasses.dataclass(frozen=True)
class Row:
    """Times in milliseconds, medians. `error`: why this batch size does not run, else ""."""

    model: str
    batch: int
    variant: str
    compile_s: float = 0.0
    call_ms: float = 0.0
    call_p90_ms: float = 0.0
    device_ms: float = 0.0
    rows_per_s: float = 0.0
    callers: int = 0
    share_of_peak: float | None = None
    error: str = ""


def measure(model: Model, folder: Path, target: Target, used: Device, seconds: float) -> Row:
    """Compiles and times one batch size. What the device has no memory for is a row with its error."""
    place = Place(model.saved_model, folder, ("serve",), cpu.usable_cores(), cpu.usable_cores(), device=used)
    blank = Row(model.name, target.rows or 0, target.variant)
    try:
        replicas, started = xla.Replicas(place), time.perf_counter()
        executable = replicas.compile(target)
        compile_s = time.perf_counter() - started
        runner = replicas.runner(target, [executable])
        feeds = model.rows(target.rows or 1, 0)
        times = _times(lambda: runner(feeds), seconds)
        alone = statistics.median(_times(_on_device(runner, feeds), seconds))
        rates = {callers: _rate(lambda: runner(feeds), callers, seconds) for callers in CALLERS}
    except (EngineError, pjrt.runtime_error()) as error:
        return dataclasses.replace(blank, error=str(error).splitlines()[0])
    median, most = statistics.median(times), max(rates, key=lambda callers: rates[callers])
    best = max((rates[most], most), (1 / median, 1))
    limit = peak(used.kind, target.variant)
    return dataclasses.replace(
        blank,
        compile_s=compile_s,
        call_ms=median * 1e3,
        call_p90_ms=statistics.quantiles(times, n=10)[-1] * 1e3 if len(times) > 1 else median * 1e3,
        device_ms=alone * 1e3,
        rows_per_s=best[0] * (target.rows or 0),
        callers=best[1],
        share_of_peak=executable.operations() / alone / limit if limit else None,
    )


def _on_device(runner: xla.XlaRunner, feeds: Any) -> Callable[[], Any]:
    """A call with inputs that are on the device. An executable that may overwrite its inputs is given them anew."""
    (replica,) = runner._replicas
    given = [put(feeds[name]) for name, put in replica.putters]

    def call() -> None:
        if any(buffer.is_deleted() for buffer in given):
            given[:] = [put(feeds[name]) for name, put in replica.putters]
        for result in replica.execute([*given, *replica.weights]):
            result.block_until_ready()

    return call


def _times(call: Callable[[], Any], seconds: float) -> list[float]:
    """Of single calls, after two that do not count; three at least."""
    for _ in range(2):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def _rate(call: Callable[[], Any], callers: int, seconds: float) -> float:
    """Calls per second of so many threads, each calling again as soon as it has its answer."""

    def many(_number: int) -> int:
        made = 0
        while not made or time.perf_counter() < end:
            call()
            made += 1
        return made

    with ThreadPoolExecutor(callers) as threads:
        started = time.perf_counter()
        end = started + seconds
        made = sum(threads.map(many, range(callers)))
    return made / (time.perf_counter() - started)


def shown(found: Sequence[Row]) -> str:
    def share(row: Row) -> str:
        return "-" if row.share_of_peak is None else f"{row.share_of_peak:.0%}"

    return table.render(
        ("model", "batch", "variant", "call ms", "p90", "device ms", "rows/s", "callers", "of peak", "error"),
        [
            (r.model, r.batch, r.variant, f"{r.call_ms:.3g}", f"{r.call_p90_ms:.3g}", f"{r.device_ms:.3g}",
             f"{r.rows_per_s:.4g}", r.callers, share(r), r.error[:60])
            for r in found
        ],
    )  # fmt: skip


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--device", default="auto", choices=("cpu", "gpu", "tpu", "auto"))
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    there = device.find(given.device)
    if given.device not in ("auto", there.device.name):
        print(f"--device={given.device}: {'; '.join(there.missing.values())}", file=sys.stderr)
        return 1
    used = dataclasses.replace(there.device, count=1)
    found = []
    for model, folder, target in exported.read(given.exported):
        for variant in VARIANTS[used.name]:
            found.append(measure(model, folder, dataclasses.replace(target, variant=variant), used, given.seconds))
            print(json.dumps(dataclasses.asdict(found[-1])), flush=True)
    print(shown(found))
    here = machine.describe()
    name = "-".join([used.name, *used.kind.lower().split()]) if used.accelerated else "cpu"
    path = given.out / f"{datetime.date.today()}-{here.label()}-sweep-{name}.json"
    told = {"device": dataclasses.asdict(used), "machine": dataclasses.asdict(here)}
    path.write_text(json.dumps({**told, "rows": [dataclasses.asdict(r) for r in found]}, indent=1))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
