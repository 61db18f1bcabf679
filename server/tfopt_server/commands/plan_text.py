"""A plan as text for terminals: what was chosen, the log, every candidate, and what stays on the host.

Signatures that share a plan stand once. Lines are WIDTH columns long where names allow it; the table of a bucket has
the candidates with numbers, and below it the others, those that lost for like reasons together. JSON has all of it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tfopt_optimizer.wording import plain

from tfopt_server.commands.text import table

if TYPE_CHECKING:
    from tfopt_optimizer.page.facts import Bucket, Group
    from tfopt_optimizer.plan import Candidate, Crossing, Plan, Segment

WIDTH = 110
_NAMED = 12  # tensors and kinds of operations of one segment
_NONE = "-"
_CHOICES = ("chosen", "median", "plain TF", "faster", "max error", "memory")
_COLUMNS = (
    "candidate", "status", "median", "p90", "vs plain", "calls/s", "max err", "mean err", "compile", "memory",
)  # fmt: skip
_TEXTS = 2  # the columns on the left are words, the others numbers


def render(plan: Plan) -> str:
    """The whole report."""
    from tfopt_optimizer.page import facts
    from tfopt_optimizer.report import loaded
    from tfopt_optimizer.wording import size

    groups = facts.groups(plan)
    head = [
        f"plan of {plan.created}, {plan.where}, {plan.optimize_s:.1f} s, checked on {plan.records} records",
        f"TensorFlow loads it as: {plan.loader}{loaded(plan)}; weights {size(plan.weights_bytes)}",
    ]
    blocks = [head, *(_choices(g) for g in groups), _log(plan)]
    blocks += [_candidates(g, b) for g in groups for b in g.buckets]
    blocks += [_cut(g) for g in groups]
    return "\n\n".join("\n".join(plain(line) for line in block) for block in blocks if block) + "\n"


def _choices(group: Group) -> list[str]:
    """Who runs each bucket, how much faster than plain TensorFlow, how exact, and in how much memory."""
    if not group.buckets:
        return []
    rows = "rows" if all(b.plan.batch is not None for b in group.buckets) else "shapes"
    lines = table([(rows, *_CHOICES), *map(_choice, group.buckets)], numbers=range(2, 7))
    return [_heading(group), *_indented(lines)]


def _heading(group: Group) -> str:
    eldest, *twins = group.keys
    return f"{eldest} (the same for {', '.join(twins)})" if twins else eldest


def _choice(bucket: Bucket) -> tuple[str, ...]:
    from tfopt_optimizer.page import facts

    chosen, agreement = bucket.chosen, bucket.chosen and bucket.chosen.agreement
    who = facts.candidate_name(chosen) if chosen else f"{bucket.plan.engine}/{bucket.plan.variant}".rstrip("/")
    return (
        bucket.label,
        who,
        _time(facts.time_us(chosen)),
        _time(facts.time_us(bucket.plain)),
        _ratio(bucket.ratio),
        _error(agreement.max_rel_error if agreement else None),
        _size(chosen.memory_bytes if chosen else None),
    )


def _log(plan: Plan) -> list[str]:
    """The log's lines, but for the decisions, which the tables tell."""
    told = {b.why for s in plan.signatures for b in s.buckets}
    return [line for entry in plan.log if entry not in told for line in _wrapped(entry)]


def _candidates(group: Group, bucket: Bucket) -> list[str]:
    from tfopt_optimizer.page import facts

    numbered, lost = facts.losers(bucket)
    rows = [_candidate(c, bucket) for c in numbered]
    shown = [i for i in range(len(_COLUMNS)) if i < _TEXTS or any(row[i] != _NONE for row in rows)]
    cells = [[row[i] for i in shown] for row in (_COLUMNS, *rows)] if rows else []
    lines = [f"{group.keys[0]}, {_rows(bucket)}: every candidate"]
    lines += _indented(table(cells, numbers=range(_TEXTS, len(shown))))
    for c in numbered:
        if said := facts.remark(c, bucket):
            lines += _wrapped(f"{facts.status(c, bucket)} {facts.candidate_name(c)}: {said}", "  ")
    for found in lost:
        lines += _wrapped(
            f"{found.status} {', '.join(map(facts.candidate_name, found.candidates))}: {found.reason}", "  "
        )
    return lines


def _rows(bucket: Bucket) -> str:
    from tfopt_optimizer.page import facts

    return facts.rows(bucket.plan) if bucket.plan.batch is not None else f"exactly {bucket.label}"


def _candidate(c: Candidate, bucket: Bucket) -> tuple[str, ...]:
    from tfopt_optimizer.page import facts

    rate = facts.rate(c)
    return (
        facts.candidate_name(c),
        facts.status(c, bucket),
        _time(facts.time_us(c)),
        _time(c.measured.p90_us if c.measured else None),
        _ratio(facts.ratio(c, bucket)),
        f"{facts.number(rate[0])} by {rate[1]}" if rate else _NONE,
        _error(c.agreement.max_rel_error if c.agreement else None),
        _error(c.agreement.mean_rel_error if c.agreement else None),
        f"{c.compile_s:.2f} s" if c.compile_s is not None else _NONE,
        _size(c.memory_bytes),
    )


def _cut(group: Group) -> list[str]:
    """What a request passes in the buckets that run on host+engine, and why each kind stays on the host."""
    segments = group.plan.segments
    lines = [line for segment in segments for line in _segment(segment)]
    return [f"{group.keys[0]} is cut, for host+ engines, into", *lines] if lines else []


def _segment(segment: Segment) -> Iterable[str]:
    from tfopt_optimizer.page import onhost

    takes = f"; takes {_tensors(segment.takes)}" if segment.takes else ""
    where = f"{segment.where}, in {segment.runs_on}" if segment.runs_on else segment.where
    if segment.where != "host":
        return _wrapped(f"{where}: {_kinds(segment.kinds)}{takes}", "  ")
    found = onhost.kinds([segment])
    head = f"{where}: {onhost.total(found) if found else 'passes on'}{takes}"
    each = (f"{f.op} x{f.number}" + (f": {f.why}" if f.why else "") for f in found)
    return [*_wrapped(head, "  "), *(line for text in each for line in _wrapped(text, "    "))]


def _kinds(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return _some([f"{kind} x{n}" for kind, n in ordered], "kinds") or "passes on"


def _tensors(tensors: Sequence[Crossing]) -> str:
    return _some([t.name for t in tensors], "tensors")


def _some(texts: Sequence[str], what: str) -> str:
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more {what}" if more > 0 else "")


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _wrapped(text: str, indent: str = "") -> list[str]:
    """Names are never broken, so that they can be searched for."""
    inner = f"{indent}    "
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False
    )


def _time(us: float | None) -> str:
    from tfopt_optimizer.choose import microseconds

    return microseconds(us) if us is not None else _NONE


def _ratio(ratio: float | None) -> str:
    from tfopt_optimizer.page import facts

    return f"{facts.number(ratio)}x" if ratio is not None else _NONE


def _error(value: float | None) -> str:
    return _NONE if value is None else "equal" if value == 0 else f"{value:.0e}"


def _size(number: int | None) -> str:
    from tfopt_optimizer.wording import size

    return size(number) if number is not None else _NONE
