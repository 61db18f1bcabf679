"""The table of bars: what passes, what fails, and what was not measured says so."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import bars, inprocess, stats, wire
from benchmarks.memory import Memory, high_water
from benchmarks.process_checks import Drain, Starts


def row(model: str = "mlp", flags: str = "precompilation", batch: int = 1, **changes) -> inprocess.Row:
    measured = inprocess.Row(
        model=model,
        flags=flags,
        batch=batch,
        tf_signature_us=260.0,
        tf_session_us=62.0,
        chosen="xla/pjrt",
        chosen_us=20.0,
        servable_us=24.0,
        evidence={"xla/pjrt": "chosen, 20.0 us"},
        why="xla is 13x faster",
    )
    return dataclasses.replace(measured, **changes)


def over(load: wire.Load, variant: str, rate: float, **changes) -> wire.Row:
    measured = wire.Row(
        model="mlp",
        load=load.label,
        variant=variant,
        rate=stats.spread([rate]),
        p50_us=900.0,
        p99_us=1500.0,
        p999_us=2000.0,
        failed=0,
        lost=0,
        behind=0,
        client_share=0.2,
        lag_us=0.0,
        first_error="",
    )
    return dataclasses.replace(measured, **changes)


REST, GRPC = wire.BAR_LOADS
MOBILENET = row(
    "mobilenet_v2",
    tf_signature_us=16_700.0,
    chosen="litert/t2",
    chosen_us=3_300.0,
    evidence={"tensorflow/function": "slower, 16700.0 us", "xla/pjrt": "slower, 113000.0 us"},
    why="litert/t2 3.3 ms; xla took 6.8 times as long as plain TensorFlow",
)
GOOD = bars.Measurements(
    inprocess=(
        *(row(), row("bert_small", tf_signature_us=15_800.0, chosen_us=9_000.0), MOBILENET),
        *(
            row(model, "default", batch, tf_signature_us=1000.0 * least, chosen_us=990.0, sgemm_share=0.81)
            for model, batch, least in bars.WITHOUT_FLAGS
        ),
    ),
    wire=wire.Wire(
        (
            over(REST, "tfopt", 9000.0),
            over(REST, "bare_asgi", 12_000.0),
            over(GRPC, "tfopt", 3000.0),
            over(GRPC, "echo_grpc", 4500.0),
        ),
        {"mlp": 0.0},
        {"mlp, tfopt": 1.1},
    ),
    starts=Starts(20.0, stats.spread([1.5, 1.4, 1.6]), (), ("litert", "xla")),
    drains=(Drain("rest", 900, 900, 0, 0, 16, 0, 0.4, ""), Drain("grpc", 500, 500, 0, 0, 8, 0, 0.3, "")),
    memory=Memory("bert_base", 900_000_000, 1_200_000_000, ("openvino",)),
)


def test_a_good_run_passes_every_bar():
    assert [bar.passed for bar in bars.judge(GOOD)] == [True] * 24


def test_nothing_measured_is_neither_passed_nor_failed():
    found = bars.judge(bars.Measurements())
    assert {(bar.measured, bar.passed) for bar in found} == {("not measured", None)}
    assert [cells[-1] for cells in bars.table_rows(found)] == ["-"] * 24


def broken(**changes) -> bars.Measurements:
    return dataclasses.replace(GOOD, **changes)


@pytest.mark.parametrize(
    ("found", "which"),
    [
        (broken(inprocess=(row(chosen_us=70.0),)), [0]),
        (broken(inprocess=(row("bert_small", tf_signature_us=13.0, chosen_us=9.0),)), [1]),
        # The right choice without a reason, or without xla having been tried, is luck.
        (broken(inprocess=(dataclasses.replace(MOBILENET, why=""),)), [2]),
        (broken(inprocess=(dataclasses.replace(MOBILENET, evidence={}),)), [2]),
        (broken(inprocess=(dataclasses.replace(MOBILENET, chosen="xla/pjrt"),)), [2]),
        (broken(inprocess=(row("resnet50", "compression", 8, tf_signature_us=100.0, chosen_us=106.0),)), [3]),
        (broken(wire=wire.Wire((over(REST, "tfopt", 7000.0), *GOOD.wire.rows[1:]), {"mlp": 0.0}, {})), [4]),
        (broken(wire=wire.Wire((over(REST, "tfopt", 9e3, failed=1), *GOOD.wire.rows[1:]), {"mlp": 0.0}, {})), [4]),
        (broken(starts=Starts(20.0, stats.spread([3.5]), (), ("xla",))), [6]),
        # A plan that needs TensorFlow proves nothing about a start without it.
        (broken(starts=Starts(20.0, stats.spread([1.5]), (), ("tensorflow", "xla"))), [6]),
        (broken(starts=Starts(20.0, stats.spread([1.5]), ("/x/site-packages/tensorflow/a.so",), ("xla",))), [7]),
        (broken(wire=wire.Wire(GOOD.wire.rows, {"mlp": 0.0, "tabular": 2.0}, {})), [8]),
        (broken(drains=(Drain("rest", 900, 899, 0, 1, 16, 0, 0.4, "reset"),)), [9]),
        (broken(drains=(Drain("rest", 900, 900, 0, 0, 16, 1, 0.4, ""),)), [9]),
        (broken(drains=(Drain("rest", 16, 16, 0, 0, 16, 0, 0.4, ""),)), [9]),
    ],
)
def test_each_shortfall_fails_its_own_bar(found, which):
    assert [number for number, bar in enumerate(bars.judge(found)) if bar.passed is False] == which


def test_the_share_of_the_bare_server_stands_beside_the_rate():
    rows = GOOD.wire.rows
    assert [wire.share(rows, r) for r in rows] == ["75%", None, "67%", None]


def test_a_gain_without_flags_that_is_missed_is_named():
    slow = [dataclasses.replace(r, chosen_us=1010.0) if r.flags == "default" else r for r in GOOD.inprocess]
    found = bars.judge(broken(inprocess=tuple(slow)))
    missed = [bar.what for bar in found if bar.passed is False]
    assert missed == [f"{model}, batch {batch}, no flags: plain TF / chosen" for model, batch, _ in bars.WITHOUT_FLAGS]


def test_a_share_of_the_machines_own_rate():
    half = [dataclasses.replace(r, sgemm_share=0.5) for r in GOOD.inprocess]
    (bar,) = (b for b in bars.judge(broken(inprocess=tuple(half))) if b.passed is False)
    assert (bar.at_least, bar.measured) == ("80%", "50%")
    assert inprocess.share(2.0 * inprocess.SGEMM**3, 100.0, 80.0) == pytest.approx(0.8)


def test_peak_memory():
    more = dataclasses.replace(GOOD.memory, plan=1_300_000_000)
    (bar,) = (b for b in bars.judge(broken(memory=more)) if b.passed is False)
    assert bar.measured == "1.08 (1,300 of 1,200 MB)"
    assert high_water("VmPeak:\t 9 kB\nVmHWM:\t  2 kB\n") == 2048
    assert high_water("Name: gone\n") == 0
