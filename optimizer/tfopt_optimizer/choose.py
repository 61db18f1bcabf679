"""Who wins: pure rules over what was measured. No engine, no clock.

The chosen runner is never slower than plain TensorFlow, and where two are within TIE the simpler one runs: TensorFlow
before the engines in the order of their table, the plain call before a variant, one thread before several, exact
answers before close ones.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from tfopt_optimizer import wording
from tfopt_optimizer.flags import THROUGHPUT
from tfopt_optimizer.likely import HOST, by_rows
from tfopt_optimizer.plan import Agreement, BucketPlan, Candidate, Measured

TIE = 0.05
# What a shorter length may lose to run as the whole does: threads of two engines wait for work on the same cores, and a
# call that follows the other engine's took 0.3 ms longer (BERT-small, 0.8 to 1.8 ms).
ALIKE = 0.10
TENSORFLOW_BYTES = 400 << 20  # what importing it takes, before a model
FREE = 1.2  # what a bucket may lose so that the server need not load TensorFlow at all
MERGE_GAIN = 0.8  # merging pays when a row in the best larger bucket costs less than this share of a row alone
_SIMPLEST_FIRST = ("tensorflow", "litert", "openvino", "onnxruntime", "xla")
# Numbers of threads and streams aside, which depend on the machine.
_VARIANTS = {
    "tensorflow": ("function", "session", "inline"),
    "litert": ("t1", "t", "s"),
    "openvino": (
        "f32",
        "f32-s",
        "f32-sp",
        "f32-packed-s",  # cores that wait for each other lose more where the machine is busy
        "f32-packed",
        "f32-blocked",
        "f32-blocked-s",
        "f32-blocked-funnel-s",
        "f32-amx",
        "f32-winograd",
        "f32-winograd-sp",
    ),
    "onnxruntime": ("t1", "t"),
    "xla": ("jit",),
}
# ... then the others
_SEVERAL = ("tensorflow", "litert", "onnxruntime")  # engines whose variants always show
_PLAIN = {"openvino": ("f32",), "xla": ("pjrt", "jit")}  # variants that go without saying
# The loader of the model that a variant needs; a variant that is not here needs none.
_LOADER = {
    ("tensorflow", "function"): "function",
    ("tensorflow", "session"): "session",
    ("tensorflow", "inline"): "session",
    ("xla", "jit"): "function",
}
LOADERS = ("function", "session")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One candidate as it came out of the contest. `reason` "" means: right, and measured.

    `score`: the microseconds that decide, where they are not the median of a call (`scored`).
    """

    engine: str
    variant: str
    reason: str
    skipped: bool = False
    measured: Measured | None = None
    agreement: Agreement | None = None
    compile_s: float | None = None
    memory_bytes: int | None = None
    artifact: str = ""
    score: float | None = None
    artifact_bytes: int = 0
    basis: str = "as fast or faster"  # what `score` is about, in words
    precision: str = ""
    tensorflow: bool = False  # its runner needs TensorFlow, whatever the engine's name says
    any_rows: bool = False  # its runner takes fewer rows than the bucket's as they are

    @property
    def label(self) -> str:
        return label(self.engine, self.variant)

    @property
    def median_us(self) -> float:
        return self.measured.median_us if self.measured else math.inf

    @property
    def score_us(self) -> float:
        return self.median_us if self.score is None else self.score

    @property
    def eligible(self) -> bool:
        return not self.reason and self.measured is not None


def label(engine: str, variant: str) -> str:
    """The engine, with its variant where several take part in a run: "tensorflow/session", "litert/t2", "xla"."""
    whole = engine.removeprefix(HOST)
    several = whole in _SEVERAL or variant not in _PLAIN.get(whole, (variant,))
    return f"{engine}/{variant}" if several else engine


def scored(trials: Sequence[Trial], optimize_for: str) -> list[Trial]:
    """The trials, the reference's first, with what decides between them.

    For throughput that is the time a call takes of a machine with all cores busy. Whoever makes a lone caller wait
    longer than plain TensorFlow does is out all the same; who was too slow to be measured so keeps its median.
    """
    if optimize_for != THROUGHPUT:
        return list(trials)
    bar = trials[0].median_us * (1 + TIE) if trials else 0.0
    found = []
    for trial in trials:
        rate = trial.measured.rate if trial.measured else 0.0
        score = 1e6 / rate if rate else trial.median_us
        found.append(dataclasses.replace(trial, score=score if trial.median_us <= bar else math.inf))
    return found


def by_memory(buckets: Sequence[Sequence[Trial]], weights_bytes: int) -> list[tuple[Trial, ...]]:
    """The trials of a signature's buckets, the reference's first in each, scored by the memory of the whole signature.

    A runner needs its files, once however many buckets share them, and what its buckets allocate. So one runner for
    all buckets is looked for; where none is right and not slower than plain TensorFlow in all of them, each bucket
    is looked at alone. Plain TensorFlow needs its own libraries and the weights.
    """
    fit = [[t for t in trials if _as_fast(t, trials[0])] for trials in buckets]
    named = [{(t.engine, t.variant): t for t in trials} for trials in fit]
    everywhere = set[tuple[str, str]]().union(*named).intersection(*named)
    totals = {name: _memory([trials[name] for trials in named]) for name in everywhere}

    def score(trial: Trial, able: Sequence[Trial]) -> float:
        if not _is_free(trial):
            return float(TENSORFLOW_BYTES + weights_bytes)
        if trial not in able:
            return math.inf
        return totals.get((trial.engine, trial.variant), math.inf) if totals else _memory([trial])

    return [
        tuple(dataclasses.replace(t, score=score(t, able), basis="as small or smaller") for t in trials)
        for trials, able in zip(buckets, fit, strict=True)
    ]


def memory_line(buckets: Sequence[Sequence[Trial]]) -> str:
    """What the log says of the smallest runner of the first bucket, after by_memory."""
    able = [t for t in buckets[0] if t.eligible and t.score_us < math.inf] if buckets else []
    if not able:
        return "nothing was measured"
    sizes = {t.label: t.score_us for t in able}
    best = min(sizes, key=lambda name: sizes[name])
    others = ", ".join(f"{name} {wording.size(size)}" for name, size in sizes.items() if name != best)
    return f"{best} needs {wording.size(sizes[best])} for files and runners" + (f" ({others})" if others else "")


def _as_fast(trial: Trial, reference: Trial) -> bool:
    """Right, known in size, without TensorFlow, and not slower than it."""
    known = trial.eligible and trial.memory_bytes is not None and _is_free(trial)
    return known and trial.median_us <= reference.median_us * (1 + TIE)


def _memory(trials: Sequence[Trial]) -> float:
    files = {t.artifact: t.artifact_bytes for t in trials}
    return float(sum(files.values()) + sum(t.memory_bytes or 0 for t in trials))


def runners(buckets: Sequence[BucketPlan]) -> int:
    """How many calls are best under way at a time: as many as any chosen runner gains from; 0 when nobody knows."""
    chosen = (c.measured for b in buckets for c in b.candidates if c.status == "chosen" and c.measured)
    return max((measured.callers for measured in chosen), default=0)


def loader(buckets: Sequence[Sequence[Trial]], reference: tuple[str, str], loaders: Sequence[str]) -> str:
    """The one loader that serves the model: two would keep two copies of the weights.

    `buckets` holds the trials of every signature and bucket. The loader with the lower geometric mean of best times
    wins, the reference's own within TIE. A loader that would leave any bucket slower than plain TensorFlow by more
    than TIE, or without a right answer, is out.
    """
    home = _LOADER[reference]
    best, best_score = home, _score(buckets, reference, home)
    for other in loaders:
        score = _score(buckets, reference, other)
        if other != home and score < best_score * (1 - TIE):
            best, best_score = other, score
    return best


def _score(buckets: Sequence[Sequence[Trial]], reference: tuple[str, str], name: str) -> float:
    ratios = []
    for trials in buckets:
        base = next((t for t in trials if (t.engine, t.variant) == reference), None)
        if base is None or not base.eligible:
            continue
        if not any(t.eligible and t.engine == "tensorflow" and _LOADER[t.engine, t.variant] == name for t in trials):
            return math.inf  # requests outside the buckets would run on a loader that was not found right
        found = winner(trials, name)
        ratio = found.score_us / base.score_us if found else math.inf
        if ratio > 1 + TIE:
            return math.inf
        ratios.append(math.log(ratio))
    return math.exp(sum(ratios) / len(ratios)) if ratios else 1.0


def without_tensorflow(buckets: Sequence[Sequence[Trial]]) -> str:
    """Why the whole model runs without TensorFlow, "" when it does not.

    One bucket on TensorFlow costs the server its import (3 s, 400 MB) and a second copy of the weights. So where an
    engine without it is within FREE of the fastest in every bucket, and never slower than plain TensorFlow, all use it.
    """
    worst = 1.0
    for trials in buckets:
        free = min((t.score_us for t in trials if t.eligible and _is_free(t)), default=math.inf)
        best = min((t.score_us for t in trials if t.eligible), default=0.0)
        if free > best * FREE or free > trials[0].score_us:
            return ""
        worst = max(worst, free / best)
    if not buckets or worst <= 1.0:
        return ""
    return (
        f"no bucket needs TensorFlow: the others are within {worst - 1:.0%} of it, and its import and weights are saved"
    )


def _is_free(trial: Trial) -> bool:
    return (trial.engine, trial.variant) not in _LOADER and not trial.tensorflow


def winner(
    trials: Sequence[Trial], loader_name: str, without_tensorflow: bool = False, like: Trial | None = None
) -> Trial | None:
    """The fastest right candidate that runs with this loader, or a simpler one within TIE of it; or the one that is
    `like` another within ALIKE."""
    possible = [t for t in trials if t.eligible and _LOADER.get((t.engine, t.variant), loader_name) == loader_name]
    if without_tensorflow:
        possible = [t for t in possible if _is_free(t)]
    if not possible:
        return None
    best = min(t.score_us for t in possible)
    if like is not None:
        same = [t for t in possible if (t.engine, t.variant) == (like.engine, like.variant)]
        if same and same[0].score_us <= best * (1 + ALIKE):
            return same[0]
    bar = best * (1 + TIE)
    return min((t for t in possible if t.score_us <= bar), key=_complexity)


def side_by_side(trials: Sequence[Trial]) -> Trial | None:
    """Who runs cut rows one by one on several streams, where those of another wait for each other."""
    return next((t for t in trials if t.any_rows and t.eligible and by_rows(t.engine, t.variant)), None)


def fastest(trials: Sequence[Trial]) -> tuple[str, str] | None:
    """(engine, variant) of the fastest right candidate, whatever it needs."""
    best = min((t for t in trials if t.eligible), key=lambda t: t.score_us, default=None)
    return (best.engine, best.variant) if best else None


def _complexity(trial: Trial) -> tuple[bool, int, int, str]:
    """Exact answers first, then whole signatures before split ones. No two trials are equal: the order in which they
    were tried must not decide."""
    engine = trial.engine.removeprefix(HOST)
    place = _place(_SIMPLEST_FIRST, engine) + len(_SIMPLEST_FIRST) * trial.engine.startswith(HOST)
    kind = trial.variant if trial.variant == "t1" else re.sub(r"(?<=[tsp])\d+", "", trial.variant)
    return bool(trial.precision), place, _place(_VARIANTS.get(engine, ()), kind), trial.variant


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def candidates(trials: Sequence[Trial], chosen: Trial | None) -> tuple[Candidate, ...]:
    """The trials as the plan keeps them, each with its status and reason."""
    return tuple(_candidate(t, chosen) for t in trials)


def _candidate(trial: Trial, chosen: Trial | None) -> Candidate:
    status, reason = "rejected", trial.reason
    if trial.skipped:
        status = "skipped"
    elif trial is chosen:
        status = "chosen"
    elif trial.eligible:
        status = "slower"
        reason = f"{chosen.label} is {trial.basis}, or needs no second loader" if chosen else ""
    return Candidate(
        trial.engine,
        trial.variant,
        status,
        reason,
        trial.measured,
        trial.agreement,
        trial.compile_s,
        trial.memory_bytes,
        trial.precision,
        trial.artifact_bytes or None,
    )


def merge(costs: Sequence[tuple[int, float]]) -> tuple[bool, str]:
    """Does joining requests pay? `costs`: (rows, microseconds of the chosen runner) per bucket, in rising order."""
    if not costs:
        return False, "nothing was measured"
    if len(costs) == 1:
        rows, us = costs[0]
        if rows > 1:
            return True, f"the only bucket has {rows} rows: requests share it"
        return False, "the only bucket has one row"
    (least, alone_us), larger = costs[0], costs[1:]
    rows, us = min(larger, key=lambda c: c[1] / c[0])
    alone, joined = alone_us / least, us / rows
    text = f"a row costs {microseconds(joined)} in a batch of {rows} and {microseconds(alone)} in a batch of {least}"
    return joined < MERGE_GAIN * alone, text


def between(known: Sequence[tuple[int, float]], rows: int) -> float:
    """Microseconds that `rows` take, on the line between the measured (rows, us) around them; 0.0 without any."""
    below = max((k for k in known if k[0] <= rows), default=min(known, default=(0, 0.0)))
    above = min((k for k in known if k[0] >= rows), default=below)
    if above[0] <= below[0]:
        return below[1]
    return below[1] + (above[1] - below[1]) * (rows - below[0]) / (above[0] - below[0])


def microseconds(value: float) -> str:
    """A time as one reads it: 7.4 us, 402 us, 16.7 ms, 1.24 s."""
    for unit, size in (("us", 1.0), ("ms", 1e3), ("s", 1e6)):
        shown = value / size
        if shown < 999.5 or unit == "s":
            return f"{shown:.3g} {unit}"
    raise AssertionError(value)
