"""Text for terminals: columns, and names that may hold anything."""

from __future__ import annotations

from collections.abc import Sequence


def plain(text: str) -> str:
    """Names come from the model and may hold anything: what would steer a terminal is shown escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest entry, two spaces between; the last one as it is."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
