"""`tfopt report PLAN`: what a plan decided, and why. Text, a page for browsers (--html), or JSON (--json)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt_server import argv as arguments
from tfopt_server import flags
from tfopt_server.commands import HELP, plan_text

if TYPE_CHECKING:
    from tfopt_optimizer.plan import Plan

FLAGS = (
    flags.Flag("json", "bool", False, "the whole plan as one JSON object"),
    flags.Flag("html", "str", "", "write a self-contained page to this file instead"),
)
USAGE = (
    "usage: tfopt report PLAN [--json | --html=FILE]\n\n"
    "PLAN is the folder that `tfopt optimize --out` wrote. Prints what was chosen, the log, and every candidate;\n"
    "--html writes a page with plots that loads nothing from anywhere, --json prints the plan.\n"
    "A running server shows the same at /optimization.\n"
)


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
        sys.stdout.buffer.write(_json(plan))
    else:
        sys.stdout.write(plan_text.render(plan))
    return 0


def _json(plan: Plan) -> bytes:
    """As /optimization writes it: errors that are no numbers are null, for which JSON has no other word."""
    import orjson

    return orjson.dumps(plan, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _page(folder: Path, plan: Plan) -> str:
    from tfopt_optimizer.page import page

    return page.render([page.Version(folder.resolve().name, None, "", plan)])
