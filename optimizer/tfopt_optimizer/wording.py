"""Numbers and counts as people read them."""

from __future__ import annotations


def count(number: int, thing: str) -> str:
    """`1 variable`, `3 variables`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def size(number: float) -> str:
    """Bytes in powers of ten: 512 B, 1.2 MB, 10 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5 or unit == "GB":
            return f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError(number)


def shape(dtype: str, sizes: tuple[int | None, ...] | None) -> str:
    """`float[?, 32]`; `float[...]` for an unknown rank."""
    if sizes is None:
        return f"{dtype}[...]"
    return f"{dtype}[{', '.join('?' if d is None else str(d) for d in sizes)}]"


def plain(text: str) -> str:
    """Names come from the model and may hold anything: what would steer a terminal is shown escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
