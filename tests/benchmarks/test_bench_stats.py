"""Percentiles and ratios: what the tables of the benchmarks are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import stats


def test_a_percentile_is_a_sample_at_the_nearest_rank():
    ten = [float(n) for n in range(1, 11)]
    assert [stats.percentile(ten, p) for p in (1, 10, 50, 90, 99, 100)] == [1, 1, 5, 9, 10, 10]
    assert stats.percentile([7.0], 99.9) == 7.0


def test_the_999th_permille_of_a_thousand_samples_is_the_999th():
    assert stats.percentile([float(n) for n in range(1, 1001)], 99.9) == 999.0


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=300), st.sampled_from(stats.PERCENTS))
def test_percentiles_agree_with_numpy(samples, percent):
    expected = np.percentile(samples, percent, method="inverted_cdf")
    assert stats.percentile(sorted(samples), percent) == expected


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_outside_0_to_100_is_refused(percent):
    with pytest.raises(ValueError, match="expected 0 < percent <= 100"):
        stats.percentile([1.0], percent)


def test_no_samples_have_no_percentile():
    with pytest.raises(ValueError, match="no samples"):
        stats.percentile([], 50)


def test_a_summary_needs_no_sorted_samples():
    assert stats.summary([3.0, 1.0, 2.0]) == stats.Summary(3, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0)


def test_one_slow_round_does_not_decide_a_ratio():
    rounds = {"ours": [8.0, 9.0, 1.0], "bare": [10.0, 10.0, 10.0]}
    assert stats.ratio(rounds, "ours", "bare") == 0.8
    assert stats.spread(rounds["ours"]) == stats.Spread(8.0, 1.0, 9.0, 3)


def test_variants_that_did_not_run_in_turn_have_no_ratio():
    with pytest.raises(ValueError, match="not measured in turn"):
        stats.ratio({"ours": [1.0, 2.0], "bare": [1.0]}, "ours", "bare")
