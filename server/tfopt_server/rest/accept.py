"""Which of the forms that a page has does a client want: the Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence


def negotiate(accept: bytes, offered: Sequence[str]) -> str:
    """The offered media type that the client prefers; the first one where it says nothing that fits.

    The highest quality wins, then the more exact range, then the earlier one in the header: a browser gets HTML, a
    library that writes `application/json, text/plain, */*` gets JSON, and `*/*` gets the first form offered.
    """
    ranges = [_range(part, i) for i, part in enumerate(accept.decode("latin-1").lower().split(","))]
    best, chosen = (0.0, 0, 0), offered[0]
    for kind in offered:
        fitting = [(quality, exact, -place) for name, quality, exact, place in ranges if _fits(name, kind)]
        # The most exact range decides about a type, even where it refuses it.
        found = max(fitting, key=lambda f: f[1], default=None)
        if found is not None and found > best and found[0] > 0:
            best, chosen = found, kind
    return chosen


def _range(text: str, place: int) -> tuple[str, float, int, int]:
    name, *parameters = (part.strip() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    exact = 0 if name == "*/*" else 1 if name.endswith("/*") else 2
    return name, quality, exact, place


def _fits(name: str, kind: str) -> bool:
    return name in ("*/*", kind) or (name.endswith("/*") and kind.startswith(name[:-1]))
