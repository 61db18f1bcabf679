"""`tfopt report PLAN`: the optimization log and a table of what runs where, for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfopt_optimizer.plan import BucketPlan, Candidate, Plan, PlanError, SignaturePlan, read

from tfopt_server.commands import HELP
from tfopt_server.commands.text import table

_COLUMNS = ("signature", "rows", "engine", "status", "median us", "p90 us", "max error", "reason")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    if any(a in HELP for a in argv) or len(argv) != 1:
        sys.stdout.write("usage: tfopt report PLAN\n\nPLAN is the folder that `tfopt optimize --out` wrote.\n")
        return 0 if any(a in HELP for a in argv) else 2
    try:
        plan = read(Path(argv[0]))
    except PlanError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(render(plan))
    return 0


def render(plan: Plan) -> str:
    """The whole report; candidates stand under their signature and bucket, the chosen one first."""
    head = [
        f"plan of {plan.created}, {plan.device}, {plan.optimize_s:.1f} s, checked on {plan.records} records",
        f"TensorFlow loads it as: {plan.loader}; weights {plan.weights_bytes / 1e6:.1f} MB",
    ]
    rows = [row for s in plan.signatures for b in s.buckets for row in _bucket(s, b)]
    return "\n".join([*head, "", *plan.log, "", *table([_COLUMNS, *rows])]) + "\n"


def _bucket(signature: SignaturePlan, bucket: BucketPlan) -> list[tuple[str, ...]]:
    rows = "exact" if bucket.batch is None else str(bucket.batch)
    ordered = sorted(bucket.candidates, key=lambda c: c.status != "chosen")
    return [(signature.signature.key, rows, *_candidate(c)) for c in ordered]


def _candidate(c: Candidate) -> tuple[str, ...]:
    measured, agreement = c.measured, c.agreement
    return (
        c.engine + (f"/{c.variant}" if c.variant else ""),
        c.status,
        f"{measured.median_us:.1f}" if measured else "-",
        f"{measured.p90_us:.1f}" if measured else "-",
        f"{agreement.max_rel_error:.1e}" if agreement else "-",
        c.reason,
    )
