"""The plot of latency by bucket, a line per engine, as inline SVG."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tfopt_optimizer.page import axes, facts
from tfopt_optimizer.page.axes import LogAxis
from tfopt_optimizer.page.facts import Bucket
from tfopt_optimizer.page.markup import Markup, join, tag
from tfopt_optimizer.page.svg import WIDTH, color, px, short, svg, thinned
from tfopt_optimizer.plan import Candidate

_LEFT, _TOP, _BOTTOM = 52, 14, 40
_LEAST, _LABEL, _LETTER = 300, 14, 6.5  # the height of a plot, of a line's name, and the width of its letters
_NAME = 24  # letters of a line's name that are shown

# What a line shows: by the bucket's number, microseconds and the candidate that took them.
Line = dict[int, tuple[float, Candidate]]


@dataclasses.dataclass(frozen=True)
class Frame:
    """Where things stand: `x` of each bucket, the axis of times, the right end of its lines, the height of it all."""

    x: tuple[float, ...]
    y: LogAxis
    right: float
    height: float


def latency(buckets: Sequence[Bucket]) -> Markup | None:
    """A line per engine, its best variant at each bucket; None where there is no line to draw."""
    lines = _lines(buckets)
    if len(buckets) < 2 or not lines:
        return None
    frame = _frame(lines, len(buckets))
    drawn = [
        _grid(frame),
        _below(frame, buckets),
        *(_line(name, line, frame, buckets) for name, line in lines.items()),
        *_ends(lines, frame),
    ]
    said = "; ".join(_said(name, line, buckets) for name, line in lines.items())
    return svg(frame.height, "Time of one call by number of rows, a line per engine", drawn, said)


def _frame(lines: dict[str, Line], buckets: int) -> Frame:
    """Wide enough on the right for the longest name, high enough for all of them."""
    right = WIDTH - 16 - _LETTER * min(max(map(len, lines)), _NAME)
    height = max(_LEAST, _LABEL * len(lines) + _TOP + _BOTTOM)
    values = [us for line in lines.values() for us, _ in line.values()]
    step = (right - _LEFT) / (buckets - 1)
    x = tuple(_LEFT + i * step for i in range(buckets))
    return Frame(x, axes.around(values, height - _BOTTOM, _TOP), right, height)


def _said(name: str, line: Line, buckets: Sequence[Bucket]) -> str:
    """`xla: 100 µs for 1 row, 200 µs for 8 rows`: the ends of a line."""
    ends = dict.fromkeys((min(line), max(line)))
    return f"{name}: " + ", ".join(f"{facts.time(line[i][0])} for {facts.rows(buckets[i].plan)}" for i in ends)


def _lines(buckets: Sequence[Bucket]) -> dict[str, Line]:
    """Plain TensorFlow's line first, then each engine's best, its lossy candidates apart."""
    found: dict[str, Line] = {"plain TF": {}}
    for i, bucket in enumerate(buckets):
        for candidate in bucket.plan.candidates:
            us = facts.time_us(candidate)
            if us is None or not 0 < us < math.inf or candidate.status not in ("chosen", "slower"):
                continue
            if candidate is bucket.plain:
                found["plain TF"][i] = (us, candidate)
            name = f"{candidate.engine} {facts.precision(candidate)}".rstrip()
            line = found.setdefault(name, {})
            if candidate.status == "chosen" or i not in line or (us < line[i][0] and line[i][1].status != "chosen"):
                line[i] = (us, candidate)
    if found.get("tensorflow") == found["plain TF"]:
        del found["tensorflow"]
    return {name: line for name, line in found.items() if line}


def _grid(frame: Frame) -> Markup:
    y = frame.y
    return join(
        tag("g", tag("line", x1=_LEFT, x2=px(frame.right), y1=px(y.at(v)), y2=px(y.at(v)), class_="grid"),
            tag("text", facts.time(v), x=_LEFT - 8, y=px(y.at(v) + 4), text_anchor="end"))
        for v in y.ticks()
    )  # fmt: skip


def _below(frame: Frame, buckets: Sequence[Bucket]) -> Markup:
    x, rows = frame.x, all(b.plan.batch is not None for b in buckets)
    labels = [str(b.plan.batch) if rows else f"#{i + 1}" for i, b in enumerate(buckets)]
    texts = zip(x, thinned(labels, x[-1] - x[0]), strict=True)
    ticks = [tag("text", t, x=px(at), y=px(frame.height - 22), text_anchor="middle") for at, t in texts if t]
    what = "rows in a call" if rows else "shapes, as listed below"
    middle = (x[0] + x[-1]) / 2
    axis = tag("text", what, x=px(middle), y=px(frame.height - 5), text_anchor="middle", class_="axis")
    return join([*ticks, axis])


def _line(name: str, line: Line, frame: Frame, buckets: Sequence[Bucket]) -> Markup:
    plain = name == "plain TF"
    at = [(frame.x[i], frame.y.at(us), c, buckets[i]) for i, (us, c) in sorted(line.items())]
    points = " ".join(f"{px(x)},{px(y)}" for x, y, _, _ in at)
    dots = [_dot(x, y, c, b, _won(c, plain)) for x, y, c, b in at]
    return tag("g", tag("polyline", points=points), dots, class_=f"series {_style(name, line)}")


def _dot(x: float, y: float, candidate: Candidate, bucket: Bucket, won: bool) -> Markup:
    said = f"{facts.candidate_name(candidate)}, {bucket.label}: {facts.time(facts.time_us(candidate))}"
    title = tag("title", said + (", chosen" if won else ""))
    return tag("circle", title, cx=px(x), cy=px(y), r=5 if won else 2.5, class_="won" if won else "dot")


def _won(candidate: Candidate, plain: bool) -> bool:
    return candidate.status == "chosen" and not plain


def _ends(lines: dict[str, Line], frame: Frame) -> list[Markup]:
    """The name of each line at its end; those at the right are moved apart where they would touch."""
    last = {name: max(line) for name, line in lines.items()}
    at = {name: frame.y.at(lines[name][i][0]) for name, i in last.items()}
    right = [name for name, i in last.items() if i == len(frame.x) - 1]
    places = axes.spread([at[name] for name in right], _LABEL, _TOP, frame.height - _BOTTOM)
    at |= dict(zip(right, places, strict=True))
    return [
        tag("text", short(name, _NAME), x=px(frame.x[i] + 12), y=px(at[name] + 4),
            class_=f"end {_style(name, lines[name])}")
        for name, i in last.items()
    ]  # fmt: skip


def _style(name: str, line: Line) -> str:
    """The classes of a line: its engine's colour, and dashes for plain TensorFlow and for signatures that are cut."""
    if name == "plain TF":
        return "plain"
    engine = next(iter(line.values()))[1].engine
    return f"{color(engine)} cut" if engine != facts.device_engine(engine) else color(engine)
