"""The drawing of what a request goes through: pieces on the host and on the device, and what crosses between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfopt_optimizer.page import facts
from tfopt_optimizer.page.facts import Bucket
from tfopt_optimizer.page.markup import Markup, join, name, tag
from tfopt_optimizer.page.svg import color
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_optimizer.wording import count, shape

_NAMED = 14  # tensors or operations listed in one box


@dataclasses.dataclass(frozen=True)
class Stage:
    """One box. `kind` is "edge" (request, answer), "host" or "device"; `crossing` says what arrives in it."""

    kind: str
    title: str
    engine: str
    lines: tuple[tuple[str, str], ...]
    crossing: str


def stages(signature: SignatureInfo, bucket: Bucket) -> tuple[Stage, ...]:
    """From the request to the answer. A plan without segments has one piece: the engine that runs it all."""
    whole = Stage(
        "device",
        f"{bucket.plan.engine}/{bucket.plan.variant}".rstrip("/"),
        bucket.plan.engine,
        (("the whole signature", _padding(bucket)),),
        count(len(signature.inputs), "tensor"),
    )
    return (
        Stage("edge", "request", "", _tensors(signature.inputs), ""),
        whole,
        Stage("edge", "answer", "", _tensors(signature.outputs), count(len(signature.outputs), "tensor")),
    )


def _padding(bucket: Bucket) -> str:
    if not bucket.plan.static:
        return "takes any number of rows"
    return (
        f"requests are padded to {facts.rows(bucket.plan)}" if bucket.plan.batch is not None else "exactly these shapes"
    )


def _tensors(tensors: Sequence[TensorInfo]) -> tuple[tuple[str, str], ...]:
    return tuple((t.name, shape(t.dtype, t.shape)) for t in tensors)


def draw(signature: SignatureInfo, bucket: Bucket) -> Markup:
    """Boxes with arrows between: side by side where there is room, one below the other on a telephone."""
    parts: list[Markup] = []
    for stage in stages(signature, bucket):
        if parts:
            parts.append(tag("div", tag("span", stage.crossing), class_="arrow", aria_hidden="true"))
        parts.append(_box(stage))
    return tag("figure", tag("div", parts, class_="flow"), tag("figcaption", _caption(bucket)))


def _box(stage: Stage) -> Markup:
    shown = stage.lines[:_NAMED]
    rest = len(stage.lines) - len(shown)
    items = [tag("li", name(text), " ", tag("span", detail, class_="spec")) for text, detail in shown]
    if rest:
        items.append(tag("li", f"and {rest} more", class_="more"))
    style = f"box {stage.kind}" + (f" {color(stage.engine)}" if stage.engine else "")
    return tag("div", tag("h4", name(stage.title)), tag("ul", items), class_=style)


def _caption(bucket: Bucket) -> Markup:
    rows = f"a call of {facts.rows(bucket.plan)}" if bucket.plan.batch is not None else "a call of these shapes"
    return join(["What ", rows, " goes through: ", facts.time(facts.time_us(bucket.chosen)), "."])
