"""The report as one self-contained HTML page: no script, nothing loaded from anywhere, light and dark, any width.

text = render([Version("m", 3, "made in 4.2 s", plan)])
text = render_conversion("m_tpu", report)      # of `tfopt convert-tpu`, which a Version may have too
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from tfopt_optimizer.page import candidates, choices, conversion, drawing, errors, facts, latency, names, onhost, parts
from tfopt_optimizer.page.facts import Bucket, Gate, Group
from tfopt_optimizer.page.markup import Markup, name, tag
from tfopt_optimizer.page.svg import color
from tfopt_optimizer.plan import Plan
from tfopt_optimizer.report import loaded
from tfopt_optimizer.wording import count, size

if TYPE_CHECKING:
    from tfopt_optimizer.tpu.report import Report

# Only the page's own styles: whatever a model's names may hold, nothing runs and nothing is fetched.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


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
    articles = [_version(v, f"m{i}") for i, v in enumerate(versions)]
    return _document(title, articles or tag("p", "No model is loaded yet."), said)


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


def _version(version: Version, anchor: str) -> Markup:
    """`anchor`: its own on the page."""
    number = tag("span", f"version {version.number}", class_="number") if version.number is not None else None
    heading = tag("h1", name(version.name), " ", number)
    converted = conversion.section(version.converted) if version.converted is not None else None
    if version.plan is None:
        return tag("article", tag("header", heading, tag("p", facts.sentence(version.why), class_="lead")), converted)
    plan = version.plan
    groups = facts.groups(plan)
    return tag(
        "article",
        tag(
            "header", heading, tag("p", choices.lead(groups), class_="lead"), _facts(plan, version.why), _warning(plan)
        ),
        choices.overview(groups, anchor),
        [_group(g, plan, choices.anchor(anchor, i)) for i, g in enumerate(groups)],
        converted,
        _names(plan),
        parts.log(plan.log),
        _provenance(plan),
    )


def _facts(plan: Plan, why: str) -> Markup:
    rows = [
        ("made", f"{facts.made(plan.created)}, in {plan.optimize_s:.1f} s"),
        ("checked on", _checked(plan)),
        ("device", " ".join([plan.where, plan.fingerprint.hardware.get("processor", "")]).strip()),
        ("cores", plan.fingerprint.hardware.get("cores", "–")),
        ("weights", size(plan.weights_bytes)),
        ("plain TensorFlow", f"by the {plan.loader} loader{loaded(plan)}"),
    ]
    chosen = [b.chosen for g in facts.groups(plan) for b in g.buckets if b.chosen is not None]
    if known := [c.memory_bytes for c in chosen if c.memory_bytes is not None]:
        rows.append(("memory of the runners", f"{size(sum(known))} beside the weights"))
    if plan.runners:
        rows.append(("calls at a time", f"{plan.runners}, when requests queue"))
    if why:
        rows.append(("this plan", why))
    return tag("dl", [tag("div", tag("dt", k), tag("dd", v)) for k, v in rows], class_="facts")


def _checked(plan: Plan) -> str:
    found = [c.agreement.rows for s in plan.signatures for b in s.buckets for c in b.candidates if c.agreement]
    what = "the model's warmup records" if plan.records == "warmup" else f"{plan.records} inputs"
    return f"{what}, up to {count(max(found), 'row')}" if found else what


def _warning(plan: Plan) -> Markup | None:
    if plan.records == "warmup":
        return None
    return tag(
        "p",
        tag("strong", "Checked on made-up inputs. "),
        "There are no warmup records, so right and fast were measured on inputs that clients may never send.",
        class_="warning",
    )


def _group(group: Group, plan: Plan, anchor: str) -> Markup:
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
        tag("p", facts.prose(facts.shortening(signature)), ".") if signature.shortening else None,
        tag("p", facts.prose(signature.rewritten), ".") if signature.rewritten else None,
    ]
    heading = tag("h2", choices.keys(group))
    if not group.buckets:
        return tag("section", heading, tag("div", notes, class_="notes"), id=anchor)
    drawn = drawing.paths(group)
    return tag(
        "section",
        heading,
        choices.choices(group.buckets),
        tag("div", notes, class_="notes"),
        tag("h3", "Path of a request"),
        [drawing.draw(group, b) for b in drawn],
        _on_host(group),
        _plots(group.buckets, facts.gates(plan)),
        tag("h3", "Every candidate"),
        [_bucket(b, opened=b is drawn[0]) for b in group.buckets],
        id=anchor,
    )


def _on_host(group: Group) -> list[Markup]:
    """Where the signature was cut: also where another candidate won everywhere in the end."""
    table = onhost.table(group.plan.segments)
    if not table:
        return []
    cut = [b for b in group.buckets if facts.segments(group.plan, b.plan)]
    calls = ", ".join(facts.rows(b.plan) for b in cut)
    said = f"In calls of {calls}." if cut else "For candidates of host+ engines only: none of them was chosen."
    return [tag("h3", "What stays on the host, and why"), tag("p", said, class_="said"), table]


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
            name(facts.runner(bucket.plan)),
            class_=f"chip {color(bucket.plan.engine)}",
        ),
        tag("span", facts.time(facts.time_us(bucket.chosen)), class_="figure"),
        tag("span", facts.times(bucket.ratio), class_="figure strong"),
    )
    return tag("details", summary, candidates.table(bucket), open="open" if opened else None)


def _names(plan: Plan) -> Markup | None:
    """What the candidates' names mean."""
    found = names.meanings(c for s in plan.signatures for b in s.buckets for c in b.candidates)
    if not found:
        return None
    meanings = [tag("div", tag("dt", name(n)), tag("dd", said)) for n, said in found.items()]
    return tag("details", tag("summary", "What the candidates' names mean"), tag("dl", meanings, class_="names"))


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
