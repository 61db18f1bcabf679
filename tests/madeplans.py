"""Plans made by hand, for the tests of what is told about them."""

from __future__ import annotations

import dataclasses

from tfopt_optimizer.plan import (
    Agreement,
    BucketPlan,
    Candidate,
    Fingerprint,
    Measured,
    Plan,
    SignatureInfo,
    SignaturePlan,
    TensorInfo,
)

EVIL = "<script>alert('1')</script>\"&amp;\x00\x1b[2J\u202e\ud800]]><!--"


def candidate(
    engine: str, variant: str, status: str, us: float | None, error: float | None = None, **rest: object
) -> Candidate:
    measured = Measured(us, us * 1.2, 100) if us is not None else None
    agreement = Agreement(error, error / 10, 64, 1.0) if error is not None else None
    return Candidate(engine, variant, status, str(rest.pop("reason", "")), measured, agreement, 0.5, 4096, **rest)  # type: ignore[arg-type]


def bucket(batch: int | None, *candidates: Candidate, shape: tuple[int, ...] = (1, 4)) -> BucketPlan:
    best = next((c for c in candidates if c.status == "chosen"), Candidate("tensorflow", "function", "chosen", ""))
    return BucketPlan(batch, {"x": shape}, best.engine, best.variant, batch is not None, "", candidates, "why")


def plan(*buckets: BucketPlan, key: str = "serving_default", **changes: object) -> Plan:
    tensor = TensorInfo("x", "float", (None, 4), "x:0")
    info = SignatureInfo(key, "tensorflow/serving/predict", (tensor,), (TensorInfo("y", "float", None),))
    signature = SignaturePlan(info, True, "3 rows gave the same answer", True, "a row costs 2 us", buckets)
    made = Plan(
        Fingerprint("m", '{"lossless_max_rel_error": 0.0001}', {"tfopt": "1"}, {"processor": "A CPU", "cores": "2"}),
        "cpu", "function", "warmup", (signature,), ("xla 3 us chosen",), "2026-11-22T10:00:00+00:00", 3.2, 123456,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def usual() -> Plan:
    plain = candidate("tensorflow", "function", "slower", 800.0)
    return plan(
        bucket(1, plain, candidate("xla", "pjrt", "chosen", 100.0, 3e-7), candidate("litert", "t1", "rejected", None,
               reason="max error 0.02 is above 0.0001")),
        bucket(8, plain, candidate("xla", "pjrt", "slower", 200.0, 3e-7),
               candidate("litert", "t1", "chosen", 150.0, 0.0)),
    )  # fmt: skip
