"""`tfopt doctor MODEL`: is this SavedModel fit to be served, and what should be changed before the next export.

MODEL is a SavedModel or a base path with versions (the newest is taken), here or in a bucket. Needs no TensorFlow and
takes about a second, and what a bucket takes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt_optimizer.wording import plain

from tfopt_server import argv as arguments
from tfopt_server import flags
from tfopt_server.commands import HELP
from tfopt_server.commands.models import CACHE

if TYPE_CHECKING:
    from tfopt_optimizer.doctor.findings import Finding

FLAGS = (
    flags.Flag("json", "bool", False, "one JSON object instead of text"),
    flags.Flag("strict", "bool", False, "warnings count as errors in the exit status"),
    CACHE,
    flags.Flag("saved_model_tags", "strs", ("serve",), "tags of the graph to examine"),
)
USAGE = (
    "usage: tfopt doctor MODEL [--json] [--strict] [--saved_model_tags=serve] [--model_cache_dir=DIR]\n\n"
    "Checks a SavedModel for what makes serving fail, slow or large, with a remedy for each finding.\n"
    "Exit status 0: nothing that must be mended; 1: errors (with --strict: or warnings); 2: the model cannot be read.\n"
)
CANNOT_READ = 2
_SHOWN = 8  # pieces of evidence per finding; --json has all


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    if any(a in HELP for a in argv):
        sys.stdout.write(USAGE)
        return 0
    parsed = arguments.parse(argv, FLAGS, environ)
    mistakes = [*parsed.errors, *parsed.unknown]
    if len(parsed.positionals) != 1:
        mistakes.append(f"expected one MODEL, received {list(parsed.positionals)}")
    if mistakes:
        sys.stderr.write("".join(f"tfopt doctor: {mistake}\n" for mistake in mistakes) + USAGE)
        return CANNOT_READ
    tags = parsed.values.get("saved_model_tags", ("serve",))
    chosen = tags if isinstance(tags, tuple) else ()
    return _examine(parsed.positionals[0], chosen, parsed.values, environ)


def _examine(model: str, tags: Sequence[object], values: Mapping[str, object], environ: Mapping[str, str]) -> int:
    from tfopt_optimizer.doctor.examine import exit_status
    from tfopt_optimizer.saved_model import SavedModelError

    from tfopt_server import checkup
    from tfopt_server.commands import models

    try:
        folder = models.named(model, values, environ)
        findings = checkup.examine(folder, [str(tag) for tag in tags])
    except (SavedModelError, OSError) as error:
        sys.stderr.write(f"tfopt doctor: {error}\n")
        return CANNOT_READ
    status = exit_status(findings, bool(values.get("strict")))
    if values.get("json"):
        document = {"model": str(folder), "findings": [dataclasses.asdict(f) for f in findings], "exit_status": status}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        sys.stdout.write(render(folder, findings))
    return status


def render(folder: Path, findings: Sequence[Finding]) -> str:
    """The findings for people, each with its evidence and remedy, and a line that sums up."""
    number = Counter(f.severity.value for f in findings)
    total = ", ".join(
        f"{number[s]} {s}{'' if number[s] == 1 or s == 'info' else 's'}" for s in ("error", "warning", "info")
    )
    return "\n".join([str(folder), "", *(line for f in findings for line in _finding(f)), total]) + "\n"


def _finding(finding: Finding) -> list[str]:
    shown = list(finding.evidence[:_SHOWN])
    if len(finding.evidence) > _SHOWN:
        shown.append(f"... and {len(finding.evidence) - _SHOWN} more (--json has all)")
    remedy = textwrap.wrap(finding.remedy, 100, initial_indent="    -> ", subsequent_indent="       ")
    head = f"{finding.severity.value:<7} {finding.check}: {finding.finding}"
    return [plain(head), *(f"      {plain(name)}" for name in shown), *remedy, f"       [{finding.source}]", ""]
