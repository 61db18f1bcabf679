"""What a reader of the report wants: who, why, and what stays on the host; by ear, by keyboard and on paper."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path

import pytest
from htmlpages import Page, read
from madeplans import EVIL, bucket, candidate, plan, usual
from tfopt_optimizer import compression
from tfopt_optimizer.engines import table
from tfopt_optimizer.page import facts, names
from tfopt_optimizer.page.page import Version, render
from tfopt_optimizer.page.svg import thinned
from tfopt_optimizer.plan import (
    FORMAT_VERSION,
    Agreement,
    BucketPlan,
    Candidate,
    Crossing,
    HostOperation,
    Measured,
    Plan,
    Segment,
    parsed,
)  # fmt: skip

PLAIN = candidate("tensorflow", "function", "slower", 800.0)
STYLE = Path(facts.__file__).with_name("style.css").read_text()


def shown(made: Plan) -> tuple[Page, str]:
    page = read(render([Version("m", 1, "", made)]))
    return page, re.sub(r"\s+", " ", page.text)


def having(made: Plan, **changes: object) -> Plan:
    return dataclasses.replace(made, signatures=(dataclasses.replace(made.signatures[0], **changes),))  # type: ignore[arg-type]


def rows(batch: int, engine: str, us: float = 100.0) -> BucketPlan:
    return bucket(batch, PLAIN, candidate(engine, "t1", "chosen", us, 1e-7))


CUT = (
    Segment(
        "host",
        "python",
        {"LookupTableFindV2": 3, "Cast": 1},
        (
            HostOperation("words/a", "LookupTableFindV2", "LookupTableFindV2 reads a table"),
            HostOperation("words/b", "LookupTableFindV2", "LookupTableFindV2 reads a table"),
            HostOperation("c", "LookupTableFindV2", "XLA refuses it: no kernel"),
            HostOperation("d", "Identity", "what feeds it is there"),
        ),
    ),
    Segment("device", "", {"MatMul": 1}, takes=(Crossing("ids", "int32", (None, 2), ("t", "u")),)),
    Segment("host", "tensorflow", {"AsString": 1}, (HostOperation("e", "AsString", EVIL),)),
)


def test_what_stays_on_the_host_is_told_by_kind_and_reason() -> None:
    page, words = shown(having(plan(rows(1, "host+litert")), segments=CUT))
    told = words[words.index("What stays on the host, and why") : words.index("Every candidate")]
    assert "In calls of 1 row." in told
    assert "LookupTableFindV2 reads a table words/a python 2" in told
    assert "LookupTableFindV2 XLA refuses it: no kernel c python 1" in told
    assert "Cast – python 1" in told
    assert "AsString <script>alert('1')" in told
    assert "Identity" not in told
    assert "LookupTableFindV2 × 2 reads a table LookupTableFindV2 XLA refuses it" in words  # in the drawing
    assert page.tags.count("figure") == 2


def test_what_would_stay_is_told_where_nothing_that_was_chosen_is_cut() -> None:
    _, words = shown(having(plan(rows(1, "litert")), segments=CUT))
    assert "For candidates of host+ engines only: none of them was chosen." in words
    assert "What stays on the host" not in shown(usual())[1]


def test_both_paths_are_drawn_where_some_buckets_are_cut_and_others_are_not() -> None:
    _, words = shown(having(plan(rows(1, "host+litert"), rows(8, "litert", 50.0), rows(16, "xla")), segments=CUT))
    assert "What a call of 8 rows goes through: 50 µs. 16 rows likewise, by xla/t1 ." in words
    assert "What a call of 1 row goes through: 100 µs." in words


def test_of_many_own_inputs_the_arrow_says_how_many() -> None:
    made = plan(rows(1, "host+litert"))
    tensor = made.signatures[0].signature.inputs[0]
    info = dataclasses.replace(
        made.signatures[0].signature, inputs=tuple(dataclasses.replace(tensor, name=f"w{i}") for i in range(27))
    )
    takes = tuple(Crossing(f"w{i}", "string", (None,), (f"w{i}",)) for i in range(26))
    cut = (dataclasses.replace(CUT[0], takes=takes), *CUT[1:])
    assert "26 of 27 tensors" in shown(having(made, signature=info, segments=cut))[1]


def test_candidates_that_lost_alike_share_a_row_and_who_was_faster_is_told_why_it_lost() -> None:
    won = candidate("litert", "t1", "chosen", 100.0, 1e-7)
    smaller = "litert/t1 is as small or smaller"
    faster = candidate("openvino", "f32", "slower", 60.0, 1e-7, reason=smaller)
    slower = candidate("openvino", "f32-s2", "slower", 200.0, 1e-7, reason=smaller)
    lost = [
        Candidate("onnxruntime", "t1", "skipped", "not converted: litert/t1 is 13.1x faster than plain TF already"),
        Candidate("onnxruntime", "t2", "skipped", "not converted: openvino/f32 is 14x faster than plain TF already"),
        Candidate("xla", "pjrt", "rejected", "no kernel"),
    ]
    page, words = shown(plan(bucket(1, PLAIN, won, faster, slower, *lost)))
    assert "onnxruntime/t1 onnxruntime/t2 skipped : not converted: litert/t1 is 13.1x faster" in words
    assert "xla/pjrt rejected : no kernel" in words
    assert words.count(smaller) == words.count(f"not chosen : {smaller}") == 1
    assert [v for _, key, v in page.attributes if key == "class" and v.startswith("lost ")] == [
        "lost s-rejected", "lost s-skipped",
    ]  # fmt: skip


def test_many_buckets_are_a_table_and_several_plans_have_an_overview() -> None:
    many = plan(*(rows(2**i, "litert", 20.0 * (i + 1)) for i in range(12)))
    page, words = shown(many)
    assert ("ul", "class", "gains") not in page.attributes
    assert "2048 rows litert/t1 3.3× 240 µs 800 µs 1·10⁻⁷ 4.1 kB" in words
    other = having(usual(), signature=dataclasses.replace(usual().signatures[0].signature, key="other"))
    both = dataclasses.replace(many, signatures=(*many.signatures, *other.signatures))
    words = shown(both)[1]
    assert "serving_default litert/t1 12 3.3× to 40× 1·10⁻⁷ other xla/pjrt , litert/t1 2 5.3× to 8.0× 3·10⁻⁷" in words
    assert "Signatures" not in shown(many)[1]


def test_a_signature_of_many_is_one_link_away() -> None:
    """Each section is several screens long."""
    info = usual().signatures[0].signature
    keys = [f"s{i}" for i in range(5)]
    plans = [plan(rows(2**i, "litert", 20.0)).signatures[0] for i in range(5)]
    made = [
        dataclasses.replace(p, signature=dataclasses.replace(info, key=key)) for p, key in zip(plans, keys, strict=True)
    ]
    whole = dataclasses.replace(usual(), signatures=tuple(made))
    text = render([Version("m", 1, "", whole), Version("m", 2, "", whole)])
    read(text)
    linked = re.findall(r'<a href="#([^"]+)"><bdi class="name">(\w+)</bdi></a>', text)
    headed = re.findall(r'<h2><bdi class="name">(\w+)</bdi></h2>', text)
    places = re.findall(r'<section id="([^"]+)"><h2><bdi class="name">(\w+)</bdi></h2>', text)
    assert linked == places
    assert [key for _, key in linked] == headed == keys * 2


def test_the_headline_where_nothing_is_faster() -> None:
    even = bucket(1, dataclasses.replace(PLAIN, status="chosen"), candidate("xla", "pjrt", "slower", 810.0, 1e-7))
    assert "Plain TensorFlow is as fast as anything else that was right." in shown(plan(even))[1]
    small = bucket(1, PLAIN, candidate("litert", "t1", "chosen", 810.0, 1e-7))  # --optimize_for=memory
    words = shown(plan(small))[1]
    assert "LiteRT answers serving_default as fast as plain TensorFlow, within 1·10⁻⁷ of its answers." in words


def test_gains_are_not_claimed_for_buckets_that_have_none() -> None:
    even = bucket(4, dataclasses.replace(PLAIN, status="chosen"))
    assert "answer serving_default up to 8.0× faster" in shown(plan(rows(1, "litert"), even))[1]
    assert (
        "LiteRT answers serving_default 8.0× faster than plain TensorFlow, within" in shown(plan(rows(1, "litert")))[1]
    )


def bare(value: object) -> object:
    """The document of a plan without the fields that have a default, as older versions wrote it."""
    if dataclasses.is_dataclass(value):
        needed = (f for f in dataclasses.fields(value) if f.default is f.default_factory)
        return {f.name: bare(getattr(value, f.name)) for f in needed}
    if isinstance(value, dict):
        return {key: bare(one) for key, one in value.items()}
    return [bare(one) for one in value] if isinstance(value, tuple) else value


def test_an_older_plan_is_shown_without_what_it_lacks() -> None:
    made = having(usual(), segments=CUT, bucket_reason="each saves time")
    document = bare(made)
    assert isinstance(document, dict)
    assert "runners" not in document
    _, words = shown(parsed(document | {"format_version": FORMAT_VERSION}, "plan.json"))
    assert "XLA and LiteRT answer serving_default , not measured beside plain TensorFlow." in words
    assert "100 µs" not in words


NUMBERS = (0.0, -1.0, 1e-300, 1e300, math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_breaks_the_page(number: float) -> None:
    odd = Candidate(
        "xla", "pjrt", "chosen", "", Measured(number, number, 1, number, 1),
        Agreement(abs(number), number, 1, number, (-1,) * 20), number, 7, artifact_bytes=7,
    )  # fmt: skip
    flags = f'{{"lossless_max_rel_error": {number}}}'.replace("inf", "Infinity").replace("nan", "NaN")
    made = plan(bucket(1, PLAIN, odd), bucket(2, PLAIN, odd), optimize_s=number)
    made = dataclasses.replace(made, fingerprint=dataclasses.replace(made.fingerprint, flags=flags))
    page, _ = shown(made)
    places = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "points"}
    assert [v for _, key, v in page.attributes if key in places and re.search("nan|inf|^-", v)] == []


def test_the_gate_is_drawn_for_a_whole_number_too() -> None:
    made = plan(bucket(1, PLAIN, candidate("xla", "pjrt", "chosen", 9.0, 1e-7)))
    made = dataclasses.replace(
        made, fingerprint=dataclasses.replace(made.fingerprint, flags='{"lossless_max_rel_error": 1}')
    )
    assert ("line", "class", "gate") in shown(made)[0].attributes


def test_bars_of_an_error_distribution_stand_side_by_side() -> None:
    full = candidate("xla", "pjrt", "chosen", 100.0, 0.5)
    assert full.agreement is not None
    full = dataclasses.replace(full, agreement=dataclasses.replace(full.agreement, histogram=(3,) * 20))
    text = render([Version("m", 1, "", plan(bucket(1, PLAIN, full)))])
    bars = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', text)]
    bars = bars[-20:]
    assert len(bars) == 20
    assert all(x + w <= after + 0.11 for (x, w), (after, _) in itertools.pairwise(bars))
    assert bars[-1][0] + bars[-1][1] <= 440


def test_variants_with_the_same_errors_share_a_row_of_the_plot() -> None:
    found = [candidate("litert", v, "slower", 90.0, 1e-7) for v in ("t1", "t2")]
    quantized = [
        candidate("litert", f"{t}+int8-dynamic", "slower", 9.0, 1e-3, precision="int8-dynamic") for t in ("t1", "t2")
    ]
    text = render([Version("m", 1, "", plan(bucket(1, PLAIN, *found, *quantized)))])
    read(text)
    assert "litert/t1, t2: 1·10⁻⁷ at most; litert/t1+int8-dynamic +1: 1·10⁻³ at most" in text
    assert "+1: so is another variant." in text


def test_labels_of_an_axis_do_not_touch() -> None:
    labels = [str(2**i) for i in range(14)]
    kept = thinned(labels, 290)
    places = [i * 290 / 13 for i, text in enumerate(kept) if text]
    assert len(kept) == 14
    assert 4 <= len(places) < 14
    assert all(b - a >= 7 * 4 for a, b in itertools.pairwise(places))
    assert thinned(["1", "8"], 290) == ["1", "8"]


def test_who_hears_the_page_is_told_the_plots_and_the_keyboard_reaches_every_table() -> None:
    page, _ = shown(having(usual(), segments=CUT))
    plots = [v for tag, key, v in page.attributes if (tag, key) == ("svg", "aria-label")]
    plots = [v.replace("\N{NO-BREAK SPACE}", " ") for v in plots]
    assert len(plots) == page.tags.count("svg") == 2
    assert "plain TF: 800 µs for 1 row, 800 µs for 8 rows" in plots[0]
    assert "xla/pjrt: 3·10⁻⁷ at most; litert/t1: equal at most" in plots[1]
    scrolls = page.attributes.count(("div", "class", "scroll"))
    assert scrolls == page.tags.count("table") == page.attributes.count(("div", "tabindex", "0"))
    assert len([v for tag, key, v in page.attributes if (tag, key) == ("div", "aria-label") and v]) == scrolls
    assert page.attributes.count(("th", "scope", "row")) == 3 + 3 + 4  # candidates, and operations on the host


def luminance(color: str) -> float:
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("block", [0, 1], ids=["light", "dark"])
def test_letters_have_the_contrast_that_wcag_asks_for(block: int) -> None:
    colors = dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[block]))
    ground = luminance(colors["paper"])
    ratios = {}
    for name in colors.keys() - {"paper", "wash", "rule"}:
        low, high = sorted((luminance(colors[name]), ground))
        ratios[name] = round((high + 0.05) / (low + 0.05), 2)
    assert len(ratios) == 10
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


def test_paper_is_white_and_shows_what_is_folded() -> None:
    assert re.findall(r"@media ([^{]*prefers-color-scheme[^{]*) \{", STYLE) == [
        "screen and (prefers-color-scheme: dark)"
    ]
    printed = STYLE[STYLE.index("@media print") :]
    assert "details::details-content { content-visibility: visible; height: auto; }" in printed


VARIANTS = [(r, v) for r in table.ROWS for cores in (1, 4) for v in r.variants(cores)]


@pytest.mark.parametrize(("row", "variant"), VARIANTS, ids=[f"{r.engine}-{v}" for r, v in VARIANTS])
def test_every_name_of_the_table_of_engines_is_explained(row: table.Row, variant: str) -> None:
    precision = table.precision(row, variant)
    one = Candidate(f"host+{row.engine}", variant, "slower", "", precision=precision)
    found = names.meanings([one])
    assert list(found) == ["host+", f"{row.engine}/{variant}"]
    if precision:
        assert compression.PRECISIONS[precision].about in found[f"{row.engine}/{variant}"]
    assert "{" not in found[f"{row.engine}/{variant}"]


def test_the_names_of_a_plan_are_explained_on_its_page() -> None:
    assert "What the candidates' names mean" in shown(usual())[1]
    assert "litert/t1 one thread" in shown(usual())[1]
    assert "names mean" not in shown(plan(bucket(1, Candidate("own", "x", "skipped", "why"))))[1]
