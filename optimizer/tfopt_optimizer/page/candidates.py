"""The table of a bucket's candidates: what each one cost, how far off it was, and why it was dropped."""

from __future__ import annotations

from collections.abc import Sequence

from tfopt_optimizer.page import facts, parts
from tfopt_optimizer.page.facts import NOTHING, Bucket
from tfopt_optimizer.page.markup import Markup, name, tag
from tfopt_optimizer.page.svg import color
from tfopt_optimizer.plan import Candidate
from tfopt_optimizer.wording import size

_STATUS = ("chosen", "slower", "rejected", "skipped")  # the order of the rows
_HEADS = (
    ("candidate", ""), ("median", "n"), ("p90", "n wide"), ("vs plain", "n"), ("calls/s", "n wide"), ("max error", "n"),
    ("mean error", "n wide"), ("top 1", "n wide"), ("compiled in", "n wide"), ("memory", "n wide"),
)  # fmt: skip


def table(bucket: Bucket) -> Markup:
    """A row per candidate, the chosen one first; columns that would be empty are left out."""
    ordered = sorted(bucket.plan.candidates, key=lambda c: (_place(c.status), facts.time_us(c) or 0.0))
    texts = [_cells(c, bucket) for c in ordered]
    shown = [i for i, _ in enumerate(_HEADS[1:]) if any(row[i] != NOTHING for row in texts)]
    heads = [_HEADS[0], *(_HEADS[i + 1] for i in shown)]
    return parts.table(heads, [_candidate(c, bucket, texts[j], shown) for j, c in enumerate(ordered)])


def _place(status: str) -> int:
    return _STATUS.index(status) if status in _STATUS else len(_STATUS)


def _cells(c: Candidate, bucket: Bucket) -> tuple[str, ...]:
    """What stands under _HEADS, the first one aside."""
    us, plain = facts.time_us(c), facts.time_us(bucket.plain)
    agreement, measured, rate = c.agreement, c.measured, facts.rate(c)
    return (
        facts.time(us),
        facts.time(measured.p90_us if measured else None),
        facts.times(plain / us if us and plain else None),
        f"{facts.number(rate[0])} by {rate[1]}" if rate else NOTHING,
        facts.error(agreement.max_rel_error if agreement else None),
        facts.error(agreement.mean_rel_error if agreement else None),
        f"{agreement.top1:.1%}" if agreement and agreement.top1 is not None else NOTHING,
        facts.seconds(c.compile_s),
        size(c.memory_bytes) if c.memory_bytes is not None else NOTHING,
    )


def _candidate(c: Candidate, bucket: Bucket, texts: Sequence[str], shown: Sequence[int]) -> Markup:
    who = tag("td", tag("span", class_="dot"), name(facts.candidate_name(c)), " ", tag("em", _status(c, bucket)))
    rows = [tag("tr", who, [tag("td", texts[i], class_=_HEADS[i + 1][1]) for i in shown])]
    if c.reason and c.status != "slower":  # that it was slower is in its numbers
        rows.append(tag("tr", tag("td", facts.prose(c.reason), colspan=len(shown) + 1), class_="why"))
    return tag("tbody", rows, class_=f"{color(c.engine)} s-{c.status if c.status in _STATUS else 'other'}")


def _status(candidate: Candidate, bucket: Bucket) -> str:
    return f"{candidate.status}, plain TF" if candidate is bucket.plain else candidate.status
