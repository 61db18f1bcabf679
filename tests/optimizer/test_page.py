"""The report as a page: well-formed, self-contained, honest about what a plan lacks, and safe with any name."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path

import pytest
from htmlpages import read
from madeplans import EVIL, bucket, candidate, plan, usual
from tfopt_optimizer.page import axes, drawing, facts
from tfopt_optimizer.page.markup import Markup, join, name, tag
from tfopt_optimizer.page.page import Version, render, render_conversion
from tfopt_optimizer.plan import (
    Agreement,
    Candidate,
    Crossing,
    Fingerprint,
    HostOperation,
    InnerBucket,
    InnerPlan,
    Measured,
    Plan,
    Segment,
    SignatureInfo,
    TensorInfo,
)  # fmt: skip
from tfopt_optimizer.tpu.ahead import Compiled
from tfopt_optimizer.tpu.automatic import Parted
from tfopt_optimizer.tpu.cost import Costs, FunctionCost
from tfopt_optimizer.tpu.io_shapes import Weighed
from tfopt_optimizer.tpu.link import Moved, Transfer
from tfopt_optimizer.tpu.quantize import Quantized
from tfopt_optimizer.tpu.report import BatchedFunction, Bfloat16Function, Bfloat16Variables, PlacedFunction, Report
from tfopt_optimizer.tpu.trial import Tried


def versions(*plans: Plan | None) -> list[Version]:
    return [Version("m", i + 1, "made in 3.2 s", p) for i, p in enumerate(plans)]


def test_the_page_says_who_won_by_how_much_and_who_lost_and_why() -> None:
    page = read(render(versions(usual())))
    words = re.sub(r"\s+", " ", page.text)
    assert "XLA and LiteRT answer serving_default 5.3× to 8.0× faster than plain TensorFlow, within 3·10⁻⁷ of" in words
    assert "8.0× 1 row xla/pjrt 100 µs for 800 µs max error 3·10⁻⁷ adds 4.1 kB of memory" in words
    assert "5.3× 8 rows litert/t1 150 µs for 800 µs max error equal adds 4.1 kB of memory" in words
    assert "the model's warmup records, up to 64 rows" in words
    assert "rejected : max error 0.02 is above 0.0001" in words
    assert "a row costs 2 µs" in words
    assert "22 November 2026, 10:00 UTC, in 3.2 s" in words
    assert page.tags.count("svg") == 2
    assert page.tags.count("polyline") == 3  # plain TF, xla, litert
    assert ("circle", "class", "won") in page.attributes


def test_any_name_is_text_and_nothing_else() -> None:
    made = usual()
    signature = made.signatures[0]
    evil_tensor = TensorInfo(EVIL, EVIL, (None,), EVIL)
    info = SignatureInfo(EVIL, EVIL, (evil_tensor,) * 20, (evil_tensor,))
    evil_candidate = Candidate(
        EVIL, EVIL, EVIL, EVIL, Measured(3.0, 4.0, 1), Agreement(1e-7, 1e-8, 1, 0.5), precision=EVIL
    )
    buckets = tuple(
        dataclasses.replace(b, engine=EVIL, variant=EVIL, why=EVIL, candidates=(*b.candidates, evil_candidate))
        for b in signature.buckets
    )
    signature = dataclasses.replace(signature, signature=info, row_reason=EVIL, merge_reason=EVIL, buckets=buckets)
    made = dataclasses.replace(
        made, device=EVIL, loader=EVIL, records=EVIL, log=(EVIL,), created=EVIL, signatures=(signature,),
        fingerprint=Fingerprint(EVIL, EVIL, {EVIL: EVIL}, {"processor": EVIL, "cores": EVIL, EVIL: EVIL}),
    )  # fmt: skip
    text = render([Version(EVIL, 1, EVIL, made)])
    page = read(text)
    assert "<script>alert('1')</script>" in page.text
    assert "�" in page.text
    assert text.encode()  # no lone surrogate is left
    assert re.search("[\x00-\x08\x0e-\x1f]", text) is None


def test_versions_without_a_plan_and_no_versions_at_all() -> None:
    page = read(render([Version("m", 2, "the optimizer is switched off", None)]))
    assert "The optimizer is switched off." in page.text
    assert "No model is loaded yet." in read(render([])).text


def test_made_up_inputs_are_said_loudly() -> None:
    assert "Checked on made-up inputs." in read(render(versions(plan(records="synthesized")))).text
    assert "made-up" not in read(render(versions(usual()))).text


PLAIN = candidate("tensorflow", "function", "chosen", 800.0)
LEAN = {
    "no bucket": plan(),
    "nothing measured": plan(bucket(1, Candidate("xla", "", "skipped", "no time left"))),
    "no candidate": plan(bucket(1)),
    "one bucket": plan(bucket(4, PLAIN)),
    "exact shapes": plan(bucket(None, PLAIN, shape=()), bucket(None, PLAIN, shape=(2, 3))),
    "errors that are no numbers": plan(bucket(
        1, PLAIN, candidate("litert", "", "rejected", None, math.nan), candidate("xla", "", "rejected", None, math.inf)
    )),
    "no gate": plan(
        bucket(1, PLAIN, candidate("xla", "", "slower", 900.0, 1e-8)), fingerprint=Fingerprint("m", "", {}, {})
    ),
    "equal times": plan(*(bucket(b, PLAIN) for b in (1, 2, 4))),
    "no signature": plan(signatures=()),
}  # fmt: skip


@pytest.mark.parametrize("lean", LEAN.values(), ids=LEAN.keys())
def test_what_a_plan_lacks_is_left_out(lean: Plan) -> None:
    page = read(render(versions(lean)))
    assert [v for _, _, v in page.attributes if re.search(r"\b(nan|inf)\b", v)] == []


def test_distributions_where_the_plan_has_them() -> None:
    bins = tuple(range(20))
    precise = candidate("xla", "pjrt", "chosen", 100.0, 3e-7)
    assert precise.agreement is not None
    precise = dataclasses.replace(precise, agreement=dataclasses.replace(precise.agreement, histogram=bins))
    page = read(render(versions(plan(bucket(1, PLAIN, precise)))))
    assert [value for _, key, value in page.attributes if (key, value) == ("class", "bin")] == ["bin"] * 19


def test_lossy_candidates_are_told_apart_and_the_headline_does_not_claim_equal_answers() -> None:
    lossy = candidate("openvino", "f32", "chosen", 100.0, 3e-3, precision="int8")
    flags = '{"lossless_max_rel_error": 0.0001, "lossy_max_rel_error": 0.01}'
    made = plan(
        bucket(1, dataclasses.replace(PLAIN, status="slower"), lossy), fingerprint=Fingerprint("m", flags, {}, {})
    )
    page = read(render(versions(made)))
    assert [v for _, key, v in page.attributes if (key, v) == ("class", "gate")] == ["gate"] * 2
    assert "within 3·10⁻³ of its answers, which was allowed" in page.text
    assert "openvino/f32 int8" in page.text


def test_throughput_is_a_column_where_it_was_measured() -> None:
    fast = dataclasses.replace(
        candidate("xla", "pjrt", "chosen", 100.0), measured=Measured(100.0, 120.0, 10, 18234.5, 2)
    )
    assert "18,200 by 2" in read(render(versions(plan(bucket(1, PLAIN, fast))))).text
    assert "calls/s" not in read(render(versions(usual()))).text


def crossing(name: str, *shape: int | None, packed: int = 1) -> Crossing:
    return Crossing(name, "int32", shape, ("t",) * packed)


def test_the_drawing_shows_segments_and_what_crosses() -> None:
    lower = HostOperation(EVIL, "StringLower", "no compiled kernel")
    upper = HostOperation("upper", "StringLower", "no compiled kernel")
    many = (crossing("ids", None, 26, packed=26), *(crossing(f"t{i}", 3) for i in range(20)))
    segments = (
        Segment("host", "tensorflow", {"StringLower": 2, EVIL: 1}, (lower, upper)),
        Segment("device", "", {f"Op{i}": 1 for i in range(20)}, takes=many),
        Segment("host", "python", {}, takes=(crossing(EVIL, None),)),
    )
    split = candidate("host+xla", "pjrt", "chosen", 100.0, 1e-7)
    signature = plan(bucket(1, dataclasses.replace(PLAIN, status="slower"), split)).signatures[0]
    made = plan(signatures=(dataclasses.replace(signature, segments=segments),))
    words = re.sub(r"\s+", " ", read(render(versions(made))).text)
    assert "XLA behind a host part answers" in words
    assert "host, tensorflow StringLower × 2 no compiled kernel" in words
    assert "ids int32[?, 26] (26 packed), t0 int32[3]" in words
    assert "and 15 more" in words  # tensors
    assert "and 6 more" in words  # operations
    whole = drawing.stages(made.signatures[0], facts.bucket(bucket(1, PLAIN)))
    assert [s.kind for s in whole] == ["edge", "device", "edge"]  # a bucket that another engine runs whole


NUMBERS = [(18234.5, "18,200"), (7.891, "7.89"), (456.4, "456"), (1234567, "1,230,000"), (0.0, "0"), (99.96, "100.0")]


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_numbers_as_people_read_them(value: float, text: str) -> None:
    assert facts.number(value) == text


def test_every_inner_size_has_a_plot_of_its_own_and_is_told() -> None:
    found = usual()
    (signature,) = found.signatures
    sizes = ((64,), (16,))
    buckets = tuple(dataclasses.replace(b, inner=size) for size in sizes for b in signature.buckets)
    inner = InnerPlan((), (InnerBucket((16,), 1), InnerBucket((64,), 17)), True, "12 requests gave the same", (1,))
    changed = dataclasses.replace(signature, buckets=buckets, inner=inner, bucket_reason="1, 8 rows: each saves time")
    text = render(versions(dataclasses.replace(found, signatures=(changed,))))
    shown = re.sub(r"\s+", " ", read(text).text)
    assert shown.index("Latency, inner size 16") < shown.index("Latency, inner size 64")
    assert "Requests of different inner sizes are padded up to the next (16, 64): 12 requests gave the same" in shown
    assert "Buckets of 1, 8 rows: each saves time" in shown
    assert "of 64" in shown


def test_signatures_that_share_a_plan_are_shown_once() -> None:
    made = usual()
    twin = dataclasses.replace(
        made.signatures[0], signature=dataclasses.replace(made.signatures[0].signature, key="serve")
    )
    groups = facts.groups(dataclasses.replace(made, signatures=(twin, *made.signatures)))
    assert [g.keys for g in groups] == [("serving_default", "serve")]


def conversion(word: str) -> Report:
    """With everything that a conversion can have, under the name `word`."""
    agreement = Agreement(3e-3, 1e-4, 64, 1.0)
    return Report(
        placed=(PlacedFunction(word, word),),
        batched=(BatchedFunction(word, 2, 8, 5000, (2, 8), 10, False),),
        bfloat16=(Bfloat16Function(word, {"MatMul": 5}, {word: 2}, 3, on_host=True),),
        bfloat16_variables=Bfloat16Variables(4, 2000, 1000, ((word, word),)),
        updated_batch_ops=(word,),
        joined_handles=2,
        cautions=(word,),
        tried=(Tried(word, 3, agreement, outputs={word: agreement}), Tried("other", 0, None, word)),
        samples=word,
        seconds=1.5,
        written=word,
        cut=Parted({}, {word: word}, {word: {word: 7}}, (f"moved {word}",)),
        costs=Costs((FunctionCost(word, "TPU", 990.0), FunctionCost("host", "CPU", 10.0))),
        quantized=Quantized(word, (word,), word, 4000, 1000, (word,)),
        topology=word,
        ahead=(Compiled(word, 12.0, 4_000_000, optimal_s=2.5e-5), Compiled("unmodelled")),
        io_shapes=(Weighed(word, "back", (word,) * 6, 8, 9000, 1000, 2.5e-6, True, word),),
        link=(Transfer(word, 8, (Moved(word, "float", (8, 3), 96), Moved("long", "int32", None, None)), ()),),
    )


def test_a_conversion_for_cloud_tpu_is_a_page_and_a_section() -> None:
    words = re.sub(r"\s+", " ", read(render_conversion("m_tpu", conversion("f"))).text)
    assert "99.0% of the work is on the TPU; its answers are within 3·10⁻³ of the original's." in words
    for said in ("99.0% of the work on the TPU", "50% of the checkpoint 1 kB for 2 kB", "25% of the model, quantized"):
        assert said in words
    assert "f TPU 990 99.00%" in words  # work by function
    assert "f f 7" in words  # what stayed on the host
    assert "Moved to the host, for a compiler refused it moved f" in words
    assert "not quantized f: TensorFlow's quantizer cannot" in words
    assert "f of f 3 3·10⁻³ 1·10⁻⁴ 100.0%" in words  # errors by output
    assert "other not compared: f" in words
    assert "f on the host f × 2 5 3" in words  # bfloat16
    assert "f 8 rows, not split 2, 8 5 ms 2 10" in words
    assert "f 8 at least 96 B 0 B 2 + 0" in words  # across the link
    assert "f f f f and 2 more of f back yes 8 9 kB 1 kB 2.5 µs f" in words  # forms
    assert "f 4 MB 4 MB 0 B 0 B 0 B 25 µs 12.00 s" in words
    assert "unmodelled 0 B 0 B 0 B 0 B 0 B –" in words
    served = read(render([Version("m", 1, "as it is", None, conversion("f")), Version("n", 1, "why", usual())]))
    assert served.tags.count("h2") == 2
    assert "Conversion for Cloud TPU" in served.text
    assert "<script>alert('1')</script>" in read(render_conversion(EVIL, conversion(EVIL))).text


@pytest.mark.parametrize("worst", [1.0, math.inf, math.nan])
def test_a_conversion_whose_answers_are_others_does_not_say_how_near_they_are(worst: float) -> None:
    other = dataclasses.replace(conversion("f"), tried=(Tried("f", 3, Agreement(worst, worst, 64)),))
    assert "the TPU; not all of its answers are the original's." in read(render_conversion("m", other)).text


def test_what_a_conversion_did_not_do_is_left_out() -> None:
    bare = Report((), (), (), None, (), 0, (), (), "none", 0.0)
    page = read(render_conversion("m", bare))
    assert page.tags.count("table") == 0
    assert "Batch ops were given new options" in page.text


def test_markup_escapes_all_but_markup() -> None:
    assert tag("p", "a < b ", tag("b", '"'), None, ["c", tag("br")], 3, title='"') == (
        '<p title="&quot;">a &lt; b <b>&quot;</b>c<br />3</p>'
    )
    assert (
        tag("i", class_="x", stroke_width=2, left=None, viewBox="0 0")
        == '<i class="x" stroke-width="2" viewBox="0 0"></i>'
    )
    assert name("\x07<") == '<bdi class="name">�&lt;</bdi>'
    assert isinstance(join(["<"]), Markup)
    long = "".join(map(str, range(100)))
    assert name(long) == f'<bdi class="name" title="{long}">{long[:89]}…{long[-30:]}</bdi>'


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1, 1000, [1, 10, 100, 1000]), (3, 30, [5, 10, 20]), (90, 110, [100]), (1e-3, 1e-1, [1e-3, 1e-2, 1e-1])],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, ticks: list[float]) -> None:
    axis = axes.LogAxis(low, high, 0, 100)
    assert axis.ticks() == pytest.approx(ticks)
    assert (axis.at(low), axis.at(high), axis.at(high * 9)) == pytest.approx((0, 100, 100))


def test_an_axis_around_one_value_has_a_length() -> None:
    axis = axes.around([5.0], 0, 100)
    assert axis.at(5.0) == pytest.approx(50)
    assert axis.high / axis.low > 3


def test_labels_are_moved_apart_and_stay_inside() -> None:
    found = axes.spread([50, 51, 52, 99], 10, 0, 100)
    assert found == sorted(found)
    assert all(b - a >= 10 for a, b in itertools.pairwise(found))
    assert found[-1] <= 100
    assert axes.spread([], 10, 0, 100) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-7, "3·10⁻⁷"), (0.0, "equal"), (None, "–"), (math.nan, "nan"), (math.inf, "inf"), (0.02, "2·10⁻²"), (1.0, "1")],
)
def test_errors_as_people_read_them(value: float | None, text: str) -> None:
    assert facts.error(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(63.2, "63×"), (5.31, "5.3×"), (1.0, "1.00×"), (None, "–"), (0.5, "0.50×")]
)
def test_ratios_as_people_read_them(ratio: float | None, text: str) -> None:
    assert facts.times(ratio) == text


def test_the_style_sheet_has_no_markup_characters() -> None:
    """It stands in the page as it is: `<` would end it, `&` would break its being XML."""
    style = Path(facts.__file__).with_name("style.css").read_text()
    assert not set("<&") & set(style)
