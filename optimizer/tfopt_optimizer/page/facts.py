"""What a plan says, worked out for people: who was chosen per bucket, by how much, and how far off it may be."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
from collections.abc import Sequence

from tfopt_optimizer.choose import microseconds
from tfopt_optimizer.plan import BucketPlan, Candidate, Plan, Segment, SignaturePlan

NOTHING = "–"  # stands where nothing was measured
PLAIN = ("function", "session")  # plain TensorFlow is the first of these that was measured
_STATUS = {"chosen": 0, "slower": 1, "rejected": 2, "skipped": 3}  # the order in which candidates are listed


@dataclasses.dataclass(frozen=True)
class Bucket:
    """`label`: "8" for eight rows ("8 × 128": of this length), else the shapes. `chosen` or `plain` are None where
    nothing was measured."""

    plan: BucketPlan
    label: str
    plain: Candidate | None
    chosen: Candidate | None

    @property
    def ratio(self) -> float | None:
        """How many times faster than plain TensorFlow."""
        return ratio(self.chosen, self)


@dataclasses.dataclass(frozen=True)
class Group:
    """Signatures that share one plan: the eldest's, with the keys of all."""

    keys: tuple[str, ...]
    plan: SignaturePlan
    buckets: tuple[Bucket, ...]


def groups(plan: Plan) -> tuple[Group, ...]:
    """In the order of the plan, `serving_default`'s first."""
    found: list[tuple[list[str], SignaturePlan]] = []
    for signature in sorted(plan.signatures, key=lambda s: s.signature.key != "serving_default"):
        twin = next((keys for keys, other in found if _same(other, signature)), None)
        if twin is not None:
            twin.append(signature.signature.key)
        else:
            found.append(([signature.signature.key], signature))
    return tuple(Group(tuple(keys), s, tuple(bucket(b) for b in s.buckets)) for keys, s in found)


def _same(one: SignaturePlan, other: SignaturePlan) -> bool:
    return bool(one.buckets) and one.buckets == other.buckets and one.merge_reason == other.merge_reason


def bucket(plan: BucketPlan) -> Bucket:
    measured = [c for c in plan.candidates if c.engine == "tensorflow" and c.measured]
    plain = next((c for variant in PLAIN for c in measured if c.variant == variant), None)
    chosen = next((c for c in plan.candidates if c.status == "chosen"), None)
    return Bucket(plan, label(plan), plain, chosen)


def label(plan: BucketPlan) -> str:
    if plan.batch is not None:
        return " × ".join(map(str, (plan.batch, *plan.inner)))
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in plan.shapes.values())


@dataclasses.dataclass(frozen=True)
class Lost:
    """Candidates of a bucket that lost for one reason before there was a number to show."""

    status: str
    candidates: tuple[Candidate, ...]
    reason: str


def losers(bucket: Bucket) -> tuple[list[Candidate], list[Lost]]:
    """The bucket's candidates with numbers, the chosen one and then the fastest first; the others by reason.

    Reasons that differ in the winner's name and gain alone are one, told by the first of them.
    """
    ordered = sorted(bucket.plan.candidates, key=lambda c: (_STATUS.get(c.status, len(_STATUS)), time_us(c) or 0.0))
    names = sorted({candidate_name(c) for c in ordered} | {c.engine for c in ordered}, key=len, reverse=True)
    winner = re.compile("|".join(map(re.escape, names)) or "(?!)")
    numbered, alike = list[Candidate](), dict[tuple[str, str], list[Candidate]]()
    for c in ordered:
        if c.measured or c.agreement or c.compile_s is not None or c.memory_bytes is not None or not c.reason:
            numbered.append(c)
        else:
            alike.setdefault((c.status, re.sub(r"[\d.]+x", "#", winner.sub("@", c.reason))), []).append(c)
    return numbered, [Lost(status, tuple(found), found[0].reason) for (status, _), found in alike.items()]


def remark(candidate: Candidate, bucket: Bucket) -> str:
    """What is said of a candidate with numbers: its reason, but where it was slower than the chosen one, which the
    numbers say."""
    mine, best = time_us(candidate), time_us(bucket.chosen)
    told = candidate.status == "slower" and mine is not None and best is not None and mine >= best
    return "" if told or candidate.status == "chosen" else candidate.reason


def status(candidate: Candidate, bucket: Bucket) -> str:
    """Its status in the plan; of plain TensorFlow what it is, and of one that was not slower that it was not chosen."""
    if candidate.status != "slower":
        return candidate.status
    return "not chosen" if remark(candidate, bucket) else "plain TF" if candidate is bucket.plain else "slower"


def candidate_name(candidate: Candidate) -> str:
    """`litert/t1`, `openvino/f32`; with its precision where the variant does not say it."""
    text = candidate.engine + (f"/{candidate.variant}" if candidate.variant else "")
    return text if precision(candidate) in candidate.variant else f"{text} {precision(candidate)}"


def precision(candidate: Candidate) -> str:
    return candidate.precision


def histogram(candidate: Candidate) -> tuple[int, ...]:
    return candidate.agreement.histogram if candidate.agreement is not None else ()


def time_us(candidate: Candidate | None) -> float | None:
    return candidate.measured.median_us if candidate is not None and candidate.measured is not None else None


def ratio(candidate: Candidate | None, bucket: Bucket) -> float | None:
    """How many times faster than the bucket's plain TensorFlow; None where that is no number."""
    mine, theirs = time_us(candidate), time_us(bucket.plain)
    found = theirs / mine if mine and theirs else math.nan
    return found if math.isfinite(found) else None


def time(us: float | None) -> str:
    """`21.4 µs`; a dash where nothing was measured."""
    return microseconds(us).replace("us", "µs").replace(" ", "\N{NO-BREAK SPACE}") if us is not None else NOTHING


def times(ratio: float | None) -> str:
    """`63×`, `1.6×`."""
    if ratio is None:
        return NOTHING
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×" if ratio >= 1.05 else f"{ratio:.2f}×"


def runner(plan: BucketPlan) -> str:
    """What was chosen: `litert/t2`."""
    return f"{plan.engine}/{plan.variant}".rstrip("/")


def rows(plan: BucketPlan) -> str:
    """`1 row`, `8 rows`; the shapes where rows are not independent."""
    if plan.batch is None:
        return label(plan)
    text = f"{plan.batch} row" if plan.batch == 1 else f"{plan.batch} rows"
    return f"{text} of {' × '.join(map(str, plan.inner))}" if plan.inner else text


def by_inner(buckets: Sequence[Bucket]) -> dict[str, list[Bucket]]:
    """The buckets of each inner size by ", inner size 128", smallest first; by "" where there is one alone."""
    sizes = sorted({b.plan.inner for b in buckets}, key=math.prod)
    named = {size: f", inner size {' × '.join(map(str, size))}" if size else "" for size in sizes}
    return {name: [b for b in buckets if b.plan.inner == size] for size, name in named.items()}


def shortening(plan: SignaturePlan) -> str:
    """At which lengths rows of a fixed length are computed; "" where all are in full."""
    if plan.shortening is None:
        return ""
    size, found = plan.shortening.size, list[str]()
    if plan.shortening.lengths:
        found.append(f"at {', '.join(map(str, plan.shortening.lengths))}")
    if any(bucket.positions for bucket in plan.buckets):
        found.append("together with others, for the positions that they have")
    return f"Rows that are filled up to {size} positions are computed {', or '.join(found)}: {plan.shortening.reason}"


def inner(plan: SignaturePlan) -> str:
    """What happens to requests of different inner sizes, such as lengths; "" where there is one alone."""
    if plan.inner is None:
        return ""
    sizes = ", ".join(" × ".join(map(str, bucket.sizes)) for bucket in plan.inner.buckets)
    done = "are padded up to the next" if plan.inner.padded else "must have one of them"
    return f"Requests of different inner sizes {done} ({sizes}): {plan.inner.reason}"


def seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.2f} s" if value >= 0.01 else "< 0.01 s"


def made(created: str) -> str:
    """An ISO time as `25 November 2026, 22:16 UTC`; what is none, as it is."""
    try:
        moment = datetime.datetime.fromisoformat(created)
    except ValueError:
        return created
    zone = " UTC" if moment.utcoffset() == datetime.timedelta(0) else f" {moment:%z}"
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}".rstrip()


def sentence(text: str) -> str:
    """A line of the log as a sentence."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}." if text else ""


def prose(text: str) -> str:
    """A line of the log as it is set here: microseconds with their letter."""
    return re.sub(r"(?<=\d) us\b", " µs", text)


def error(value: float | None) -> str:
    """`3e-07` as `3·10⁻⁷`, `1.0` as `1`; 0 as `equal`."""
    if value is None:
        return NOTHING
    if value == 0:
        return "equal"
    if not 0 < value < float("inf"):
        return str(value)
    digits, exponent = f"{value:.0e}".split("e")
    if not int(exponent):
        return digits
    return f"{digits}·10{str(int(exponent)).translate(_SUPERSCRIPT)}"


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclasses.dataclass(frozen=True)
class Gate:
    """A bound on the largest relative error; `lossy`: for candidates that change precision."""

    bound: float
    lossy: bool

    @property
    def label(self) -> str:
        return "lossy" if self.lossy else "lossless"


def gates(plan: Plan) -> tuple[Gate, ...]:
    """From the flags that the plan was made with; the lossy one only where such a candidate took part."""
    given = flags(plan)
    found = [(given.get("lossless_max_rel_error"), False)]
    if any(c.precision for s in plan.signatures for b in s.buckets for c in b.candidates):
        found.append((given.get("lossy_max_rel_error"), True))
    return tuple(Gate(bound, lossy) for bound, lossy in found if isinstance(bound, (int, float)) and bound > 0)


def flags(plan: Plan) -> dict[str, object]:
    try:
        found = json.loads(plan.fingerprint.flags)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def rate(candidate: Candidate) -> tuple[float, int] | None:
    """Calls per second with all cores busy, and how many callers that took; None where it was not measured."""
    measured = candidate.measured
    return (measured.rate, measured.callers) if measured is not None and measured.rate > 0 else None


def number(value: float) -> str:
    """Three figures that count, thousands apart: 1,230,000; 456; 7.89."""
    if not math.isfinite(value):
        return str(value)
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def device_engine(engine: str) -> str:
    """The engine of the device segment: `host+xla` is xla."""
    return engine.removeprefix("host+")


def segments(signature: SignaturePlan, plan: BucketPlan) -> tuple[Segment, ...]:
    """The cut that a bucket runs in; () where one engine runs the whole signature."""
    return signature.segments if plan.engine.startswith("host+") else ()


def best(found: Sequence[Bucket]) -> Bucket | None:
    """The bucket with the largest gain."""
    gains = [b for b in found if b.ratio is not None]
    return max(gains, key=lambda b: b.ratio or 0.0) if gains else None
