"""What of a split signature stays on the host and why, kind by kind: as data, and as a table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

from tfopt_optimizer.page import parts
from tfopt_optimizer.page.facts import NOTHING
from tfopt_optimizer.page.markup import Markup, name
from tfopt_optimizer.plan import Segment
from tfopt_optimizer.wording import count

_HEADS = (("operations", ""), ("why", ""), ("the first of them", "wide"), ("run in", "wide"), ("how many", "n"))


@dataclasses.dataclass(frozen=True)
class OnHost:
    """`number` operations of the kind `op` that stay for one reason; `why` is "" where a plan does not say it."""

    op: str
    number: int
    why: str
    runs_on: str
    first: str


def kinds(segments: Iterable[Segment]) -> tuple[OnHost, ...]:
    """Every kind and reason of the host segments, in the order of the segments, the most frequent first in each."""
    return tuple(found for s in segments if s.where == "host" for found in _kinds(s))


def total(found: Iterable[OnHost]) -> str:
    """`26 operations`."""
    return count(sum(f.number for f in found), "operation")


def table(segments: Iterable[Segment]) -> Markup:
    """A row per kind and reason; "" where nothing stays."""
    found = kinds(segments)
    cells = ((name(f.op), f.why or NOTHING, name(f.first), f.runs_on or NOTHING, f"{f.number:,}") for f in found)
    return parts.rows(_HEADS, cells, "what stays on the host")


def _kinds(segment: Segment) -> list[OnHost]:
    """Those that the segment counts and does not name have no reason. Identity computes nothing and is not counted."""
    named = [o for o in segment.operations if o.op != "Identity"]
    counted = Counter((o.op, o.why) for o in named)
    first = {(o.op, o.why): o.name for o in reversed(named)}
    told = Counter(o.op for o in named)
    found = [OnHost(op, n, _why(op, why), segment.runs_on, first[op, why]) for (op, why), n in counted.items()]
    found += [OnHost(op, n - told[op], "", segment.runs_on, "") for op, n in segment.kinds.items() if n > told[op]]
    return sorted(found, key=lambda f: -f.number)


def _why(op: str, why: str) -> str:
    """Beside the operation's kind it need not be named again: `reads a table`."""
    return why.removeprefix(f"{op} ")
