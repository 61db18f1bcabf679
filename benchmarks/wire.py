"""Over the wire: a real `tfopt serve` under closed-loop and open-loop load, REST and gRPC, beside its ceilings.

Closed loop finds the highest rate; the open loop then runs at a share of it and shows the latency that users would see.
The bare servers (baselines/) get the same bytes from the same client in the same rounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import models, requests, rounds, servers, stats
from benchmarks.load import client
from benchmarks.load.job import Job, Outcome
from benchmarks.models import Model

REST_CONNECTIONS = 16  # the bars' numbers of lanes
GRPC_IN_FLIGHT = 8
OPEN_LOOP_SHARE = 0.6  # of the closed loop's rate: busy, and not yet at the edge where every queue is long
# Variant -> flags of tfopt serve. "plain" is the SavedModel as it is, behind the same faces.
VARIANTS: Mapping[str, tuple[str, ...]] = {"tfopt": ("--allow_precompilation",), "plain": ("--disable_optimizer",)}


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure. Quick is for a look, not for a comparison."""

    rounds: int
    seconds: float
    warmup_s: float


BARS, FULL, QUICK = Effort(5, 4.0, 1.0), Effort(3, 3.0, 0.5), Effort(2, 1.0, 0.5)


@dataclasses.dataclass(frozen=True)
class Load:
    """`lanes` requests in flight (closed loop), or Poisson arrivals at `open_share` of the bars' closed-loop rate."""

    face: str
    lanes: int
    open_share: float = 0.0

    @property
    def label(self) -> str:
        lanes = f"{self.lanes} connection{'s' * (self.lanes > 1)}" if self.face == "rest" else f"{self.lanes} in flight"
        return f"{self.face}, " + (f"open loop at {self.open_share:.0%}" if self.open_share else lanes)


LOADS = (
    Load("rest", 1),
    Load("rest", REST_CONNECTIONS),
    Load("rest", 4 * REST_CONNECTIONS, OPEN_LOOP_SHARE),
    Load("grpc", 1),
    Load("grpc", GRPC_IN_FLIGHT),
    Load("grpc", 8 * GRPC_IN_FLIGHT, OPEN_LOOP_SHARE),
)
BAR_LOADS = (Load("rest", REST_CONNECTIONS), Load("grpc", GRPC_IN_FLIGHT))


@dataclasses.dataclass(frozen=True)
class Row:
    """A variant under a load: medians over the rounds; `lost` and `failed` are totals, which must be 0.

    `behind`: requests that were not answered in time, or not even sent: the server cannot do the open loop's rate.
    """

    model: str
    load: str
    variant: str
    rate: stats.Spread
    p50_us: float | None
    p99_us: float | None
    p999_us: float | None
    failed: int
    lost: int
    behind: int
    client_share: float
    lag_us: float
    first_error: str


@dataclasses.dataclass(frozen=True)
class Wire:
    """Rows, and per model: compiles after readiness, runners per bucket, seconds until ready with a cached plan."""

    rows: tuple[Row, ...]
    compiles_after_ready: Mapping[str, float]
    ready_s: Mapping[str, float]


def measure(chosen: Sequence[Model], effort: Effort, work: Path, loads: Sequence[Load] = LOADS) -> Wire:
    """`work` keeps plan caches and server logs between runs; plans found there are used as they are."""
    rows: list[Row] = []
    compiles: dict[str, float] = {}
    ready: dict[str, float] = {}
    for model in chosen:
        with _servers(model, work) as running:
            for load in loads:
                rows += _rows(model, load, _under(model, load, running, effort))
            compiles[model.name] = running["tfopt"].metric("tfopt_compiles_after_ready_total")
            ready |= {f"{model.name}, {name}": server.ready_s for name, server in running.items() if server.ready_s}
    return Wire(tuple(rows), compiles, ready)


@contextlib.contextmanager
def _servers(model: Model, work: Path) -> Iterator[dict[str, servers.Server]]:
    """All variants at once: an idle server costs nothing, and they can take turns within seconds."""
    base, logs = models.ensure(model), work / "logs"
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(servers.tfopt(base, flags, work / "plans", logs / f"{model.name}-{name}.log"))
            for name, flags in VARIANTS.items()
        }
        if model.name == "mlp":  # the bare app answers as the MLP does
            running["bare_asgi"] = stack.enter_context(servers.bare_asgi(logs / "bare_asgi.log"))
            running["echo_grpc"] = stack.enter_context(servers.echo_grpc(logs / "echo_grpc.log"))
        yield running


def _under(model: Model, load: Load, running: Mapping[str, servers.Server], effort: Effort) -> dict[str, list[Outcome]]:
    bodies = requests.rest(model) if load.face == "rest" else requests.grpc(model)
    able = {name: s for name, s in running.items() if (s.rest_port if load.face == "rest" else s.grpc_port)}
    rate = 0.0
    if load.open_share:
        able = {name: server for name, server in able.items() if name in VARIANTS}
        probe = client.run(job(load, able["tfopt"], bodies, effort))
        rate = probe.rate * load.open_share
    variants = {name: _runner(load, server, bodies, effort, rate) for name, server in able.items()}
    return rounds.in_turn(variants, effort.rounds, f"{model.name}, {load.label}")


def _runner(
    load: Load, server: servers.Server, bodies: tuple[bytes, ...], effort: Effort, rate: float
) -> Callable[[], Outcome]:
    return lambda: client.run(job(load, server, bodies, effort, rate))


def job(load: Load, server: servers.Server, bodies: tuple[bytes, ...], effort: Effort, rate: float = 0.0) -> Job:
    rest = load.face == "rest"
    lanes = (REST_CONNECTIONS if rest else GRPC_IN_FLIGHT) if load.open_share and not rate else load.lanes
    return Job(
        face=load.face,
        port=server.rest_port if rest else server.grpc_port,
        path=requests.REST_PATH if rest else requests.GRPC_METHOD,
        bodies=bodies,
        lanes=lanes,
        rate=rate,
        warmup_s=effort.warmup_s,
        seconds=effort.seconds,
    )


def _rows(model: Model, load: Load, found: Mapping[str, list[Outcome]]) -> list[Row]:
    return [
        Row(
            model=model.name,
            load=load.label,
            variant=name,
            rate=stats.spread([o.rate for o in outcomes]),
            **{f"{p}_us": _median_latency(outcomes, p) for p in ("p50", "p99", "p999")},
            failed=sum(o.failed for o in outcomes),
            lost=sum(o.lost for o in outcomes),
            behind=sum(o.late + o.unsent for o in outcomes),
            client_share=max(o.cpu_share for o in outcomes),
            lag_us=max(o.lag_us for o in outcomes),
            first_error=next((o.first_error for o in outcomes if o.first_error), ""),
        )
        for name, outcomes in found.items()
    ]


def _median_latency(outcomes: Sequence[Outcome], percentile: str) -> float | None:
    measured = [o.latency_us[percentile] for o in outcomes if o.latency_us]
    return stats.spread(measured).median if measured else None


HEADER = (
    *("model", "load", "variant", "req/s", "of bare", "p50 ms", "p99 ms", "p99.9 ms"),
    *("failed", "lost", "behind", "client cpu"),
)
BARE = ("bare_asgi", "echo_grpc")


def table_rows(rows: Sequence[Row]) -> list[tuple]:
    return [
        (
            row.model,
            row.load,
            row.variant,
            row.rate.median,
            share(rows, row),
            *(value and value / 1000 for value in (row.p50_us, row.p99_us, row.p999_us)),
            row.failed,
            row.lost,
            row.behind,
            f"{row.client_share:.0%}",
        )
        for row in rows
    ]


def share(rows: Sequence[Row], row: Row) -> str | None:
    """Rate as a share of the bare server under the same load, where one ran."""
    same = [r for r in rows if (r.model, r.load) == (row.model, row.load)]
    bare = next((r for r in same if r.variant in BARE), row)
    return f"{row.rate.median / bare.rate.median:.0%}" if bare is not row else None
