"""What a load process is asked to do and what it answers: JSON over stdin and stdout."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

LOOPBACK = ("127.0.0.1", "::1", "localhost")
LONGEST_S = 120.0


@dataclasses.dataclass(frozen=True)
class Job:
    """One measurement.

    `face`: "rest" or "grpc". `path`: the URL path or the gRPC method. `bodies`: request bodies, sent in turn. `lanes`:
    requests in flight at most; for gRPC they share `connections`. `rate`: arrivals per second (open loop), 0 for closed
    loop. `warmup_s` before and `seconds` during which answers count; `limit`: requests at most, whatever the time.
    `grace_s`: how long the last answers may take.
    """

    face: str
    port: int
    path: str
    bodies: tuple[bytes, ...]
    lanes: int
    rate: float = 0.0
    warmup_s: float = 0.5
    seconds: float = 3.0
    limit: int = 1_000_000
    grace_s: float = 10.0
    connections: int = 1
    seed: int = 1
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK:
            raise ValueError(f"host: loopback addresses only, received {self.host!r}")
        if self.face not in ("rest", "grpc"):
            raise ValueError(f"face: expected rest or grpc, received {self.face!r}")
        if not 0 < self.warmup_s + self.seconds + self.grace_s <= LONGEST_S:
            raise ValueError(f"a measurement takes at most {LONGEST_S:.0f} s")
        if self.lanes < 1 or self.limit < 1 or not self.bodies:
            raise ValueError("lanes, limit and bodies: at least one of each")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`rate`: good answers per second. `latency_us`: a stats.Summary as a mapping, None when nothing was measured.

    `cpu_share`: CPU seconds the client used per second; near 1 the client is the limit and the result says little.
    `lag_us`: the longest the open loop itself was late. `late`: still without an answer when the grace was over;
    `unsent`: arrivals that never found a free lane. Both mean that an open loop asked for more than the server can do.
    """

    rate: float
    latency_us: dict[str, float] | None
    sent: int
    answered: int
    failed: int
    lost: int
    refused: int
    late: int
    unsent: int
    lag_us: float
    cpu_share: float
    first_error: str


def dump(job: Job) -> str:
    data: dict[str, Any] = dataclasses.asdict(job)
    data["bodies"] = [base64.b64encode(body).decode() for body in job.bodies]
    return json.dumps(data)


def load(text: str) -> Job:
    data = json.loads(text)
    data["bodies"] = tuple(base64.b64decode(body) for body in data["bodies"])
    return Job(**data)
