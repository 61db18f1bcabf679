"""What was chosen, at first sight: per bucket who runs it, how much faster, how exact and in how much memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfopt_optimizer.page import facts, parts
from tfopt_optimizer.page.facts import NOTHING, Bucket, Group
from tfopt_optimizer.page.markup import Markup, join, name, tag
from tfopt_optimizer.page.svg import color
from tfopt_optimizer.wording import size

_LARGE = 6  # buckets that are told in large numbers; more of them are a table
_EVEN = 1.05  # a gain below it is none
_HEADS = (
    ("rows", ""), ("chosen", ""), ("faster", "n"), ("median", "n"), ("plain TF", "n"), ("max error", "n"),
    ("memory", "n wide"),
)  # fmt: skip
_GROUPS = (("signature", ""), ("chosen", ""), ("buckets", "n"), ("faster", "n"), ("max error", "n"))
_ENGINES = {
    "tensorflow": "TensorFlow", "litert": "LiteRT", "openvino": "OpenVINO", "xla": "XLA", "onnxruntime": "ONNX Runtime",
}  # fmt: skip


def lead(groups: Sequence[Group]) -> Markup:
    """One sentence: who answers, how much faster than plain TensorFlow, and how far off."""
    gains = [(b.ratio, g) for g in groups for b in g.buckets if b.ratio is not None]
    some = next((g for g in groups if any(b.plan.engine != "tensorflow" for b in g.buckets)), None)
    best, group = max(gains, key=lambda pair: pair[0]) if gains else (0.0, some)
    group = group if best >= _EVEN else some
    if group is None:
        right = "is as fast as anything else that was right" if gains else "serves this model; why is below"
        return join([f"Plain TensorFlow {right}."])
    much = f"{_gain(group.buckets)} faster than plain TensorFlow" if best >= _EVEN else "as fast as plain TensorFlow"
    told = f" {much}, {_exact(groups)}." if gains else ", not measured beside plain TensorFlow."
    return join([f"{_who(group)} ", name(group.keys[0]), told])


def _who(group: Group) -> str:
    """`LiteRT and XLA answer`, `XLA behind a host part answers`."""
    found = (facts.device_engine(b.plan.engine) for b in group.buckets)
    engines = list(dict.fromkeys(_ENGINES.get(e, e) for e in found))
    cut = " behind a host part" if all(facts.segments(group.plan, b.plan) for b in group.buckets) else ""
    who = " and ".join([", ".join(engines[:-1]), engines[-1]] if engines[1:] else engines)
    return f"{who}{cut} answer{'' if engines[1:] else 's'}"


def _gain(buckets: Sequence[Bucket]) -> str:
    """`2.8× to 16×`; `up to 16×` where another bucket gains nothing."""
    ratios = sorted(b.ratio for b in buckets if b.ratio is not None)
    low, high = facts.times(ratios[0]), facts.times(ratios[-1])
    if ratios[0] < _EVEN or len(ratios) < len(buckets):
        return f"up to {high}"
    return high if low == high else f"{low} to {high}"


def _exact(groups: Sequence[Group]) -> str:
    """How far the answers of the chosen candidates are from plain TensorFlow's, at most."""
    chosen = [b.chosen for g in groups for b in g.buckets if b.chosen is not None]
    worst = max((c.agreement.max_rel_error for c in chosen if c.agreement is not None), default=None)
    if worst is None:
        return "and was compared with nothing"
    if worst == 0:
        return "with equal answers"
    allowed = ", which was allowed" if any(facts.precision(c) for c in chosen) else ""
    return f"within {facts.error(worst)} of its answers{allowed}"


def overview(groups: Sequence[Group], model: str) -> Markup | None:
    """A row per plan where signatures have several, with a link to its section. `model`: the model's own anchor."""
    if len(groups) < 2:
        return None
    rows = [_row(group, f"#{anchor(model, i)}") for i, group in enumerate(groups)]
    return tag("section", tag("h2", "Signatures"), parts.rows(_GROUPS, rows, "signatures"))


def anchor(model: str, index: int) -> str:
    """Of a signature's section. A number: names may hold anything, and two models may have the same."""
    return f"{model}-s{index}"


def _row(group: Group, link: str) -> tuple[object, ...]:
    chosen = [b.chosen for b in group.buckets if b.chosen is not None]
    known = [c.agreement.max_rel_error for c in chosen if c.agreement is not None]
    measured = any(b.ratio is not None for b in group.buckets)
    return (
        tag("a", keys(group), href=link),
        join(
            [", ", name(n)] if i else name(n)
            for i, n in enumerate(dict.fromkeys(facts.runner(b.plan) for b in group.buckets))
        ),
        f"{len(group.buckets):,}",
        _gain(group.buckets) if measured else NOTHING,
        facts.error(max(known)) if known else NOTHING,
    )


def keys(group: Group) -> Markup:
    """The names of the signatures that share the plan."""
    return join(join([", ", name(k)]) if i else name(k) for i, k in enumerate(group.keys))


def choices(buckets: Sequence[Bucket]) -> Markup:
    """Large numbers for a few buckets, a table for many."""
    if len(buckets) > _LARGE:
        rows = (tuple(_texts(b)) for b in buckets)
        return tag("div", parts.rows(_HEADS, rows, "what was chosen"), class_="choices")
    return tag("ul", map(_cell, buckets), class_="gains", aria_label="what was chosen, bucket by bucket")


def _cell(bucket: Bucket) -> Markup:
    rows, who, faster, mine, plain, off, memory = _texts(bucket)
    told = [f"{mine} for {plain}" if bucket.ratio is not None else mine, f"max error {off}", f"adds {memory} of memory"]
    shown = [line for line, known in zip(told, (mine, off, memory), strict=True) if known != NOTHING]
    return tag(
        "li", tag("b", faster), tag("span", rows), tag("span", who, class_="who"), [tag("small", t) for t in shown],
        class_=color(bucket.plan.engine),
    )  # fmt: skip


def _texts(bucket: Bucket) -> tuple[object, ...]:
    """In the order of _HEADS."""
    chosen = bucket.chosen
    agreement, memory = (chosen.agreement, chosen.memory_bytes) if chosen is not None else (None, None)
    return (
        facts.rows(bucket.plan),
        name(facts.runner(bucket.plan)),
        facts.times(bucket.ratio),
        facts.time(facts.time_us(chosen)),
        facts.time(facts.time_us(bucket.plain)),
        facts.error(agreement.max_rel_error if agreement is not None else None),
        size(memory) if memory is not None and math.isfinite(memory) else NOTHING,
    )
