"""What version 1 must reach, and whether the measurements do: pure functions from results to a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from benchmarks import inprocess, wire
from benchmarks.memory import Memory
from benchmarks.process_checks import Drain, Starts

NEVER_SLOWER = 1.05  # chosen runner / plain TensorFlow
FACE_SHARE = 0.60  # of the bare server
SECOND_START_S = 3.0
MLP_GAIN, BERT_GAIN = 4.0, 1.5
# Plain TensorFlow's signature / chosen runner without any flag, by model and batch size.
WITHOUT_FLAGS = (
    ("mlp", 1, 20.0), ("mlp", 32, 12.0),
    ("tabular", 1, 6.0), ("tabular", 32, 2.3),
    ("mobilenet_v2", 1, 4.0), ("mobilenet_v2", 8, 4.0),
    ("resnet50", 1, 1.9), ("resnet50", 8, 1.35),
    ("bert_small", 1, 2.5), ("bert_small", 8, 2.4),
    ("bert_base", 1, 1.7), ("bert_base", 8, 1.6),
)  # fmt: skip
SGEMM_SHARE = 0.80
XLA = "xla/pjrt"
BUSY = 200  # a drain that met fewer requests proves nothing


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Everything a run of the benchmarks found; what it did not measure is empty."""

    inprocess: tuple[inprocess.Row, ...] = ()
    wire: wire.Wire | None = None
    starts: Starts | None = None
    drains: tuple[Drain, ...] = ()
    memory: Memory | None = None


@dataclasses.dataclass(frozen=True)
class Bar:
    """One line of the table. `passed` is None when it was not measured."""

    what: str
    at_least: str
    measured: str
    passed: bool | None


def judge(found: Measurements) -> list[Bar]:
    return [
        _gain(found, "small MLP, in process, batch 1, precompilation: plain TF / chosen", "mlp", MLP_GAIN),
        _gain(found, "BERT-small, batch 1, precompilation: plain TF / chosen", "bert_small", BERT_GAIN),
        _mobilenet(found),
        _never_slower(found.inprocess),
        _face(found.wire, "REST, small MLP, 16 connections: share of the bare ASGI app", "rest", "bare_asgi"),
        _face(found.wire, "gRPC Predict, small MLP, 8 in flight: share of the bare echo", "grpc", "echo_grpc"),
        _second_start(found.starts),
        _no_tensorflow(found.starts),
        _compiles(found.wire),
        _losses(found.drains),
        *(_without_flags(found, *bar) for bar in WITHOUT_FLAGS),
        _sgemm(found),
        _peak(found.memory),
    ]


def _gain(found: Measurements, what: str, model: str, least: float) -> Bar:
    rows = [r for r in found.inprocess if (r.model, r.flags, r.batch) == (model, "precompilation", 1)]
    if not rows:
        return Bar(what, f"{least:g}x", "not measured", None)
    return Bar(what, f"{least:g}x", f"{rows[0].speedup:.2f}x ({rows[0].chosen})", rows[0].speedup >= least)


def _without_flags(found: Measurements, model: str, batch: int, least: float) -> Bar:
    what = f"{model}, batch {batch}, no flags: plain TF / chosen"
    row = next((r for r in found.inprocess if (r.model, r.flags, r.batch) == (model, "default", batch)), None)
    if row is None:
        return Bar(what, f"{least:g}x", "not measured", None)
    return Bar(what, f"{least:g}x", f"{row.speedup:.2f}x ({row.chosen})", row.speedup >= least)


def _sgemm(found: Measurements) -> Bar:
    what = "bert_base, batch 8, no flags: share of this machine's sgemm rate"
    shares = [r.sgemm_share for r in found.inprocess if (r.model, r.flags, r.batch) == ("bert_base", "default", 8)]
    if not shares or shares[0] is None:
        return Bar(what, f"{SGEMM_SHARE:.0%}", "not measured", None)
    return Bar(what, f"{SGEMM_SHARE:.0%}", f"{shares[0]:.0%}", shares[0] >= SGEMM_SHARE)


def _peak(memory: Memory | None) -> Bar:
    what = "bert_base: peak memory of the server with a plan / plain TF"
    if memory is None:
        return Bar(what, "< 1", "not measured", None)
    measured = f"{memory.plan / memory.plain:.2f} ({memory.plan / 1e6:,.0f} of {memory.plain / 1e6:,.0f} MB)"
    return Bar(what, "< 1", measured, memory.plan < memory.plain)


def _mobilenet(found: Measurements) -> Bar:
    """xla must have been tried and lost, and the plan must say why."""
    what = "MobileNetV2, precompilation: xla loses, another is chosen, the log says why"
    rows = [r for r in found.inprocess if (r.model, r.flags) == ("mobilenet_v2", "precompilation")]
    if not rows:
        return Bar(what, "yes", "not measured", None)
    chosen = sorted({row.chosen for row in rows})
    passed = all(row.chosen != XLA and row.why and XLA in row.evidence for row in rows)
    return Bar(what, "yes", f"{', '.join(chosen)}; xla {rows[0].evidence.get(XLA, 'was not tried')}"[:90], passed)


def _never_slower(rows: Sequence[inprocess.Row]) -> Bar:
    what = f"any model, any flags: chosen / plain TF, time (worst of {len(rows)})"
    if not rows:
        return Bar(what, f"<= {NEVER_SLOWER}", "not measured", None)
    worst = max(rows, key=lambda row: row.chosen_us / row.tf_signature_us)
    ratio = worst.chosen_us / worst.tf_signature_us
    where = f"{worst.model}, {worst.flags}, batch {worst.batch}"
    return Bar(what, f"<= {NEVER_SLOWER}", f"{ratio:.2f} ({where})", ratio <= NEVER_SLOWER)


def _face(found: wire.Wire | None, what: str, face: str, bare: str) -> Bar:
    label = next(load.label for load in wire.BAR_LOADS if load.face == face)
    rows = {r.variant: r for r in found.rows if (r.model, r.load) == ("mlp", label)} if found else {}
    if "tfopt" not in rows or bare not in rows:
        return Bar(what, f"{FACE_SHARE:.0%}", "not measured", None)
    ours, ceiling = rows["tfopt"], rows[bare]
    share = ours.rate.median / ceiling.rate.median
    bad = ours.failed + ours.lost + ours.behind
    errors = f", {bad} without a good answer" if bad else ""
    measured = f"{share:.0%} ({ours.rate.median:,.0f} of {ceiling.rate.median:,.0f}/s{errors})"
    return Bar(what, f"{FACE_SHARE:.0%}", measured, share >= FACE_SHARE and not errors)


def _second_start(starts: Starts | None) -> Bar:
    what = "second start with a cached plan to the first 200, plan without TensorFlow"
    if starts is None:
        return Bar(what, f"< {SECOND_START_S:g} s", "not measured", None)
    free = bool(starts.engines) and "tensorflow" not in starts.engines
    measured = f"{starts.second_s.median:.2f} s (first: {starts.first_s:.1f} s; plan: {', '.join(starts.engines)})"
    return Bar(what, f"< {SECOND_START_S:g} s", measured, free and starts.second_s.median < SECOND_START_S)


def _no_tensorflow(starts: Starts | None) -> Bar:
    what = "second start: TensorFlow in the server's processes"
    if starts is None:
        return Bar(what, "no", "not measured", None)
    return Bar(what, "no", starts.tensorflow[0] if starts.tensorflow else "no", not starts.tensorflow)


def _compiles(found: wire.Wire | None) -> Bar:
    what = "requests that pay a compile after readiness"
    if found is None or not found.compiles_after_ready:
        return Bar(what, "none", "not measured", None)
    total = sum(found.compiles_after_ready.values())
    return Bar(what, "none", f"{total:.0f} ({', '.join(found.compiles_after_ready)})", total == 0)


def _losses(drains: Sequence[Drain]) -> Bar:
    what = "requests lost over SIGTERM under load"
    if not drains:
        return Bar(what, "none", "not measured", None)
    text = "; ".join(_drained(d) for d in drains)
    under_load = all(d.sent >= BUSY for d in drains)
    return Bar(what, "none", text, under_load and all(d.lost == d.failed == d.exit_code == 0 for d in drains))


def _drained(d: Drain) -> str:
    return f"{d.face}: {d.lost} lost, {d.failed} failed of {d.sent:,}, exit {d.exit_code} after {d.stop_s:.1f} s"


HEADER = ("bar", "at least", "measured", "result")


def table_rows(bars: Sequence[Bar]) -> list[tuple[str, ...]]:
    words = {True: "pass", False: "FAIL", None: "-"}
    return [(bar.what, bar.at_least, bar.measured, words[bar.passed]) for bar in bars]
