"""What the plots share: their width, an engine's colour, the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfopt_optimizer.page.markup import Markup, tag

# Narrow, so that on a telephone the letters keep their size.
WIDTH = 440
_COLORS = ("tensorflow", "litert", "openvino", "xla", "onnxruntime")


def color(engine: str) -> str:
    """The class that gives an engine its colour; a split one has that of its device segment."""
    engine = engine.removeprefix("host+")
    return f"e-{engine}" if engine in _COLORS else "e-other"


def svg(height: float, title: str, children: Sequence[object], said: str = "") -> Markup:
    """`said`: what the plot shows, for those who hear the page; behind its title."""
    label = f"{title}. {said}".rstrip()
    return tag("svg", tag("title", title), children, viewBox=f"0 0 {WIDTH} {px(height)}", role="img", aria_label=label)


def thinned(texts: Sequence[str], room: float) -> list[str]:
    """Labels of an axis of `room` pixels: every one, or every second, third ..., the rest "", so that none touch."""
    wide = 7 * max(map(len, texts), default=0) + 6
    every = max(1, math.ceil(wide * (len(texts) - 1) / room)) if room > 0 else 1
    return [text if i % every == 0 else "" for i, text in enumerate(texts)]


def short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def px(value: float) -> str:
    """Pixels with one decimal: half the bytes, and the same picture."""
    return f"{value:.1f}".removesuffix(".0")
