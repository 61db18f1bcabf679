"""Text for terminals: columns."""

from __future__ import annotations

from collections.abc import Container, Sequence


def table(rows: Sequence[Sequence[str]], numbers: Container[int] = ()) -> list[str]:
    """Columns as wide as their widest entry, two spaces between, those of `numbers` to the right; the last one as it
    is."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(_cell(cell, widths[i], i in numbers) for i, cell in enumerate(row)).rstrip() for row in rows]


def _cell(text: str, width: int, number: bool) -> str:
    return text.rjust(width) if number else text.ljust(width)
