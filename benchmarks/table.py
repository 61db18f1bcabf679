"""Aligned plain-text tables: text to the left, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | int | float | None


def number(value: float) -> str:
    """Three significant digits, no exponent: 12345.6 -> "12,346", 3.14159 -> "3.14", 0.0123 -> "0.0123"."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else number(cell)


def render(header: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "") -> str:
    """A table with its title above and a rule under the header; every row has as many cells as the header."""
    if uneven := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"expected {len(header)} cells, received {len(uneven[0])}: {uneven[0]!r}")
    cells = [list(header), *([text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [_is_numeric([row[i] for row in rows]) for i in range(len(header))]
    lines = [title] if title else []
    lines.append(_line(cells[0], widths, right))
    lines.append("  ".join("-" * width for width in widths))
    lines += [_line(row, widths, right) for row in cells[1:]]
    return "\n".join(lines)


def _is_numeric(column: Sequence[Cell]) -> bool:
    return any(not isinstance(cell, str) and cell is not None for cell in column)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    placed = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
    return "  ".join(placed).rstrip()
