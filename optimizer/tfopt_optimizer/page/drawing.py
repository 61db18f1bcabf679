"""The drawing of what a request goes through: pieces on the host and on the device, and what crosses between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfopt_optimizer.page import facts, onhost
from tfopt_optimizer.page.facts import Bucket, Group
from tfopt_optimizer.page.markup import Markup, join, name, tag
from tfopt_optimizer.page.svg import color
from tfopt_optimizer.plan import Crossing, Segment, SignaturePlan, TensorInfo
from tfopt_optimizer.wording import count, shape

_NAMED = 14  # tensors or operations listed in one box
_CROSSING = 6  # tensors named on one arrow
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
    own = frozenset(t.name for t in info.inputs)
    between = tuple(_segment(s, bucket, inputs, own) for s in segments) if segments else (_whole(bucket, inputs),)
    return (
        Stage("edge", "request", "", _tensors(info.inputs), ""),
        *between,
        Stage("edge", "answer", "", _tensors(info.outputs), outputs),
    )


def _whole(bucket: Bucket, crossing: str) -> Stage:
    engine = bucket.plan.engine
    title = facts.runner(bucket.plan)
    return Stage("device", title, engine, (("the whole signature", ""), ("", _padding(bucket))), crossing)


def _segment(segment: Segment, bucket: Bucket, inputs: str, own: frozenset[str]) -> Stage:
    """A host segment lists its operations with the reasons, a device segment the most frequent kinds. `own`: the names
    of the signature's inputs."""
    on_host = segment.where == "host"
    engine = segment.runs_on if on_host else facts.device_engine(bucket.plan.engine)
    title = f"host, {engine}".rstrip(", ") if on_host else f"{engine}/{bucket.plan.variant}".rstrip("/")
    counted = [(f.op, f.number, f.why) for f in onhost.kinds([segment])] if on_host else _counted(segment)
    lines = [(f"{kind} \N{MULTIPLICATION SIGN} {n:,}" if n > 1 else kind, why) for kind, n, why in counted]
    return Stage(segment.where, title, engine, tuple(lines), _crossings(segment.takes, own) or inputs)


def _counted(segment: Segment) -> list[tuple[str, int, str]]:
    return [(kind, n, "") for kind, n in sorted(segment.kinds.items(), key=lambda item: (-item[1], item[0]))]


def _crossings(tensors: Sequence[Crossing], own: frozenset[str]) -> str:
    """`ids int32[?, 26] (26 packed), numbers float[?, 13]`; of many that are the request's own, how many."""
    if len(tensors) > _CROSSING and own.issuperset(t.name for t in tensors):
        return f"{len(tensors):,} of {count(len(own), 'tensor')}"
    found = []
    for tensor in tensors:
        packed = f" ({len(tensor.parts):,} packed)" if len(tensor.parts) > 1 else ""
        found.append(f"{tensor.name} {shape(tensor.dtype, tensor.shape)}{packed}")
    shown = found[:_CROSSING]
    return ", ".join([*shown, f"and {len(found) - len(shown):,} more"] if len(found) > len(shown) else shown)


def _padding(bucket: Bucket) -> str:
    if bucket.plan.positions:
        return "takes any number of rows, and leaves their filling out"
    if not bucket.plan.static:
        return "takes any number of rows"
    if bucket.plan.batch == 1 and not bucket.plan.inner:
        return "takes single rows"
    return (
        f"requests are padded to {facts.rows(bucket.plan)}" if bucket.plan.batch is not None else "exactly these shapes"
    )


def _tensors(tensors: Sequence[TensorInfo]) -> tuple[tuple[str, str], ...]:
    return tuple((t.name, shape(t.dtype, t.shape)) for t in tensors)


def paths(group: Group) -> list[Bucket]:
    """The bucket that gains most; where some buckets are cut and others are not, the best of the other kind too."""
    cut = [b for b in group.buckets if facts.segments(group.plan, b.plan)]
    whole = [b for b in group.buckets if b not in cut]
    best = [facts.best(found) or found[0] for found in (cut, whole) if found]
    return sorted(best, key=lambda b: -(b.ratio or 0.0))


def draw(group: Group, bucket: Bucket) -> Markup:
    """Boxes with arrows between: side by side where there is room, else one below the other."""
    parts: list[Markup] = []
    found = stages(group.plan, bucket)
    for stage in found:
        if parts:
            parts.append(tag("div", tag("span", stage.crossing), class_="arrow"))
        parts.append(_box(stage))
    style = "flow" if len(found) <= _WIDE else "flow long"
    return tag("figure", tag("div", parts, class_=style), tag("figcaption", _caption(group, bucket)))


def _box(stage: Stage) -> Markup:
    shown = stage.lines[:_NAMED]
    rest = len(stage.lines) - len(shown)
    items = [tag("li", name(text) if text else None, " ", tag("span", why, class_="spec")) for text, why in shown]
    if rest:
        items.append(tag("li", f"and {rest:,} more", class_="more"))
    style = f"box {stage.kind}" + (f" {color(stage.engine)}" if stage.engine else "")
    return tag("div", tag("h4", name(stage.title)), tag("ul", items), class_=style)


def _caption(group: Group, bucket: Bucket) -> Markup:
    """What the drawing is of, and who runs the other buckets that go the same way, where that is somebody else."""
    rows = f"a call of {facts.rows(bucket.plan)}" if bucket.plan.batch is not None else "a call of these shapes"
    cut = bool(facts.segments(group.plan, bucket.plan))
    others: dict[str, list[str]] = {}
    for other in group.buckets:
        if bool(facts.segments(group.plan, other.plan)) == cut and facts.runner(other.plan) != facts.runner(
            bucket.plan
        ):
            others.setdefault(facts.runner(other.plan), []).append(facts.rows(other.plan))
    told = [join([" ", ", ".join(calls), " likewise, by ", name(runner), "."]) for runner, calls in others.items()]
    return join(["What ", rows, " goes through: ", facts.time(facts.time_us(bucket.chosen)), ".", *told])
