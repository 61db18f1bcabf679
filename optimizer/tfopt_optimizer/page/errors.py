"""The plot of how far each candidate is from plain TensorFlow, as inline SVG."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from tfopt_optimizer.page import facts
from tfopt_optimizer.page.axes import LogAxis
from tfopt_optimizer.page.facts import Bucket, Gate
from tfopt_optimizer.page.markup import Markup, join, tag
from tfopt_optimizer.page.svg import WIDTH, color, px, short, svg
from tfopt_optimizer.plan import Agreement, Candidate

_ROW = 26
_SMALLEST, _LARGEST = 1e-9, 1.0  # relative errors; what is smaller counts as equal
_HISTOGRAM_BINS = 20
_LETTERS = 28  # of a candidate's name


def caption(buckets: Sequence[Bucket]) -> str:
    more = ["+1: so is another variant."] if any(re.search(r" \+\d+$", name) for name in _alike(buckets)) else []
    said = "Distance from plain TensorFlow, from the mean to the largest."
    of = "Relative to each output's largest magnitude."
    if any(facts.histogram(c) for b in buckets for c in b.plan.candidates):
        said = "How many values are how far from plain TensorFlow's; heights are square roots, so that tails are seen."
    return " ".join([said, of, *more])


def errors(buckets: Sequence[Bucket], gates: Sequence[Gate]) -> Markup | None:
    """A row per candidate on a logarithmic axis: from the mean to the largest error, a mark per bucket, and the gate.

    Where the plan holds histograms the row shows the distribution over all its buckets instead of the range.
    """
    rows = _alike(buckets)
    if not rows:
        return None
    left = 36 + 6.8 * min(max(map(len, rows)), _LETTERS)
    height = _ROW * len(rows) + 44
    x = LogAxis(_SMALLEST, _LARGEST, left, WIDTH - 18)
    drawn = [_decades(x, height), _gates(x, gates, height)]
    for i, (name, candidates) in enumerate(rows.items()):
        drawn.append(_error_row(name, candidates, x, left, 14 + _ROW * (i + 0.5)))
    said = "; ".join(f"{name}: {facts.error(_worst(found))} at most" for name, found in rows.items())
    return svg(height, "Error of each candidate relative to the output's largest magnitude", drawn, said)


def _alike(buckets: Sequence[Bucket]) -> dict[str, list[Candidate]]:
    """The row's name -> its candidates. Variants of an engine with the same errors in all buckets share a row, as those
    do that differ in threads alone: the first is named, the others are counted."""
    found: dict[str, list[Candidate]] = {}
    for bucket in buckets:
        for c in bucket.plan.candidates:
            if c is not bucket.plain and _comparable(c):
                found.setdefault(facts.candidate_name(c), []).append(c)
    rows: dict[object, list[str]] = {}
    for name, candidates in found.items():
        seen = tuple(dataclasses.replace(c.agreement, rows=0) for c in candidates if c.agreement is not None)
        rows.setdefault((candidates[0].engine, candidates[0].precision, seen), []).append(name)
    return {_together(names): found[names[0]] for names in rows.values()}


def _together(names: Sequence[str]) -> str:
    """`litert/t1, t2`; where that is too long, `litert/t1 +1`."""
    text = ", ".join([names[0], *(n.partition("/")[2] for n in names[1:])])
    return text if len(text) <= _LETTERS or not names[1:] else f"{names[0]} +{len(names) - 1}"


def _comparable(c: Candidate) -> bool:
    a = c.agreement
    return a is not None and math.isfinite(a.max_rel_error) and math.isfinite(a.mean_rel_error)


def _worst(candidates: Sequence[Candidate]) -> float:
    return max(c.agreement.max_rel_error for c in candidates if c.agreement is not None)


def _decades(x: LogAxis, height: float) -> Markup:
    bottom = height - 30
    found = []
    for exponent in range(-9, 1, 3):
        at = px(x.at(10.0**exponent))
        text = "≤ 10⁻⁹" if exponent == -9 else facts.error(10.0**exponent).removeprefix("1·")
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
    histograms = [h for h in map(facts.histogram, candidates) if h]
    bins = [sum(counts) for counts in zip(*histograms, strict=False)]
    body = _distribution(bins, x, y) if len(bins) == _HISTOGRAM_BINS else _range(candidates, x, y)
    text = tag("text", tag("title", name), short(name, _LETTERS), x=px(left - 22), y=px(y + 4), text_anchor="end")
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
        if count <= 0:
            continue
        tall = (_ROW - 6) * math.sqrt(count / most)
        at = x.start + (i - 1) * width
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
