"""What several sections are built of: tables that scroll on a telephone, and a log to open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tfopt_optimizer.page import facts
from tfopt_optimizer.page.markup import Markup, tag

Heads = Sequence[tuple[str, str]]  # what stands above a column, and its classes: "n" for numbers, "wide", ""


def table(heads: Heads, bodies: Iterable[Markup], what: str) -> Markup:
    """`what` it is of is for those who hear the page. It takes the focus, so that the keyboard can scroll it."""
    head = tag("thead", tag("tr", [tag("th", text, class_=style or None, scope="col") for text, style in heads]))
    return tag("div", tag("table", head, bodies), class_="scroll", tabindex=0, role="group", aria_label=what)


def rows(heads: Heads, cells: Iterable[Sequence[object]], what: str) -> Markup:
    """A table of plain rows, a cell per head, the first of them the row's own; "" where there are none."""
    found = [tag("tr", [_cell(i, cell, heads[i][1]) for i, cell in enumerate(row)]) for row in cells]
    return table(heads, [tag("tbody", found)], what) if found else Markup("")


def _cell(place: int, content: object, style: str) -> Markup:
    if place == 0:
        return tag("th", content, scope="row", class_=style or None)
    return tag("td", content, class_=style or None)


def log(lines: Sequence[str]) -> Markup:
    entries = tag("ol", [tag("li", facts.prose(line)) for line in lines], class_="log")
    return tag("details", tag("summary", f"The log, {len(lines)} lines"), entries)
