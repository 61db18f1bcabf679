"""The drawing of what a request goes through: pieces on the host and on the device, and what crosses between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from tfopt_optimizer.page import facts
from tfopt_optimizer.page.facts import Bucket
from tfopt_optimizer.page.markup import Markup, join, name, tag
from tfopt_optimizer.page.svg import color
from tfopt_optimizer.plan import Crossing, Segment, SignaturePlan, TensorInfo
from tfopt_optimizer.wording import count, shape

_NAMED = 14  # tensors or operations listed in one box
_WIDE = 3  # boxes that fit side by side


@dataclasses.dataclass(frozen=True)
class Stage:
    """One box. `kind` is "edge" (request, answer), "host" or "device"; `crossing` says what arrives in it."""

    kind: str
    title: str
    engine: str
    lines: tuple[tuple[str, str], ...]
    crossing: str


def stages(signature: SignaturePlan, bucket: Bucket) -> tuple[Stage, ...]:
    """From the request to the answer: the segments where the signature was cut for this bucket, else its one engine."""
    info = signature.signature
    inputs, outputs = count(len(info.inputs), "tensor"), count(len(info.outputs), "tensor")
    segments = facts.segments(signature, bucket.plan)
    between = tuple(_segment(s, bucket, inputs) for s in segments) if segments else (_whole(bucket, inputs),)
    return (
        Stage("edge", "request", "", _tensors(info.inputs), ""),
        *between,
        Stage("edge", "answer", "", _tensors(info.outputs), outputs),
    )


def _whole(bucket: Bucket, crossing: str) -> Stage:
    engine = bucket.plan.engine
    title = f"{engine}/{bucket.plan.variant}".rstrip("/")
    return Stage("device", title, engine, (("the whole signature", ""), ("", _padding(bucket))), crossing)


def _segment(segment: Segment, bucket: Bucket, inputs: str) -> Stage:
    """A host segment lists its operations with the reason, a device segment the most frequent kinds."""
    on_host = segment.where == "host"
    engine = segment.runs_on if on_host else facts.device_engine(bucket.plan.engine)
    title = f"host, {engine}" if on_host else f"{engine}/{bucket.plan.variant}".rstrip("/")
    why = {operation.op: operation.why for operation in segment.operations}
    kinds = sorted(segment.kinds.items(), key=lambda item: (-item[1], item[0]))
    lines = [(f"{kind} \N{MULTIPLICATION SIGN} {n}" if n > 1 else kind, why.get(kind, "")) for kind, n in kinds]
    return Stage(segment.where, title, engine, tuple(lines), _crossings(segment.takes) or inputs)


def _crossings(tensors: Iterable[Crossing]) -> str:
    """`ids int32[?, 26] (26 packed), numbers float[?, 13]`."""
    found = []
    for tensor in tensors:
        packed = f" ({len(tensor.parts)} packed)" if len(tensor.parts) > 1 else ""
        found.append(f"{tensor.name} {shape(tensor.dtype, tensor.shape)}{packed}")
    shown = found[:_NAMED]
    return ", ".join([*shown, f"and {len(found) - len(shown)} more"] if len(found) > len(shown) else shown)


def _padding(bucket: Bucket) -> str:
    if not bucket.plan.static:
        return "takes any number of rows"
    return (
        f"requests are padded to {facts.rows(bucket.plan)}" if bucket.plan.batch is not None else "exactly these shapes"
    )


def _tensors(tensors: Sequence[TensorInfo]) -> tuple[tuple[str, str], ...]:
    return tuple((t.name, shape(t.dtype, t.shape)) for t in tensors)


def draw(signature: SignaturePlan, bucket: Bucket) -> Markup:
    """Boxes with arrows between: side by side where there is room, else one below the other."""
    parts: list[Markup] = []
    found = stages(signature, bucket)
    for stage in found:
        if parts:
            parts.append(tag("div", tag("span", stage.crossing), class_="arrow"))
        parts.append(_box(stage))
    style = "flow" if len(found) <= _WIDE else "flow long"
    return tag("figure", tag("div", parts, class_=style), tag("figcaption", _caption(bucket)))


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
