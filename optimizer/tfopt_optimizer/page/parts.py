"""What several sections are built of: tables that scroll on a telephone, and a log to open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tfopt_optimizer.page import facts
from tfopt_optimizer.page.markup import Markup, tag

Heads = Sequence[tuple[str, str]]  # what stands above a column, and its classes: "n" for numbers, "wide", ""


def table(heads: Heads, bodies: Iterable[Markup]) -> Markup:
    head = tag("thead", tag("tr", [tag("th", text, class_=style or None, scope="col") for text, style in heads]))
    return tag("div", tag("table", head, bodies), class_="scroll")


def rows(heads: Heads, cells: Iterable[Sequence[object]]) -> Markup:
    """A table of plain rows, a cell per head; "" where there are none."""
    found = [
        tag("tr", [tag("td", cell, class_=style or None) for cell, (_, style) in zip(row, heads, strict=True)])
        for row in cells
    ]
    return table(heads, [tag("tbody", found)]) if found else Markup("")


def log(lines: Sequence[str]) -> Markup:
    entries = tag("ol", [tag("li", facts.prose(line)) for line in lines], class_="log")
    return tag("details", tag("summary", f"The log, {len(lines)} lines"), entries)
