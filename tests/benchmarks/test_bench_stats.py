"""Percentiles and ratios: what the tables of the benchmarks are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import interleave, stats


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


class Ticks:
    """A clock that moves by what each call costs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def costs(self, name: str, seconds: float):
        def call() -> None:
            self.now += seconds
            self.calls.append(name)

        return call


def test_variants_run_in_turn_and_the_order_turns():
    ticks = Ticks()
    variants = {"a": ticks.costs("a", 0.02), "b": ticks.costs("b", 0.05)}
    times = interleave.interleave(variants, blocks=3, seconds=100.0, clock=lambda: ticks.now)
    settled = 2 * interleave.SETTLE_CALLS
    assert "".join(ticks.calls[settled:]) == "aab" + "baa" + "aab"  # 30 ms a block, one call at least
    assert times == {"a": pytest.approx([20_000.0] * 6), "b": pytest.approx([50_000.0] * 3)}


def test_the_time_limit_ends_the_rounds_but_never_the_first():
    ticks = Ticks()
    variants = {"slow": ticks.costs("slow", 7.0), "slower": ticks.costs("slower", 9.0)}
    times = interleave.interleave(variants, blocks=50, seconds=0.1, clock=lambda: ticks.now)
    assert {name: len(found) for name, found in times.items()} == {"slow": 1, "slower": 1}


def test_a_block_of_a_tiny_model_is_bounded_in_calls():
    ticks = Ticks()
    times = interleave.interleave({"tiny": ticks.costs("tiny", 1e-9)}, 1, 1.0, clock=lambda: ticks.now)
    assert len(times["tiny"]) == interleave.MAX_BLOCK
