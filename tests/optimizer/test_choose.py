"""Who wins, as tables."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from tfopt_optimizer import choose, report
from tfopt_optimizer import plan as plans
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.plan import Agreement, Measured

REFERENCE = ("tensorflow", "function")
RIGHT = Agreement(3e-7, 1e-8, 8, 1.0)


def trial(engine, variant, us, reason=""):
    return Trial(engine, variant, reason, measured=Measured(us, us, 100) if us else None, agreement=RIGHT)


def bucket(function, session=None, inline=None, pjrt=None, jit=None):
    named = {("tensorflow", "function"): function, ("tensorflow", "session"): session, ("tensorflow", "inline"): inline}
    named |= {("xla", "pjrt"): pjrt, ("xla", "jit"): jit}
    return [trial(*name, us) for name, us in named.items() if us]


@pytest.mark.parametrize(
    ("trials", "loader", "winner"),
    [
        (bucket(400, pjrt=71), "function", "pjrt"),
        (bucket(400, pjrt=390), "function", "function"),  # within 5 %: the simpler one
        (bucket(400, pjrt=1000), "function", "function"),
        (bucket(400, 100, 60, pjrt=71), "function", "pjrt"),
        (bucket(400, 100, 60, pjrt=71), "session", "inline"),
        (bucket(400, 100, 97), "session", "session"),
        (bucket(400, jit=200), "session", None),  # jit needs the other loader
    ],
)
def test_the_fastest_wins_and_the_simpler_one_a_tie(trials, loader, winner):
    found = choose.winner(trials, loader)
    assert (found and found.variant) == winner


def test_a_wrong_or_unmeasured_candidate_never_wins():
    wrong = trial("xla", "pjrt", 1, reason="max error 0.02 is above 0.0001")
    unmeasured = Trial("xla", "jit", "")
    assert choose.winner([*bucket(400), wrong, unmeasured], "function").variant == "function"


@pytest.mark.parametrize(
    ("buckets", "loader"),
    [
        ([bucket(400, 100)], "session"),
        ([bucket(400, 390)], "function"),  # no gain worth another loader
        ([bucket(400, 100), bucket(1000, 1100)], "function"),  # one bucket would be slower than plain TF
        ([bucket(400, 100), bucket(1000, 1100, pjrt=500)], "session"),  # ... unless xla takes it
        ([bucket(400, 100, pjrt=50)], "function"),  # xla takes it all: no reason to leave home
        ([bucket(400, 100, jit=50)], "function"),
        ([bucket(400), bucket(400, 100)], "function"),  # the session was wrong somewhere
        ([], "function"),
    ],
)
def test_one_loader_is_picked_for_the_model(buckets, loader):
    assert choose.loader(buckets, REFERENCE, choose.LOADERS) == loader


@pytest.mark.parametrize(
    ("buckets", "free"),
    [
        ([bucket(400, 100, inline=20, pjrt=22)], True),
        ([bucket(400, 100, inline=20, pjrt=22), bucket(400, 100, inline=20, pjrt=60)], False),
        ([bucket(400, 100, inline=20)], False),
        ([bucket(100, 100, inline=100, pjrt=101)], False),  # never slower than plain TF
        ([[*bucket(400, 100, inline=20), dataclasses.replace(trial("host+xla", "pjrt", 22), tensorflow=True)]], False),
        ([bucket(400, pjrt=20)], False),  # nothing to decide
        ([], False),
    ],
)
def test_a_model_runs_without_tensorflow_when_that_costs_little(buckets, free):
    assert bool(choose.without_tensorflow(buckets)) is free


@pytest.mark.parametrize(
    ("costs", "merge"),
    [
        ([(1, 260.0), (32, 1500.0)], True),
        ([(1, 9450.0), (8, 67700.0)], False),
        ([(1, 17.0), (2, 40.0), (32, 60.0)], True),
        ([(1, 10.0)], False),
        ([(32, 10.0)], True),
        ([], False),
    ],
)
def test_merging_pays_where_a_row_gets_clearly_cheaper(costs, merge):
    assert choose.merge(costs)[0] is merge


def test_times_read_as_people_write_them():
    assert [choose.microseconds(v) for v in (7.42, 402, 999.4, 999.6, 16_700, 1_240_000, 187e6)] == [
        "7.42 us", "402 us", "999 us", "1 ms", "16.7 ms", "1.24 s", "187 s",
    ]  # fmt: skip


def test_every_candidate_keeps_its_status_and_reason():
    trials = [
        *bucket(400, 100, pjrt=71),
        Trial("foo", "bar", "it died"),
        Trial("foo", "baz", "lost elsewhere", skipped=True),
    ]
    found = choose.candidates(trials, trials[2])
    assert [(c.variant, c.status) for c in found] == [
        ("function", "slower"),
        ("session", "slower"),
        ("pjrt", "chosen"),
        ("bar", "rejected"),
        ("baz", "skipped"),
    ]


def test_a_decision_is_one_readable_line():
    trials = bucket(402, pjrt=71)
    assert report.decision("serving_default x 8", trials[1], trials, trials[0]) == (
        "serving_default x 8: xla 71 us (plain TF 402 us, 5.7x, max error 3e-07) chosen"
    )
    trials = bucket(16_700, pjrt=113_000)
    assert report.decision("serving_default x 1", trials[0], trials, trials[0]) == (
        "serving_default x 1: plain TF 16.7 ms chosen; xla 113 ms loses to tensorflow 16.7 ms (6.8x slower)"
    )
    trials = [*bucket(402), Trial("xla", "pjrt", "XLA has no kernel for Foo")]
    assert report.decision("a x 1", trials[0], trials, trials[0]) == (
        "a x 1: plain TF 402 us chosen; xla rejected: XLA has no kernel for Foo"
    )


def test_a_decision_tells_like_reasons_once():
    trials = [
        *bucket(402, pjrt=71),
        Trial("litert", "t1", "mean error 0.0036 is above 0.0001"),
        Trial("openvino", "f32", "input 'city' is of type string"),
        Trial("litert", "t2", "mean error 0.003 is above 0.0001"),
        Trial("litert", "s2", "mean error 0.003 is above 0.0001", skipped=True),
    ]
    assert report.decision("a x 1", trials[1], trials, trials[0]).split("; ")[1:] == [
        "litert/t1 and 1 more rejected: mean error 0.0036 is above 0.0001",
        "openvino rejected: input 'city' is of type string",
        "litert/s2 skipped: mean error 0.003 is above 0.0001",
    ]


def test_times_come_fastest_first_and_long_lists_are_cut():
    trials = [Trial("litert", f"t{n}", "", measured=Measured(n, n, 100)) for n in range(9, 0, -1)]
    assert report.times([*trials, Trial("xla", "pjrt", "no kernel")]) == (
        "litert/t1 1 us, litert/t2 2 us, litert/t3 3 us, litert/t4 4 us, litert/t5 5 us, litert/t6 6 us and 3 more; "
        "1 did not get that far"
    )
    assert report.candidates(["a", "b"]) == "a, b"
    assert report.candidates([]) == "plain TF"


def busy(engine, variant, us, rate, callers=2):
    return Trial(engine, variant, "", measured=Measured(us, us, 100, rate, callers), agreement=RIGHT)


def test_for_throughput_the_rate_with_all_cores_busy_decides():
    plain = busy("tensorflow", "function", 1000.0, 1500.0)
    together, alone = busy("litert", "t2", 100.0, 9_000.0, 1), busy("litert", "t1", 160.0, 12_000.0)
    trials = [plain, together, alone]
    assert choose.winner(choose.scored(trials, "latency"), "function").variant == "t2"
    assert choose.winner(choose.scored(trials, "throughput"), "function").variant == "t1"


def test_for_throughput_a_lone_call_is_never_slower_than_plain_tensorflows():
    trials = [busy("tensorflow", "function", 1000.0, 1500.0), busy("litert", "t1", 1100.0, 12_000.0)]
    assert choose.winner(choose.scored(trials, "throughput"), "function").engine == "tensorflow"


def test_who_was_too_slow_to_be_measured_with_all_cores_busy_keeps_its_median():
    trials = [trial("tensorflow", "function", 1000), busy("litert", "t1", 100.0, 12_000.0)]
    assert choose.winner(choose.scored(trials, "throughput"), "function").engine == "litert"


def planned(*callers):
    measured = [Measured(1.0, 1.0, 9, 5.0, n) for n in callers]
    found = [plans.Candidate("litert", "t1", "chosen", "", m) for m in measured]
    return [plans.BucketPlan(1, {}, "litert", "t1", True, "", (c,), "") for c in found]


@pytest.mark.parametrize(("callers", "runners"), [((1, 1), 1), ((1, 2), 2), ((0, 0), 0), ((), 0)])
def test_as_many_runners_as_any_bucket_gains_from(callers, runners):
    assert choose.runners(planned(*callers)) == runners


def sized(engine, variant, us, memory, files, artifact="", precision=""):  # noqa: PLR0917
    measured = Measured(us, us, 9)
    return Trial(
        engine, variant, "", measured=measured, memory_bytes=memory, artifact=artifact or f"s0/{engine}-{variant}",
        artifact_bytes=files, precision=precision,
    )  # fmt: skip


def test_for_memory_one_runner_is_looked_for_that_serves_all_buckets():
    """Files count once, what each bucket allocates every time; whoever is slower than plain TensorFlow is out."""
    tf = Trial("tensorflow", "function", "", measured=Measured(100.0, 100.0, 9))
    one = [tf, sized("litert", "t1", 10.0, 30, 50), sized("openvino", "int8", 50.0, 20, 15, precision="int8"),
           sized("openvino", "f32", 5.0, 1, 1)]  # fmt: skip
    many = [tf, sized("litert", "t1", 10.0, 0, 50), sized("openvino", "int8", 50.0, 20, 15, precision="int8"),
            sized("openvino", "f32", 200.0, 1, 1)]  # fmt: skip
    scored = choose.by_memory([one, many], 1000)
    assert [[t.score for t in trials] for trials in scored] == [[TF_BYTES, 80, 55, math.inf]] * 2
    assert [choose.winner(trials, "function").label for trials in scored] == ["openvino/int8"] * 2
    assert choose.memory_line(scored) == (
        "openvino/int8 needs 55 B for files and runners (tensorflow/function 419 MB, litert/t1 80 B)"
    )
    reasons = [c.reason for c in choose.candidates(scored[0], scored[0][2])]
    assert reasons[1] == "openvino/int8 is as small or smaller, or needs no second loader"


def test_for_memory_without_a_common_runner_each_bucket_is_looked_at_alone():
    tf = Trial("tensorflow", "function", "", measured=Measured(100.0, 100.0, 9))
    scored = choose.by_memory(
        [[tf, sized("litert", "t1", 10.0, 3, 5)], [tf, sized("openvino", "f32", 5.0, 1, 1)]], 1000
    )
    assert [choose.winner(trials, "function").label for trials in scored] == ["litert/t1", "openvino"]
    (alone,) = choose.by_memory([[tf, sized("litert", "t1", 110.0, 3, 5)]], 1000)
    assert choose.winner(alone, "function").label == "tensorflow/function"
    assert choose.by_memory([], 1000) == []


TF_BYTES = choose.TENSORFLOW_BYTES + 1000


KINDS = [
    *(("tensorflow", v) for v in ("session", "inline")), *(("litert", v) for v in ("t1", "t2", "s2")),
    *(("openvino", v) for v in ("f32", "f32-s2", "f32-s2p1", "f32-blocked", "f32-amx", "f32-winograd")),
    *(("onnxruntime", v) for v in ("t1", "t2")),
    ("xla", "pjrt"), ("host+litert", "t2"), ("host+openvino", "f32"), ("litert", "t2+int8-dynamic"),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(50))
def test_who_wins_depends_on_times_alone_and_is_never_slower_than_plain_tensorflow(seed):
    draw = random.Random(seed)
    reference = trial("tensorflow", "function", 100.0)
    times = {kind: draw.choice([90, 95, 97, 100, 104, 110, 300]) for kind in draw.sample(KINDS, draw.randint(1, 12))}
    trials = [
        dataclasses.replace(trial(*kind, us), precision="int8" if "int8" in kind[1] else "")
        for kind, us in times.items()
    ]
    found = {
        choose.winner([reference, *order], "session").label
        for order in (trials, trials[::-1], draw.sample(trials, len(trials)))
        if choose.winner([reference, *order], "session")
    }
    assert len(found) <= 1
    home = choose.winner([reference, *trials], "function")
    able = [t for t in [reference, *trials] if t.variant not in ("session", "inline")]
    fastest = min(t.median_us for t in able)
    assert home.median_us <= 1.05 * fastest
    assert home.median_us <= 1.05 * reference.median_us
    simpler = [t for t in able if t.median_us <= 1.05 * fastest and choose._complexity(t) < choose._complexity(home)]
    assert simpler == []


def test_simplicity_does_not_depend_on_the_number_of_cores():
    rising = [
        *("tensorflow/function", "litert/t1", "litert/t8", "litert/s8", "openvino/f32", "openvino/f32-s8"),
        *("openvino/f32-s8p1", "openvino/f32-blocked", "openvino/f32-blocked-s8", "openvino/f32-blocked-funnel-s8"),
        "openvino/f32-amx",
        *("openvino/f32-winograd", "openvino/f32-winograd-s8p1"),
        *("onnxruntime/t1", "onnxruntime/t8", "xla/pjrt", "host+litert/t1"),
    ]
    trials = [trial(*name.split("/"), 10.0) for name in rising]
    shuffled = random.Random(1).sample(trials, len(trials))
    assert sorted(shuffled, key=choose._complexity) == trials
    lossy = dataclasses.replace(trials[1], precision="int8")
    assert choose._complexity(lossy) > choose._complexity(trials[-1])


def test_a_shorter_length_runs_as_the_whole_does_where_that_costs_little():
    slow = trial("litert", "t2", 108.0)
    trials = [trial("tensorflow", "function", 900.0), trial("openvino", "f32", 100.0), slow]
    assert choose.winner(trials, "function", like=slow) is slow
    assert choose.winner(trials, "function").engine == "openvino"
    behind = [*trials[:2], trial("litert", "t2", 111.0)]
    assert choose.winner(behind, "function", like=slow).engine == "openvino"
