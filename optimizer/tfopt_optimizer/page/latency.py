"""The plot of latency by bucket, a line per engine, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from tfopt_optimizer.page import axes, facts
from tfopt_optimizer.page.axes import LogAxis
from tfopt_optimizer.page.facts import Bucket
from tfopt_optimizer.page.markup import Markup, join, tag
from tfopt_optimizer.page.svg import WIDTH, color, px, svg
from tfopt_optimizer.plan import Candidate

_HEIGHT = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 96, 14, 40

# What a line shows: per bucket number, microseconds and what to say when the pointer rests there.
Line = dict[int, tuple[float, Candidate]]


def latency(buckets: Sequence[Bucket]) -> Markup | None:
    """A line per engine, its best variant at each bucket; None where there is no line to draw."""
    lines = _lines(buckets)
    values = [us for line in lines.values() for us, _ in line.values()]
    if len(buckets) < 2 or not values:
        return None
    y = axes.around(values, _HEIGHT - _BOTTOM, _TOP)
    step = (WIDTH - _LEFT - _RIGHT) / (len(buckets) - 1)
    x = [_LEFT + i * step for i in range(len(buckets))]
    drawn = [
        _grid(y),
        _below(x, buckets),
        *(_line(name, line, x, y, buckets) for name, line in lines.items()),
        *_ends(lines, x, y),
    ]
    return svg(_HEIGHT, "Time of one call by number of rows, a line per engine", drawn)


def _lines(buckets: Sequence[Bucket]) -> dict[str, Line]:
    """Plain TensorFlow's line first, then each engine's best, its lossy candidates apart."""
    found: dict[str, Line] = {"plain TF": {}}
    for i, bucket in enumerate(buckets):
        for candidate in bucket.plan.candidates:
            us = facts.time_us(candidate)
            if us is None or candidate.status not in ("chosen", "slower"):
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


def _grid(y: LogAxis) -> Markup:
    return join(
        tag("g", tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=px(y.at(v)), y2=px(y.at(v)), class_="grid"),
            tag("text", facts.time(v), x=_LEFT - 8, y=px(y.at(v) + 4), text_anchor="end"))
        for v in y.ticks()
    )  # fmt: skip


def _below(x: Sequence[float], buckets: Sequence[Bucket]) -> Markup:
    rows = all(b.plan.batch is not None for b in buckets)
    labels = [str(b.plan.batch) if rows else f"#{i + 1}" for i, b in enumerate(buckets)]
    ticks = [tag("text", t, x=px(at), y=_HEIGHT - 22, text_anchor="middle") for at, t in zip(x, labels, strict=True)]
    what = "rows in a call" if rows else "shapes, as listed below"
    middle = (x[0] + x[-1]) / 2
    return join([*ticks, tag("text", what, x=px(middle), y=_HEIGHT - 5, text_anchor="middle", class_="axis")])


def _line(name: str, line: Line, x: Sequence[float], y: LogAxis, buckets: Sequence[Bucket]) -> Markup:
    plain = name == "plain TF"
    points = " ".join(f"{px(x[i])},{px(y.at(us))}" for i, (us, _) in sorted(line.items()))
    dots = [_dot(x[i], y.at(us), c, buckets[i], _won(c, plain)) for i, (us, c) in sorted(line.items())]
    return tag("g", tag("polyline", points=points), dots, class_=f"series {_style(name, line)}")


def _dot(x: float, y: float, candidate: Candidate, bucket: Bucket, won: bool) -> Markup:
    said = f"{facts.candidate_name(candidate)}, {bucket.label}: {facts.time(facts.time_us(candidate))}"
    title = tag("title", said + (", chosen" if won else ""))
    return tag("circle", title, cx=px(x), cy=px(y), r=5 if won else 2.5, class_="won" if won else "dot")


def _won(candidate: Candidate, plain: bool) -> bool:
    return candidate.status == "chosen" and not plain


def _ends(lines: dict[str, Line], x: Sequence[float], y: LogAxis) -> list[Markup]:
    """The name of each line at its end; those at the right are moved apart where they would touch."""
    last = {name: max(line) for name, line in lines.items()}
    at = {name: y.at(lines[name][i][0]) for name, i in last.items()}
    right = [name for name, i in last.items() if i == len(x) - 1]
    places = axes.spread([at[name] for name in right], 14, _TOP, _HEIGHT - _BOTTOM)
    at |= dict(zip(right, places, strict=True))
    return [
        tag("text", name, x=px(x[i] + 12), y=px(at[name] + 4), class_=f"end {_style(name, lines[name])}")
        for name, i in last.items()
    ]


def _style(name: str, line: Line) -> str:
    """The classes of a line: its engine's colour, and dashes for plain TensorFlow and for signatures that are cut."""
    if name == "plain TF":
        return "plain"
    engine = next(iter(line.values()))[1].engine
    return f"{color(engine)} cut" if engine != facts.device_engine(engine) else color(engine)
