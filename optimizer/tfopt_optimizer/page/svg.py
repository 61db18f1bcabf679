"""What the plots share: their width, an engine's colour, the frame."""

from __future__ import annotations

from collections.abc import Sequence

from tfopt_optimizer.page.markup import Markup, tag

# Narrow, so that on a telephone the letters keep their size.
WIDTH = 440
_COLORS = ("tensorflow", "litert", "openvino", "xla", "onnxruntime")


def color(engine: str) -> str:
    """The class that gives an engine its colour; a split one has that of its device segment."""
    engine = engine.removeprefix("host+")
    return f"e-{engine}" if engine in _COLORS else "e-other"


def svg(height: float, title: str, children: Sequence[object]) -> Markup:
    return tag("svg", tag("title", title), children, viewBox=f"0 0 {WIDTH} {px(height)}", role="img", aria_label=title)


def px(value: float) -> str:
    """Pixels with one decimal: half the bytes, and the same picture."""
    return f"{value:.1f}".removesuffix(".0")
