"""The table of a bucket's candidates: what each one cost, how far off it was, and why it was dropped."""

from __future__ import annotations

from collections.abc import Sequence

from tfopt_optimizer.page import facts, parts
from tfopt_optimizer.page.facts import NOTHING, Bucket, Lost
from tfopt_optimizer.page.markup import Markup, join, name, tag
from tfopt_optimizer.page.svg import color
from tfopt_optimizer.plan import Candidate
from tfopt_optimizer.wording import size

_STATUS = ("chosen", "slower", "rejected", "skipped")
_HEADS = (
    ("candidate", ""), ("median", "n"), ("p90", "n wide"), ("vs plain", "n"), ("calls/s", "n wide"), ("max error", "n"),
    ("mean error", "n wide"), ("top 1", "n wide"), ("compiled in", "n wide"), ("memory", "n wide"),
)  # fmt: skip


def table(bucket: Bucket) -> Markup:
    """A row per candidate with numbers, the chosen one first; then those without, a row per reason. Columns that would
    be empty are left out."""
    numbered, lost = facts.losers(bucket)
    texts = [_cells(c, bucket) for c in numbered]
    shown = [i for i, _ in enumerate(_HEADS[1:]) if any(row[i] != NOTHING for row in texts)]
    heads = [_HEADS[0], *(_HEADS[i + 1] for i in shown)]
    rows = [_candidate(c, bucket, texts[j], shown) for j, c in enumerate(numbered)]
    what = f"candidates for {facts.rows(bucket.plan)}"
    return parts.table(heads, [*rows, *(_together(found, len(heads)) for found in lost)], what)


def _cells(c: Candidate, bucket: Bucket) -> tuple[str, ...]:
    """What stands under _HEADS, the first one aside."""
    agreement, measured, rate = c.agreement, c.measured, facts.rate(c)
    return (
        facts.time(facts.time_us(c)),
        facts.time(measured.p90_us if measured else None),
        facts.times(facts.ratio(c, bucket)),
        f"{facts.number(rate[0])} by {rate[1]}" if rate else NOTHING,
        facts.error(agreement.max_rel_error if agreement else None),
        facts.error(agreement.mean_rel_error if agreement else None),
        f"{agreement.top1:.1%}" if agreement and agreement.top1 is not None else NOTHING,
        facts.seconds(c.compile_s),
        size(c.memory_bytes) if c.memory_bytes is not None else NOTHING,
    )


def _candidate(c: Candidate, bucket: Bucket, texts: Sequence[str], shown: Sequence[int]) -> Markup:
    """The status stands behind the name, or before what is said of it."""
    said = facts.remark(c, bucket)
    status = None if said else tag("em", facts.status(c, bucket))
    who = tag("th", _named(c), " ", status, scope="row")
    rows = [tag("tr", who, [tag("td", texts[i], class_=_HEADS[i + 1][1]) for i in shown])]
    if said:
        rows.append(_why(facts.status(c, bucket), said, len(shown) + 1))
    return tag("tbody", rows, class_=f"{color(c.engine)} {_style(c.status)}")


def _together(found: Lost, columns: int) -> Markup:
    names = [tag("span", _named(c), " ", class_=f"one {color(c.engine)}") for c in found.candidates]
    who = tag("tr", tag("th", names, scope="row", colspan=columns))
    return tag("tbody", who, _why(found.status, found.reason, columns), class_=f"lost {_style(found.status)}")


def _named(c: Candidate) -> Markup:
    return join([tag("span", class_="dot"), name(facts.candidate_name(c))])


def _why(status: str, reason: str, columns: int) -> Markup:
    return tag("tr", tag("td", tag("em", status), ": ", facts.prose(reason), colspan=columns), class_="why")


def _style(status: str) -> str:
    return f"s-{status if status in _STATUS else 'other'}"
