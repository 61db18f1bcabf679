"""`tfopt report PLAN` for people: short, clear, and nothing told twice."""

from __future__ import annotations

import dataclasses

import pytest
from madeplans import EVIL, bucket, candidate, plan, usual
from tfopt_optimizer.plan import Candidate, Crossing, HostOperation, Measured, Plan, Segment
from tfopt_server.commands.plan_text import WIDTH, render

PLAIN = candidate("tensorflow", "function", "slower", 800.0)
FAST = candidate("litert", "t1", "chosen", 100.0, 1e-7)
WHOLE = """\
plan of 2026-11-22T10:00:00+00:00, cpu, 3.2 s, checked on warmup records
TensorFlow loads it as: function, imported when a request is outside the plan; weights 123 kB

serving_default (the same for serve)
  rows  chosen     median  plain TF  faster  max error  memory
  1     xla/pjrt   100 us    800 us   8.00x      3e-07  4.1 kB
  8     litert/t1  150 us    800 us   5.33x      equal  4.1 kB

serving_default: rows are independent

serving_default, 1 row: every candidate
  candidate            status    median     p90  vs plain  max err  mean err  compile  memory
  xla/pjrt             chosen    100 us  120 us     8.00x    3e-07     3e-08   0.50 s  4.1 kB
  tensorflow/function  plain TF  800 us  960 us     1.00x        -         -   0.50 s  4.1 kB
  litert/t1            rejected       -       -         -        -         -   0.50 s  4.1 kB
  rejected litert/t1: max error 0.02 is above 0.0001

serving_default, 8 rows: every candidate
  candidate            status    median     p90  vs plain  max err  mean err  compile  memory
  litert/t1            chosen    150 us  180 us     5.33x    equal     equal   0.50 s  4.1 kB
  xla/pjrt             slower    200 us  240 us     4.00x    3e-07     3e-08   0.50 s  4.1 kB
  tensorflow/function  plain TF  800 us  960 us     1.00x        -         -   0.50 s  4.1 kB
"""


def with_twin(made: Plan, key: str) -> Plan:
    (eldest,) = made.signatures
    twin = dataclasses.replace(eldest, signature=dataclasses.replace(eldest.signature, key=key))
    return dataclasses.replace(made, signatures=(twin, eldest))


def test_a_signature_that_shares_a_plan_is_named_once_and_decisions_stand_in_the_tables() -> None:
    decided = usual().signatures[0].buckets[0].why
    made = dataclasses.replace(usual(), log=("serving_default: rows are independent", decided))
    assert render(with_twin(made, "serve")) == WHOLE


def skipped(engine: str, variant: str, reason: str, status: str = "skipped") -> Candidate:
    return Candidate(engine, variant, status, reason)


def test_candidates_that_lost_alike_are_told_together_and_others_apart() -> None:
    lost = (
        skipped("onnxruntime", "t1", "not converted: litert/t1 is 13.1x faster than plain TF already"),
        skipped("onnxruntime", "t2", "not converted: openvino is 14.6x faster than plain TF already"),
        skipped("litert", "s2", "for batches of 4 rows or more"),
        skipped("openvino", "f32-s2", "for batches of 3 rows or more"),
        skipped("xla", "pjrt", "for batches of 3 rows or more", "rejected"),
    )
    assert render(plan(bucket(1, PLAIN, FAST, *lost))).splitlines()[-5:] == [
        "  tensorflow/function  plain TF  800 us  960 us     1.00x        -         -   0.50 s  4.1 kB",
        "  rejected xla/pjrt: for batches of 3 rows or more",
        "  skipped onnxruntime/t1, onnxruntime/t2: not converted: litert/t1 is 13.1x faster than plain TF already",
        "  skipped litert/s2: for batches of 4 rows or more",
        "  skipped openvino/f32-s2: for batches of 3 rows or more",
    ]


def test_who_was_faster_and_lost_all_the_same_is_told_why() -> None:
    smaller = "litert/t1 is as small or smaller, or needs no second loader"
    faster = candidate("openvino", "f32", "slower", 60.0, 1e-7, reason=smaller)
    slower = candidate("openvino", "f32-s2", "slower", 200.0, 1e-7, reason=smaller)
    lines = render(plan(bucket(1, PLAIN, FAST, faster, slower))).splitlines()
    assert [line for line in lines if "as small" in line] == [f"  not chosen openvino/f32: {smaller}"]


@pytest.mark.parametrize("count", [3, 40])
def test_lines_fit_a_terminal(count: int) -> None:
    names = tuple(Crossing(f"a_feature_with_a_long_name_{i}", "float", (None,), ("t",)) for i in range(count))
    kinds = {f"Operation{i}": 2 for i in range(count)}
    segments = (
        Segment("host", "python", {"LookupTableFindV2": count}, (HostOperation("a", "LookupTableFindV2", "why " * 40),),
                names),
        Segment("device", "", kinds, takes=names),
    )  # fmt: skip
    wide = Candidate(
        "host+openvino", "f32-s2p1", "chosen", "", Measured(1283.2, 1555.1, 9, 133_000.0, 2), compile_s=12.31
    )
    lost = [skipped(f"engine{i}", "f32", "for a reason that takes many words to tell") for i in range(count)]
    made = plan(bucket(1, PLAIN, wide, *lost), log=("word " * 60,))
    signature = dataclasses.replace(made.signatures[0], segments=segments)
    text = render(dataclasses.replace(made, signatures=(signature,)))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert ("and 28 more tensors" in text) is (count == 40)


def test_the_cut_says_why_each_kind_of_operation_stays_on_the_host() -> None:
    refused = "XLA refuses it: no kernel for the host's strings"
    named = (
        HostOperation("a", "LookupTableFindV2", "reads a table"),
        HostOperation("b", "LookupTableFindV2", "reads a table"),
        HostOperation("c", "LookupTableFindV2", refused),
        HostOperation("d", "Identity", "reads a table"),
    )
    taken = (Crossing("ids", "int32", (None, 2), ("t", "u")),)
    segments = (
        Segment("host", "python", {"LookupTableFindV2": 3, "Cast": 1}, named),
        Segment("device", "", {"MatMul": 1, "Add": 2}, takes=taken),
        Segment("host", "tensorflow", {}),
    )
    made = plan(bucket(1, PLAIN, FAST))
    signature = dataclasses.replace(made.signatures[0], segments=segments)
    assert render(dataclasses.replace(made, signatures=(signature,))).splitlines()[-7:] == [
        "serving_default is cut, for host+ engines, into",
        "  host, in python: 4 operations",
        "    LookupTableFindV2 x2: reads a table",
        f"    LookupTableFindV2 x1: {refused}",
        "    Cast x1",
        "  device: Add x2, MatMul x1; takes ids",
        "  host, in tensorflow: passes on",
    ]


ODD = {
    "no bucket": plan(),
    "no candidate": plan(bucket(1)),
    "nothing measured": plan(bucket(1, skipped("xla", "", "no time left"))),
    "exact shapes": plan(bucket(None, PLAIN, shape=()), bucket(None, PLAIN, shape=(2, 3))),
    "no numbers": plan(bucket(1, candidate("tensorflow", "function", "chosen", float("nan"), float("inf")))),
    "no time": plan(bucket(1, candidate("xla", "", "chosen", 0.0, 0.0), PLAIN)),
    "names that steer": plan(bucket(1, PLAIN, Candidate(EVIL, EVIL, EVIL, EVIL)), key=EVIL, log=(EVIL,)),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_what_a_plan_lacks_or_holds_is_no_trouble(odd: Plan) -> None:
    text = render(odd)
    assert text.startswith("plan of ")
    assert all(line.isprintable() for line in text.splitlines())
