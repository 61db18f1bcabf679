"""Limits of inputs and of their columns: what is declined, and how they are kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tfopt_optimizer.engines import artifacts, limits
from tfopt_optimizer.engines.limits import ANY, Part, Within
from tfopt_optimizer.errors import Declined

BOUNDS = {
    Part("x", 1, 0, 1): (0, 99),
    Part("x", 1, 1, None): (0, 6),
    Part("y", -1, -1, None): (-7, 6),
    Part("z"): (ANY[0], 3),
}
FEEDS = {
    "x": np.array([[99, 6, 0], [0, 0, 6]]),
    "y": np.array([[[100, -7]], [[100, 6]]], np.int32),
    "z": np.array([-1e9, 3.0], np.float32),
}


def test_values_within_pass_and_each_part_is_held_to_its_own():
    check = Within(BOUNDS)
    check(FEEDS)
    check({"x": np.zeros((0, 3), int), "y": np.zeros((0, 1, 2), int), "z": np.zeros(0)})
    for name, place, value, words in (
        ("x", (1, 0), 100, r"input 'x' \(axis 1, 0:1\) has values outside 0 to 99"),
        ("x", (0, 2), 7, r"input 'x' \(axis 1, 1:\) has values outside 0 to 6"),
        ("y", (0, 0, 1), -8, r"input 'y' \(axis -1, -1:\) has values outside -7 to 6"),
        ("z", (0,), np.nan, "input 'z' has values outside"),
        ("z", (0,), 4, "input 'z' has values outside"),
    ):
        wrong = {n: a.copy() for n, a in FEEDS.items()}
        wrong[name][place] = value
        with pytest.raises(Declined, match=words):
            check(wrong)


def test_the_narrower_of_two_limits_holds_and_some_leave_nothing():
    bounds: dict[Part, limits.Limits] = {}
    for limit in ((0, 99), (-3, 6)):
        limits.narrow(bounds, Part("x"), limit)
    assert bounds == {Part("x"): (0, 6)}
    assert not limits.impossible(bounds)
    limits.narrow(bounds, Part("x"), (7, 9))
    assert limits.impossible(bounds)


def test_they_are_kept_with_a_module_and_read_from_an_older_versions(tmp_path):
    artifacts.write_module(tmp_path, b"", artifacts.Meta(("x",), ("y",), (0,), BOUNDS))
    assert artifacts.read_meta(tmp_path).limits == BOUNDS
    older = {**json.loads((tmp_path / artifacts.META).read_text()), "limits": {"x": [0, 6]}}
    del older["bounds"]
    (tmp_path / artifacts.META).write_text(json.dumps(older))
    assert artifacts.read_meta(tmp_path).limits == {Part("x"): (0, 6)}
