"""The plot of how far each candidate is from plain TensorFlow, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfopt_optimizer.page import facts
from tfopt_optimizer.page.axes import LogAxis
from tfopt_optimizer.page.facts import Bucket, Gate
from tfopt_optimizer.page.markup import Markup, join, tag
from tfopt_optimizer.page.svg import WIDTH, color, px, svg
from tfopt_optimizer.plan import Agreement, Candidate

_ROW = 26
_SMALLEST, _LARGEST = 1e-9, 1.0  # relative errors; what is smaller counts as equal
_HISTOGRAM_BINS = 20


def caption(buckets: Sequence[Bucket]) -> str:
    if any(facts.histogram(c) for b in buckets for c in b.plan.candidates):
        return "How many values are how far from plain TensorFlow's; heights are square roots, so that tails are seen."
    return "Distance from plain TensorFlow, from the mean to the largest."


def errors(buckets: Sequence[Bucket], gates: Sequence[Gate]) -> Markup | None:
    """A row per candidate on a logarithmic axis: from the mean to the largest error, a mark per bucket, and the gate.

    Where the plan holds histograms the row shows the distribution over all its buckets instead of the range.
    """
    rows: dict[str, list[Candidate]] = {}
    for bucket in buckets:
        for c in bucket.plan.candidates:
            if c.agreement is not None and c is not bucket.plain and math.isfinite(c.agreement.max_rel_error):
                rows.setdefault(facts.candidate_name(c), []).append(c)
    if not rows:
        return None
    left = 20 + 6.6 * min(max(map(len, rows)), 24)
    height = _ROW * len(rows) + 44
    x = LogAxis(_SMALLEST, _LARGEST, left, WIDTH - 14)
    drawn = [_decades(x, height), _gates(x, gates, height)]
    for i, (name, candidates) in enumerate(rows.items()):
        drawn.append(_error_row(name, candidates, x, left, 14 + _ROW * (i + 0.5)))
    return svg(height, "Error of each candidate relative to the output's largest magnitude", drawn)


def _decades(x: LogAxis, height: float) -> Markup:
    bottom = height - 30
    found = []
    for exponent in range(-9, 1, 3):
        at = px(x.at(10.0**exponent))
        text = {-9: "≤ 10⁻⁹", 0: "1"}.get(exponent, facts.error(10.0**exponent).removeprefix("1·"))
        found.append(tag("line", x1=at, x2=at, y1=8, y2=px(bottom), class_="grid"))
        found.append(tag("text", text, x=at, y=px(bottom + 15), text_anchor="end" if exponent == 0 else "middle"))
    middle = (x.start + x.end) / 2
    return join(
        [*found, tag("text", "relative error", x=px(middle), y=px(height - 2), text_anchor="middle", class_="axis")]
    )


def _gates(x: LogAxis, gates: Sequence[Gate], height: float) -> Markup:
    """Beyond the widest gate nothing may be; each one is a line of its own."""
    bottom, found = height - 30, list[Markup]()
    if gates:
        at = x.at(max(g.bound for g in gates))
        found.append(tag("rect", x=px(at), y=8, width=px(x.end - at), height=px(bottom - 8), class_="beyond"))
    for gate in gates:
        at = x.at(gate.bound)
        title = tag("title", f"{gate.label} candidates must stay below {gate.bound:g}")
        found.append(tag("line", title, x1=px(at), x2=px(at), y1=8, y2=px(bottom), class_="gate"))
        side = (at + 3, None) if gate.lossy else (at - 3, "end")
        found.append(tag("text", gate.label, x=px(side[0]), y=4, text_anchor=side[1], class_="axis"))
    return join(found)


def _error_row(name: str, candidates: Sequence[Candidate], x: LogAxis, left: float, y: float) -> Markup:
    shown = name if len(name) <= 24 else name[:23] + "…"
    histograms = [h for h in map(facts.histogram, candidates) if h]
    bins = [sum(counts) for counts in zip(*histograms, strict=False)]
    body = _distribution(bins, x, y) if len(bins) == _HISTOGRAM_BINS else _range(candidates, x, y)
    text = tag("text", tag("title", name), shown, x=px(left - 16), y=px(y + 4), text_anchor="end")
    return tag("g", text, body, class_=f"series {color(candidates[0].engine)}")


def _range(candidates: Sequence[Candidate], x: LogAxis, y: float) -> Markup:
    found = [c.agreement for c in candidates if c.agreement is not None]
    low = x.at(min(a.mean_rel_error for a in found) or _SMALLEST)
    high = x.at(max(a.max_rel_error for a in found) or _SMALLEST)
    marks = [
        tag("circle", tag("title", _said(a)), cx=px(x.at(a.max_rel_error or _SMALLEST)), cy=px(y), r=4, class_="mark")
        for a in found
    ]
    return join([tag("line", x1=px(low), x2=px(high), y1=px(y), y2=px(y), class_="range"), *marks])


def _said(found: Agreement) -> str:
    largest, mean = facts.error(found.max_rel_error), facts.error(found.mean_rel_error)
    return f"largest error {largest}, mean {mean}, {found.rows} rows"


def _distribution(bins: Sequence[int], x: LogAxis, y: float) -> Markup:
    """Two bins a decade from 1e-9 to 1, one below and one above; heights by square root, so that tails are seen."""
    most = max(bins) or 1
    width = (x.end - x.start) / (len(bins) - 2)
    found = []
    for i, count in enumerate(bins):
        if not count:
            continue
        tall = (_ROW - 6) * math.sqrt(count / most)
        at = min(max(x.start + (i - 1) * width, x.start - width / 2), x.end - width / 2)
        title = tag("title", f"{count} values")
        found.append(
            tag(
                "rect",
                title,
                x=px(at),
                y=px(y + _ROW / 2 - 3 - tall),
                width=px(width - 1),
                height=px(tall),
                class_="bin",
            )
        )
    return join(found)
