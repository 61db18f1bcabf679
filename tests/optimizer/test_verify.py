"""The gate: what counts as the same answer."""

from __future__ import annotations

import math
import re

import ml_dtypes
import numpy as np
import pytest
from tfopt_optimizer import verify
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.plan import Agreement

LOSSLESS = verify.lossless(1e-4)
LOSSY = OptimizerFlags().lossy()


def out(**arrays):
    return {name: np.asarray(a) for name, a in arrays.items()}


def reason(reference, candidate, tolerance=LOSSLESS):
    return verify.check(reference, candidate, tolerance).reason


def test_errors_are_relative_to_the_largest_magnitude_of_the_output():
    reference = out(y=np.array([[10.0, 1e-6]], np.float32))
    verdict = verify.check(reference, out(y=np.array([[10.0, 2e-6]], np.float32)), LOSSLESS)
    assert verdict.passed
    assert verdict.agreement.max_rel_error == pytest.approx(1e-7, rel=1e-3)
    # the same distance in an output that is small throughout is an error
    small = out(y=np.array([[1e-6]], np.float32))
    assert reason(small, out(y=np.array([[2e-6]], np.float32))) == "max error 1 is above 0.0001"


@pytest.mark.parametrize(
    ("error", "said"),
    [(0.0104, "0.0104"), (0.01000049, "0.0100005"), (math.nextafter(0.01, 1), "0.010000000000000002"),
     (math.inf, "inf"), (math.nan, "nan")],
)  # fmt: skip
def test_an_error_just_above_its_bound_is_told_as_above_it(error, said):
    assert verify.judge(Agreement(error, 0.0, 4), "", LOSSY).reason == f"max error {said} is above 0.01"


def test_two_percent_off_fails_lossless_and_lossy():
    reference, candidate = out(y=np.ones([4, 2], np.float32)), out(y=np.full([4, 2], 1.02, np.float32))
    assert reason(reference, candidate) == "max error 0.02 is above 0.0001"
    assert reason(reference, candidate, LOSSY) == "max error 0.02 is above 0.01"


def test_a_nan_equals_a_nan_and_nothing_else():
    reference = out(y=np.array([np.nan, 1.0, np.inf, -np.inf], np.float32))
    assert reason(reference, out(y=np.array([np.nan, 1.0, np.inf, -np.inf], np.float32))) == ""
    broken = reason(reference, out(y=np.array([np.nan, np.nan, np.inf, -np.inf], np.float32)))
    assert broken == "output 'y' has nan at [1], plain TensorFlow 1.0 (1 such values)"
    assert "inf" in reason(reference, out(y=np.array([np.nan, 1.0, -np.inf, -np.inf], np.float32)))
    assert "plain TensorFlow nan" in reason(reference, out(y=np.array([0.0, 1.0, np.inf, -np.inf], np.float32)))


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, object])
def test_integers_booleans_and_strings_must_be_equal(dtype):
    values = {np.int64: ([1, 2], [1, 3]), np.bool_: ([True, False], [True, True]), object: ([b"a", b"b"], [b"a", b"c"])}
    right, wrong = (np.array(v, dtype=dtype) for v in values[dtype])
    assert reason(out(y=right), out(y=right.copy())) == ""
    assert "differs in 1 of 2 values and must be equal" in reason(out(y=right), out(y=wrong))


def test_names_shapes_and_dtypes_must_be_the_references():
    y = np.zeros([2, 3], np.float32)
    assert reason(out(y=y), out(z=y)) == "outputs ['z'] instead of ['y']"
    assert reason(out(y=y), out(y=y[:1])) == "output 'y' has shape (1, 3) instead of (2, 3)"
    assert reason(out(y=y), out(y=y.astype(np.float64))) == "output 'y' is float64 instead of float32"


def test_low_precision_floats_are_compared_as_numbers():
    y = np.array([1.0, 2.0], ml_dtypes.bfloat16)
    assert reason(out(y=y), out(y=y.copy())) == ""
    assert "max error" in reason(out(y=y), out(y=np.array([1.0, 2.25], ml_dtypes.bfloat16)))


def test_an_output_of_zeros_has_no_scale_so_distances_count_as_they_are():
    zeros = out(y=np.zeros([3], np.float32))
    assert reason(zeros, out(y=np.full([3], 1e-5, np.float32))) == ""
    assert reason(zeros, out(y=np.full([3], 1e-3, np.float32))) == "max error 0.001 is above 0.0001"


def test_top1_is_the_share_of_rows_that_keep_their_best_class():
    reference = np.array([[0.50, 0.4999], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)
    candidate = reference.copy()
    candidate[0] = [0.4999, 0.50]
    verdict = verify.check(out(y=reference), out(y=candidate), LOSSY)
    assert verdict.agreement.top1 == 0.75
    assert verdict.reason == "only 75.00% of the rows keep their best class, 99.00% are needed"


def test_empty_and_scalar_outputs_are_compared_too():
    empty, scalar = np.zeros([0, 3], np.float32), np.float32(2.0)
    assert reason(out(y=empty, s=scalar), out(y=empty, s=scalar)) == ""
    assert "max error 0.5" in reason(out(s=scalar), out(s=np.float32(3.0)))


def test_calls_add_up_to_the_worst_maximum_and_the_mean_over_rows():
    calls = [Agreement(1e-7, 1e-8, 1, 1.0), Agreement(3e-7, 4e-8, 3, 0.5)]
    assert verify.add_calls(calls) == Agreement(3e-7, pytest.approx(3.25e-8), 4, pytest.approx(0.625))


def test_an_exact_output_does_not_average_away_the_error_of_another():
    y, label = np.array([[1.0, 0.5]], np.float32), np.array([b"a"], object)
    verdict = verify.check(out(y=y, label=label), out(y=y + np.float32([0, 2e-4]), label=label), LOSSY)
    assert verdict.agreement.mean_rel_error == pytest.approx(1e-4, rel=1e-3)
    worse = verify.check(out(y=y, label=label), out(y=y + np.float32([0, 3e-4]), label=label), LOSSY)
    assert worse.reason == "output 'y': mean error 0.00015 is above 0.0001"


def test_top1_is_that_of_the_output_that_keeps_fewest_classes():
    scores = np.array([[1.0, 0.9999]], np.float32)
    verdict = verify.check(out(a=scores, b=scores), out(a=scores, b=scores[:, ::-1].copy()), LOSSY)
    assert verdict.agreement.top1 == 0.0


def test_means_and_shares_are_of_all_calls_together():
    one = LOSSY.of_one_call
    assert (one.max_rel_error, one.mean_rel_error, one.top1) == (LOSSY.max_rel_error, LOSSY.max_rel_error, 0.0)
    calls = [Agreement(3e-4, 3e-4, 1, 1.0), Agreement(1e-5, 1e-5, 9, 1.0)]
    assert verify.judge(verify.add_calls(calls), "", LOSSY).reason == ""
    assert verify.judge(calls[0], "", LOSSY).reason == "mean error 0.0003 is above 0.0001"


@pytest.mark.parametrize("mask", [-1e4, -1e9, np.finfo(np.float32).min])
def test_a_mask_value_does_not_hide_errors_of_the_scores_beside_it(mask):
    scores = np.array([[1.5, mask, 0.3], [mask, 2.5, mask]], np.float32)
    assert reason(out(y=scores), out(y=scores * np.float32(1 - 1e-6))) == ""
    wrong = scores.copy()
    wrong[0, 2] = 0.9
    assert reason(out(y=scores), out(y=wrong)) == "max error 0.24 is above 0.0001"
    assert "max error" in reason(out(y=scores), out(y=np.where(scores == mask, mask / 2, scores)))


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1)])
def test_a_detectors_scores_are_not_lost_beside_its_pixels(axes):
    """Boxes and class scores in one tensor, as YOLO gives them: in 8 bits with one scale the scores become zeros."""
    rng = np.random.default_rng(0)
    boxes, scores = rng.uniform(0, 640, [1, 4, 50]), rng.uniform(0, 1, [1, 3, 50]) ** 8
    reference = np.concatenate([boxes, scores], axis=1).transpose(axes).astype(np.float32)
    zeroed = np.concatenate([boxes, 0 * scores], axis=1).transpose(axes).astype(np.float32)
    off = rf"column [4-6] of axis {axes.index(1)} is off by 0.9[0-9]? of its own largest value, above 0.1"
    assert re.fullmatch(off, reason(out(y=reference), out(y=zeroed), LOSSY))
    close = np.concatenate([boxes, scores + 9e-4], axis=1).transpose(axes).astype(np.float32)
    assert reason(out(y=reference), out(y=close), LOSSY) == ""
    assert "above 0.001" in reason(out(y=reference), out(y=reference + np.float32(0.01)))


def test_the_row_or_column_that_is_wrong_is_named():
    prices = np.array([[2e6, 3.0], [1e6, 4.0]], np.float32)
    wrong = prices + np.float32([[0, 0], [0, 0.5]])
    expected = "column 1 is off by 0.12 of its own largest value, above 0.001"
    assert reason(out(y=prices), out(y=wrong)) == expected
    assert reason(out(a=prices, y=prices), out(a=prices, y=wrong)) == f"output 'y': {expected}"
    rows = np.array([[1e6], [2e4]], np.float32)
    assert reason(out(y=rows), out(y=rows + np.float32([[0], [90]]))).startswith("row 1 is off by 0.0045")


def test_an_output_may_have_a_tolerance_of_its_own():
    y = np.array([[1.0, 0.5]], np.float32)
    gate = verify.Gate(verify.lossless(1e-4), {"b": verify.Tolerance(1e-2, 1e-3, 0.0)})
    off = y * np.float32([1, 1.002])
    assert verify.check(out(a=y, b=y), out(a=y, b=off), gate).reason == ""
    expected = "output 'a': max error 0.001 is above 0.0001"
    assert verify.check(out(a=y, b=y), out(a=off, b=y), gate).reason == expected
    assert verify.check(out(a=y, b=y), out(a=y, b=y * np.float32(1.002)), gate).reason == (
        "output 'b': mean error 0.0015 is above 0.001"
    )


def test_calls_are_judged_together_each_output_by_itself():
    y = np.array([[1.0, 0.5]], np.float32)
    gate = verify.Gate(verify.lossless(1e-4), {"b": verify.Tolerance(1e-2, 1e-3, 0.0)})
    calls = verify.Calls(gate)
    for factor in (1.0015, 1.0, 1.0):  # of one call alone the mean would be too large
        assert calls.add(out(a=y, b=y), out(a=y, b=y * np.float32(factor))) == ""
    assert calls.verdict().passed
    assert calls.verdict().agreement.rows == 3
    for _ in range(6):
        assert calls.add(out(a=y, b=y), out(a=y, b=y * np.float32(1.003))) == ""
    assert calls.verdict().reason.startswith("output 'b': mean error 0.0016")
    assert calls.add(out(a=y, b=y), out(a=y * np.float32(1.01), b=y)) == "output 'a': max error 0.01 is above 0.0001"
    lost = verify.Calls(gate)
    assert lost.add(out(a=y, b=y), out(a=y)) == lost.verdict().reason == "outputs ['a'] instead of ['a', 'b']"


def test_scores_that_are_all_too_large_by_a_little_are_seen_beside_pixels():
    """No single one is off by a tenth, and beside 640 pixels the mean of all is nothing."""
    rng = np.random.default_rng(0)
    reference = np.concatenate([rng.uniform(0, 640, [2, 50, 4]), rng.uniform(0, 1, [2, 50, 3])], 2).astype(np.float32)
    expected = r"column [4-6] of axis 2 is off by 0.09 of its own largest value on the average, above 0.001"
    shifted = reference + np.float32([0, 0, 0, 0, 0.09, 0.09, 0.09])
    assert re.fullmatch(expected, reason(out(y=reference), out(y=shifted), LOSSY))
    calls = verify.Calls(LOSSY)
    assert calls.add(out(y=reference), out(y=shifted)) == ""  # of all calls together, as the whole's mean is
    assert re.fullmatch(expected, calls.verdict().reason)
    assert reason(out(y=reference), out(y=reference + np.float32([0] * 4 + [5e-4] * 3)), LOSSY) == ""
    assert verify.check(out(y=reference), out(y=shifted), verify.lossless(1e-2)).reason == ""  # it bounds no means


def test_a_small_column_or_row_that_rounding_made_is_no_error():
    prices = np.array([[2e6, 3.0], [1e6, 4.0]], np.float32)
    assert reason(out(y=prices), out(y=prices + np.float32([0, 1e-3]))) == ""
    assert "column" in reason(out(y=prices), out(y=prices + np.float32([0, 0.5])))
    one = np.array([[1e6], [3.0]], np.float32)  # what is left of terms of a million
    assert reason(out(y=one), out(y=one + np.float32([[0], [0.06]]))) == ""
