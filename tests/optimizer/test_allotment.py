"""A budget shared out, with a clock that is set by hand; who is tried first; what sizes in between cost."""

from __future__ import annotations

import dataclasses

import pytest
from tfopt_optimizer import allotment, choose, likely
from tfopt_optimizer.allotment import Allotment
from tfopt_optimizer.entrant import Entrant


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_share_that_is_not_used_is_there_for_the_others():
    clock = Clock()
    whole = Allotment.of(30.0, clock)
    first = whole.share(3)
    assert first.left() == 10
    clock.now += 4
    assert whole.share(2).left() == 13
    clock.now += 20
    assert (whole.share(1).left(), first.over(), whole.over()) == (6, True, False)


def test_the_first_two_buckets_get_half_of_what_is_left_and_the_others_equal_parts():
    assert [allotment.parts(position, 6) for position in range(6)] == [2, 2, 4, 3, 2, 1]
    assert [allotment.parts(position, 2) for position in range(2)] == [2, 1]
    assert allotment.parts(0, 1) == 1


def test_after_the_budget_one_candidate_each_and_after_twice_the_budget_nothing():
    clock = Clock()
    whole = Allotment.of(30.0, clock)
    clock.now += 30
    assert (whole.over(), whole.gone(), whole.left(), whole.share(2).left()) == (True, False, 0, 0)
    clock.now += 30
    assert whole.gone()


def test_some_time_is_for_the_search_however_long_loading_took():
    clock = Clock()
    whole = Allotment.of(30.0, clock)
    clock.now += 50
    late = whole.share(1).at_least(15.0)
    assert (late.left(), late.gone()) == (15, False)
    clock.now += 31
    assert (late.over(), late.gone()) == (True, True)
    assert Allotment.of(30.0, clock).at_least(15.0).left() == 30


def test_a_candidate_gets_the_time_that_is_left_and_never_none():
    clock = Clock()
    whole = Allotment.of(300.0, clock)
    assert (whole.patience(60), whole.patience(900)) == (60, 300)
    clock.now += 299
    assert (whole.patience(900), whole.patience(3)) == (allotment.GRACE_S, 3)
    assert whole.patience(900, ["somebody"]) == allotment.SHORTEST_S
    # killing the process of plain TensorFlow would cost more than waiting
    assert whole.patience(900, ["somebody"], 9.0) == 9.0
    assert whole.patience(5, ["somebody"], 9.0) == 5


@pytest.mark.parametrize(("flags", "seconds"), [((False, False), 30), ((True, False), 300), ((False, True), 300)])
def test_compiling_and_compressing_get_more_time(flags, seconds):
    assert allotment.default_s(*flags) == seconds


LITERT, OPENVINO, XLA, SESSION = (
    Entrant(e, v, "w", heavy=e == "litert")
    for e, v in (("litert", "t2"), ("openvino", "f32"), ("xla", "pjrt"), ("tensorflow", "session"))
)
ALL = (SESSION, LITERT, OPENVINO, XLA)


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"strings": False, "reference_us": 300.0, "large": False}, (LITERT, SESSION, OPENVINO, XLA)),
        ({"strings": True, "reference_us": 9e4, "large": False}, (LITERT, SESSION, OPENVINO, XLA)),
        ({"strings": False, "reference_us": 9e4, "large": False}, (OPENVINO, LITERT, XLA, SESSION)),
        ({"strings": False, "reference_us": 9e4, "large": True}, (OPENVINO, XLA, SESSION, LITERT)),
        ({"strings": False, "reference_us": 9e4, "large": True, "winners": {("litert", "t2"): 1}},
         (LITERT, OPENVINO, XLA, SESSION)),
        ({"strings": False, "reference_us": 9e4, "large": False,
          "winners": {("openvino", "f32"): 1, ("litert", "t2"): 4}},
         (LITERT, OPENVINO, XLA, SESSION)),
    ],
)  # fmt: skip
def test_the_likely_winner_of_the_class_is_tried_first(about, expected):
    assert tuple(likely.order(ALL, **about)) == expected


def test_after_a_winner_come_its_kin_on_other_streams():
    variants = ("f32", "f32-s2", "f32-winograd", "f32-winograd-s2p1", "f32-blocked-funnel-s2", "f32-blocked")
    entrants = [dataclasses.replace(OPENVINO, variant=v) for v in variants]
    won = {("openvino", "f32-winograd"): 2, ("openvino", "f32-blocked"): 1}
    found = likely.order([LITERT, *entrants], strings=False, reference_us=9e4, large=False, winners=won)
    assert [e.variant for e in found] == [
        *("f32-winograd", "f32-blocked", "f32-winograd-s2p1", "f32-blocked-funnel-s2", "f32", "f32-s2", "t2")
    ]


def test_an_engine_that_nothing_is_known_of_comes_last():
    unknown = dataclasses.replace(XLA, engine="new")
    assert likely.order([unknown, *ALL], strings=False, reference_us=9e4, large=False)[-1] == unknown


@pytest.mark.parametrize(
    ("known", "rows", "us"),
    [
        ([(1, 10.0), (32, 320.0)], 16, 160.0),
        ([(1, 10.0), (32, 320.0)], 32, 320.0),
        ([(1, 10.0)], 8, 10.0),
        ([(8, 80.0)], 2, 80.0),
        ([], 8, 0.0),
    ],
)
def test_a_size_that_was_not_tried_lies_between_its_neighbours(known, rows, us):
    assert choose.between(known, rows) == us
