"""`tfopt report PLAN`: what a plan decided, and why. Text, a page for browsers (--html), or JSON (--json)."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt_server import argv as arguments
from tfopt_server import flags
from tfopt_server.commands import HELP
from tfopt_server.commands.text import plain, table

if TYPE_CHECKING:
    from tfopt_optimizer.plan import BucketPlan, Candidate, Plan, SignaturePlan

FLAGS = (
    flags.Flag("json", "bool", False, "the whole plan as one JSON object"),
    flags.Flag("html", "str", "", "write a self-contained page to this file instead"),
)
USAGE = (
    "usage: tfopt report PLAN [--json | --html=FILE]\n\n"
    "PLAN is the folder that `tfopt optimize --out` wrote. Prints the optimization log and a table of all candidates;\n"
    "--html writes a page with plots that loads nothing from anywhere, --json prints the plan.\n"
    "A running server shows the same at /optimization.\n"
)
_COLUMNS = ("signature", "rows", "engine", "status", "median us", "p90 us", "max error", "reason")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0: reported; 1: there is no readable plan, or the page cannot be written; 2: mistakes in the arguments."""
    if any(a in HELP for a in argv):
        sys.stdout.write(USAGE)
        return 0
    parsed = arguments.parse(argv, FLAGS, environ)
    mistakes = [*parsed.errors, *parsed.unknown]
    if len(parsed.positionals) != 1:
        mistakes.append(f"expected one PLAN, received {list(parsed.positionals)}")
    if parsed.values.get("json") and parsed.values.get("html"):
        mistakes.append("expected --json or --html, received both")
    if mistakes:
        sys.stderr.write("".join(f"tfopt report: {mistake}\n" for mistake in mistakes) + USAGE)
        return 2
    return _report(Path(parsed.positionals[0]), bool(parsed.values.get("json")), str(parsed.values.get("html", "")))


def _report(folder: Path, as_json: bool, html: str) -> int:
    from tfopt_optimizer.plan import PlanError, read

    try:
        plan = read(folder)
        if html:
            Path(html).write_text(_page(folder, plan), encoding="utf-8")
    except (PlanError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if html:
        sys.stdout.write(f"{html}\n")
    elif as_json:
        sys.stdout.write(json.dumps(dataclasses.asdict(plan), indent=1) + "\n")
    else:
        sys.stdout.write(render(plan))
    return 0


def _page(folder: Path, plan: Plan) -> str:
    from tfopt_optimizer.page import page

    return page.render([page.Version(folder.resolve().name, None, "", plan)])


def render(plan: Plan) -> str:
    """The whole report; candidates stand under their signature and bucket, the chosen one first."""
    from tfopt_optimizer.report import loaded

    head = [
        f"plan of {plan.created}, {plan.where}, {plan.optimize_s:.1f} s, checked on {plan.records} records",
        f"TensorFlow loads it as: {plan.loader}{loaded(plan)}; weights {plan.weights_bytes / 1e6:.1f} MB",
    ]
    rows = [row for s in plan.signatures for b in s.buckets for row in _bucket(s, b)]
    cuts = [line for s in plan.signatures for line in _segments(s)]
    lines = [*head, "", *plan.log, "", *table([_COLUMNS, *rows]), *cuts]
    return "\n".join(plain(line) for line in lines) + "\n"


def _segments(signature: SignaturePlan) -> list[str]:
    """The cut of a signature, for its buckets that run on host+engine: a line per segment."""
    lines = []
    for segment in signature.segments:
        kinds = ", ".join(f"{kind} x{n}" for kind, n in sorted(segment.kinds.items(), key=lambda k: (-k[1], k[0])))
        why = sorted({operation.why for operation in segment.operations if operation.why})
        takes = f"; takes {', '.join(t.name for t in segment.takes)}" if segment.takes else ""
        reason = f"; {'; '.join(why)}" if why else ""
        lines.append(f"  {segment.where} {segment.runs_on}".rstrip() + f": {kinds or 'passes on'}{takes}{reason}")
    return ["", f"{signature.signature.key} is cut into", *lines] if lines else []


def _bucket(signature: SignaturePlan, bucket: BucketPlan) -> list[tuple[str, ...]]:
    rows = "exact" if bucket.batch is None else "x".join(map(str, (bucket.batch, *bucket.inner)))
    ordered = sorted(bucket.candidates, key=lambda c: c.status != "chosen")
    return [(signature.signature.key, rows, *_candidate(c)) for c in ordered]


def _candidate(c: Candidate) -> tuple[str, ...]:
    from tfopt_optimizer.page import facts

    measured, agreement = c.measured, c.agreement
    return (
        facts.candidate_name(c),
        c.status,
        f"{measured.median_us:.1f}" if measured else "-",
        f"{measured.p90_us:.1f}" if measured else "-",
        f"{agreement.max_rel_error:.1e}" if agreement else "-",
        c.reason,
    )
