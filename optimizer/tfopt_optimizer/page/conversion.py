"""The section of a conversion for Cloud TPU: what went there and what stayed, what it costs, how far off it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tfopt_optimizer.page import facts, parts
from tfopt_optimizer.page.facts import NOTHING
from tfopt_optimizer.page.markup import Markup, join, name, tag
from tfopt_optimizer.tpu import link, report
from tfopt_optimizer.wording import count, size

if TYPE_CHECKING:
    from tfopt_optimizer.plan import Agreement
    from tfopt_optimizer.tpu.ahead import Compiled
    from tfopt_optimizer.tpu.cost import FunctionCost
    from tfopt_optimizer.tpu.io_shapes import Weighed
    from tfopt_optimizer.tpu.link import Moved, Transfer
    from tfopt_optimizer.tpu.report import Report
    from tfopt_optimizer.tpu.trial import Tried

_WORK = (("function", ""), ("runs on", ""), ("operations of one row", "n wide"), ("share", "n"))
_HOST = (("signature", ""), ("why they stay", ""), ("operations", "n"))
_ANSWERS = (
    ("output", ""), ("calls", "n"), ("max error", "n"), ("mean error", "n wide"), ("top 1", "n wide"),
)  # fmt: skip
_PRECISION = (("function", ""), ("stayed in float32", ""), ("in bfloat16", "n"), ("casts", "n wide"))
_LINK = (("function", ""), ("rows", "n"), ("to the TPU", "n"), ("back", "n"), ("tensors", "n wide"))
_FORMS = (
    ("tensors", ""), ("direction", ""), ("taken", ""), ("rows", "n"), ("in tiles", "n"), ("as rank 1", "n"),
    ("saves a call", "n"), ("by", "n wide"),
)  # fmt: skip
_BATCHES = (
    ("function", ""), ("largest request", "n"), ("sizes", "n"), ("waits", "n"), ("threads", "n wide"),
    ("queue", "n wide"),
)  # fmt: skip
_AHEAD = (
    ("function", ""), ("memory", "n"), ("arguments", "n wide"), ("results", "n wide"), ("temporary", "n wide"),
    ("code", "n wide"), ("modelled", "n"), ("compiled in", "n"),
)  # fmt: skip


def lead(found: Report) -> str:
    """One sentence: how much is on the TPU, and how far the answers moved."""
    if not found.placed:
        return "Batch ops were given new options; nothing was placed on the TPU."
    share = f"{found.costs.share('TPU'):.1%} of the work is on the TPU" if found.costs else "Placed on the TPU"
    compared = [t.agreement for t in found.tried if t.agreement is not None]
    if not compared:
        return f"{share}. The converted model was not run."
    worst = max(a.max_rel_error for a in compared)
    if not worst < 1:  # a string or an index that differs, or no number at all
        return f"{share}; not all of its answers are the original's."
    moved = "equal to" if worst == 0 else f"within {facts.error(worst)} of"
    return f"{share}; its answers are {moved} the original's."


def section(found: Report) -> Markup:
    """With its heading; parts that the conversion did not have are left out."""
    blocks = [
        ("Work by function", _work(found)),
        ("What stayed on the host", _on_host(found)),
        ("Moved to the host, for a compiler refused it", _moved(found)),
        ("Answers beside the original's", _answers(found.tried)),
        ("Precision", _precision(found)),
        ("Batching", _batching(found)),
        ("Across the host link, per call", parts.rows(_LINK, map(_transfer, found.link), "across the host link")),
        ("Forms on the link that were weighed", parts.rows(_FORMS, map(_form, found.io_shapes), "forms on the link")),
        (f"Compiled for {found.topology}", parts.rows(_AHEAD, map(_compiled, found.ahead), "compiled")),
    ]
    return tag(
        "section",
        tag("h2", "Conversion for Cloud TPU"),
        _gains(found),
        _facts(found),
        [tag("p", tag("strong", "Caution. "), facts.prose(c), class_="warning") for c in found.cautions],
        [(tag("h3", title), content) for title, content in blocks if content],
        parts.log(report.lines(found)),
    )


def _gains(found: Report) -> Markup | None:
    """The large numbers."""
    cells = []
    if found.placed and found.costs:
        cells = [
            (f"{found.costs.share('TPU'):.1%}", "of the work on the TPU", "operations of one row", "e-xla"),
            (f"{found.costs.share('CPU'):.1%}", "on the host", "operations of one row", "e-tensorflow"),
        ]
    changed = found.bfloat16_variables
    if changed and changed.changed:
        said = f"{size(changed.bytes_after)} for {size(changed.bytes_before)}"
        cells.append((f"{changed.bytes_after / changed.bytes_before:.0%}", "of the checkpoint", said, "e-litert"))
    if found.quantized:
        q = found.quantized
        said = f"{size(q.bytes_after)} for {size(q.bytes_before)}, {q.method}"
        cells.append((f"{q.bytes_after / q.bytes_before:.0%}", "of the model, quantized", said, "e-litert"))
    items = [tag("li", tag("b", b), tag("span", text), tag("small", said), class_=c) for b, text, said, c in cells]
    return tag("ul", items, class_="gains", aria_label="the conversion in numbers") if items else None


def _facts(found: Report) -> Markup:
    kept = found.bfloat16_variables.kept if found.bfloat16_variables else ()
    rows = [
        ("placed", ", ".join(dict.fromkeys(p.chosen_by for p in found.placed)) or "nothing"),
        ("compared on", found.samples),
        ("converted in", facts.seconds(found.seconds)),
        ("written to", found.written or "nowhere: a dry run"),
    ]
    if found.quantized and found.quantized.calibrated_on:
        rows.append(("ranges read off", found.quantized.calibrated_on))
    if found.quantized and found.quantized.left:
        rows.append(("not quantized", f"{', '.join(found.quantized.left)}: TensorFlow's quantizer cannot do them so"))
    if found.joined_handles:
        rows.append(("Keras 3", f"{found.joined_handles} second handles joined"))
    if kept:
        rows.append(("variables in float32", "; ".join(_counted(why for _, why in kept))))
    return tag("dl", [tag("div", tag("dt", k), tag("dd", v)) for k, v in rows], class_="facts")


def _counted(reasons: Iterable[str]) -> list[str]:
    found = list(reasons)
    return [f"{found.count(why)}: {why}" for why in dict.fromkeys(found)]


def _work(found: Report) -> Markup:
    if not (found.costs and found.placed):
        return Markup("")
    total = sum(f.operations for f in found.costs.functions) or 1.0
    ordered = sorted(found.costs.functions, key=lambda f: -f.operations)
    return parts.rows(_WORK, (_function(f, total) for f in ordered), "work by function")


def _function(found: FunctionCost, total: float) -> tuple[object, ...]:
    share = found.operations / total
    return name(found.name), found.where, f"{found.operations:,.0f}", f"{share:.2%}"


def _on_host(found: Report) -> Markup:
    if found.cut is None:
        return Markup("")
    whole = [(name(key), why, "all") for key, why in found.cut.whole_on_host.items()]
    counted = [
        (name(key), why, f"{number:,}")
        for key, reasons in found.cut.reasons.items()
        for why, number in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    return parts.rows(_HOST, [*whole, *counted], "what stayed on the host")


def _moved(found: Report) -> Markup:
    moved = found.cut.moved if found.cut is not None else ()
    return tag("ul", [tag("li", line) for line in moved], class_="moved") if moved else Markup("")


def _answers(tried: Sequence[Tried]) -> Markup:
    return parts.rows(_ANSWERS, (row for t in tried for row in _signature(t)), "answers")


def _signature(tried: Tried) -> list[tuple[object, ...]]:
    if tried.agreement is None:
        refused = join([name(tried.signature), " ", tag("em", f"not compared: {tried.refused}")])
        return [(refused, NOTHING, NOTHING, NOTHING, NOTHING)]
    each = tried.outputs or {"": tried.agreement}
    return [_output(tried, output, agreement) for output, agreement in each.items()]


def _output(tried: Tried, output: str, found: Agreement) -> tuple[object, ...]:
    return (
        join([name(output), " ", tag("em", "of ", name(tried.signature))]),
        f"{tried.calls:,}",
        facts.error(found.max_rel_error),
        facts.error(found.mean_rel_error),
        f"{found.top1:.1%}" if found.top1 is not None else NOTHING,
    )


def _precision(found: Report) -> Markup:
    return parts.rows(
        _PRECISION,
        (
            (
                join([name(b.name), tag("em", " on the host") if b.on_host else None]),
                ", ".join(f"{op} × {n}" for op, n in b.kept.items()) or "nothing",
                f"{sum(b.changed.values()):,}",
                f"{b.casts:,}",
            )
            for b in found.bfloat16
        ),
        "precision",
    )


def _batching(found: Report) -> Markup:
    return parts.rows(
        _BATCHES,
        (
            (
                name(b.name),
                count(b.max_batch_size, "row") + ("" if b.splitting else ", not split"),
                ", ".join(map(str, b.allowed_batch_sizes)) or "any",
                facts.time(b.batch_timeout_micros),
                str(b.num_batch_threads),
                str(b.max_enqueued_batches),
            )
            for b in found.batched
        ),
        "batching",
    )


def _transfer(found: Transfer) -> tuple[object, ...]:
    both = (*found.to_tpu, *found.from_tpu)
    return (
        name(found.function),
        "any" if found.rows is None else f"{found.rows:,}",
        _bytes(found.to_tpu),
        _bytes(found.from_tpu),
        f"{len(found.to_tpu)} + {len(found.from_tpu)}" if both else NOTHING,
    )


def _bytes(tensors: Sequence[Moved]) -> str:
    least = "at least " if any(t.size is None for t in tensors) else ""
    return least + size(link.total(tensors))


def _form(found: Weighed) -> tuple[object, ...]:
    shown = [name(t) for t in found.tensors[:4]]
    more = f" and {len(found.tensors) - 4} more" if len(found.tensors) > 4 else ""
    return (
        join([*(join([" ", one]) for one in shown), more, " ", tag("em", "of ", name(found.function))]),
        found.direction,
        "yes" if found.applied else "no",
        f"{found.rows:,}",
        size(found.bytes_before),
        size(found.bytes_after),
        f"{found.gain_s * 1e6:,.1f} µs",
        found.source,
    )


def _compiled(found: Compiled) -> tuple[object, ...]:
    return (
        name(found.name),
        size(found.memory),
        size(found.arguments),
        size(found.outputs),
        size(found.temporary),
        size(found.code),
        facts.time(found.optimal_s * 1e6) if found.optimal_s is not None else NOTHING,
        facts.seconds(found.compile_s),
    )
