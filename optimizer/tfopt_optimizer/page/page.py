"""The report as one self-contained HTML page: no script, nothing loaded from anywhere, light and dark, any width.

text = render([Version("m", 3, "made in 4.2 s", plan)])
text = render_conversion("m_tpu", report)      # of `tfopt convert-tpu`, which a Version may have too
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from tfopt_optimizer.page import candidates, conversion, drawing, errors, facts, latency, parts
from tfopt_optimizer.page.facts import Bucket, Gate, Group
from tfopt_optimizer.page.markup import Markup, join, name, tag
from tfopt_optimizer.page.svg import color
from tfopt_optimizer.plan import Plan
from tfopt_optimizer.report import loaded
from tfopt_optimizer.wording import size

if TYPE_CHECKING:
    from tfopt_optimizer.tpu.report import Report

# Only the page's own styles: whatever a model's names may hold, nothing runs and nothing is fetched.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_ENGINES = {
    "tensorflow": "TensorFlow", "litert": "LiteRT", "openvino": "OpenVINO", "xla": "XLA", "onnxruntime": "ONNX Runtime",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Version:
    """A version and its plan; `plan` None when it runs as it is, `why` says why or where the plan came from.
    `converted`: how it became a model for Cloud TPU, where that is known."""

    name: str
    number: int | None
    why: str
    plan: Plan | None
    converted: Report | None = None


def render(versions: Sequence[Version]) -> str:
    """The whole document, UTF-8 text."""
    title = ", ".join(_title(v) for v in versions) or "no model"
    said = "ratios of interleaved runs on the machine named above"
    return _document(title, [_version(v) for v in versions] or tag("p", "No model is loaded yet."), said)


def render_conversion(title: str, report: Report) -> str:
    """A conversion's report by itself, as a whole document."""
    heading = tag("header", tag("h1", name(title)), tag("p", conversion.lead(report), class_="lead"))
    return _document(title, tag("article", heading, conversion.section(report)), "sizes and costs are from shapes")


def _document(title: str, content: object, said: str) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · tfopt"),
        tag("style", Markup(_style())),
    )
    body = tag("body", tag("main", content, tag("footer", f"tfopt · {said} · this page loads nothing")))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _style() -> str:
    return resources.files(__package__).joinpath("style.css").read_text()


def _title(version: Version) -> str:
    return f"{version.name} {version.number}" if version.number is not None else version.name


def _version(version: Version) -> Markup:
    number = tag("span", f"version {version.number}", class_="number") if version.number is not None else None
    heading = tag("h1", name(version.name), " ", number)
    converted = conversion.section(version.converted) if version.converted is not None else None
    if version.plan is None:
        return tag("article", tag("header", heading, tag("p", version.why, class_="lead")), converted)
    plan = version.plan
    groups = facts.groups(plan)
    return tag(
        "article",
        tag("header", heading, tag("p", _lead(groups), class_="lead"), _facts(plan, version.why), _warning(plan)),
        [_group(g, plan) for g in groups],
        converted,
        parts.log(plan.log),
        _provenance(plan),
    )


def _lead(groups: Sequence[Group]) -> str:
    gains = [(g, b) for g in groups if (b := facts.best(g.buckets)) is not None]
    if not gains:
        return "Plain TensorFlow serves this model; why is below."
    group, bucket = max(gains, key=lambda pair: pair[1].ratio or 0.0)
    if (bucket.ratio or 0.0) < 1.05:
        return "Plain TensorFlow is as fast as anything else that was right."
    return (
        f"{_engine(bucket.plan.engine)} answers {group.keys[0]} up to {facts.times(bucket.ratio)} faster than plain "
        "TensorFlow, with the same answers."
        if not _lossy(groups)
        else f"Up to {facts.times(bucket.ratio)} faster than plain TensorFlow, within the accuracy that was allowed."
    )


def _lossy(groups: Sequence[Group]) -> bool:
    return any(b.chosen is not None and facts.precision(b.chosen) for g in groups for b in g.buckets)


def _engine(engine: str) -> str:
    device = facts.device_engine(engine)
    return _ENGINES.get(device, device) + (" behind a host part" if device != engine else "")


def _facts(plan: Plan, why: str) -> Markup:
    rows = [
        ("made", f"{facts.made(plan.created)}, in {plan.optimize_s:.1f} s"),
        ("checked on", "the model's warmup records" if plan.records == "warmup" else f"{plan.records} inputs"),
        ("device", " ".join([plan.where, plan.fingerprint.hardware.get("processor", "")]).strip()),
        ("cores", plan.fingerprint.hardware.get("cores", "–")),
        ("weights", size(plan.weights_bytes)),
        ("plain TensorFlow", f"by the {plan.loader} loader{loaded(plan)}"),
    ]
    if plan.runners:
        rows.append(("calls at a time", f"{plan.runners}, when requests queue"))
    if why:
        rows.append(("this plan", why))
    return tag("dl", [tag("div", tag("dt", k), tag("dd", v)) for k, v in rows], class_="facts")


def _warning(plan: Plan) -> Markup | None:
    if plan.records == "warmup":
        return None
    return tag(
        "p",
        tag("strong", "Checked on made-up inputs. "),
        "There are no warmup records, so right and fast were measured on inputs that clients may never send.",
        class_="warning",
    )


def _group(group: Group, plan: Plan) -> Markup:
    signature = group.plan
    notes = [
        tag(
            "p",
            "Rows are ",
            "independent" if signature.row_independent else "not independent",
            ": ",
            facts.prose(signature.row_reason),
            ".",
        ),
        tag(
            "p",
            "Requests are ",
            "merged" if signature.merge else "not merged",
            ": ",
            facts.prose(signature.merge_reason),
            ".",
        )
        if signature.merge_reason
        else None,
        tag("p", "Buckets of ", facts.prose(signature.bucket_reason), ".") if signature.bucket_reason else None,
        tag("p", facts.prose(facts.inner(signature)), ".") if signature.inner else None,
    ]
    heading = tag("h2", join([join([", ", name(k)]) if i else name(k) for i, k in enumerate(group.keys)]))
    if not group.buckets:
        return tag("section", heading, tag("div", notes, class_="notes"))
    shown = facts.best(group.buckets) or group.buckets[0]
    return tag(
        "section",
        heading,
        _gains(group.buckets),
        tag("div", notes, class_="notes"),
        tag("h3", "Path of a request"),
        drawing.draw(signature, shown),
        _plots(group.buckets, facts.gates(plan)),
        tag("h3", "Every candidate"),
        [_bucket(b, opened=b is shown) for b in group.buckets],
    )


def _gains(buckets: Sequence[Bucket]) -> Markup:
    """The large numbers: times faster, per bucket."""
    cells = [
        tag(
            "li",
            tag("b", facts.times(b.ratio)),
            tag("span", facts.rows(b.plan)),
            tag("small", f"{facts.time(facts.time_us(b.chosen))} for {facts.time(facts.time_us(b.plain))}"),
            class_=color(b.plan.engine),
        )
        for b in buckets
    ]
    return tag("ul", cells, class_="gains", aria_label="times faster than plain TensorFlow")


def _plots(buckets: Sequence[Bucket], gates: Sequence[Gate]) -> Markup:
    said = "Time of one call, arrays in and arrays out. Ringed: chosen."
    plots = [(f"Latency{of}", said, latency.latency(found)) for of, found in facts.by_inner(buckets).items()]
    plots.append(("Error", errors.caption(buckets), errors.errors(buckets, gates)))
    figures = [
        tag("figure", tag("h3", title), svg, tag("figcaption", caption))
        for title, caption, svg in plots
        if svg is not None
    ]
    return tag("div", figures, class_="plots")


def _bucket(bucket: Bucket, opened: bool) -> Markup:
    summary = tag(
        "summary",
        tag("span", facts.rows(bucket.plan), class_="rows"),
        tag(
            "span",
            name(f"{bucket.plan.engine}/{bucket.plan.variant}".rstrip("/")),
            class_=f"chip {color(bucket.plan.engine)}",
        ),
        tag("span", facts.time(facts.time_us(bucket.chosen)), class_="figure"),
        tag("span", facts.times(bucket.ratio), class_="figure strong"),
    )
    return tag("details", summary, candidates.table(bucket), open="open" if opened else None)


def _provenance(plan: Plan) -> Markup:
    parts = [
        ("versions", plan.fingerprint.versions),
        ("hardware", plan.fingerprint.hardware),
        ("flags", {k: str(v) for k, v in facts.flags(plan).items()}),
        ("model", {"fingerprint": plan.fingerprint.model}),
    ]
    lists = [
        tag(
            "div",
            tag("h4", title),
            tag("dl", [tag("div", tag("dt", k), tag("dd", v)) for k, v in sorted(found.items())]),
        )
        for title, found in parts
        if found
    ]
    return tag("details", tag("summary", "What the plan is valid for"), tag("div", lists, class_="provenance"))
