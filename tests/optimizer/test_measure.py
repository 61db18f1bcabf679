"""Turns and rounds, with runners whose times are written down."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer import measure


class Scripted:
    """Answers every round with calls of `us`; keeps who was asked."""

    def __init__(self, name, us, journal):
        self.name, self.us, self.journal, self.made = name, us, journal, 0

    def __call__(self, round_s, max_calls):
        self.journal.append(self.name)
        calls = max(1, min(max_calls, int(round_s * 1e6 / self.us)))
        self.made += calls
        return np.full(calls, self.us)


def race(reference_us, **candidates_us):
    journal = []
    reference = Scripted("reference", reference_us, journal)
    candidates = {name: Scripted(name, us, journal) for name, us in candidates_us.items()}
    base, times = measure.compare(reference, candidates)
    return journal, base, times


def opening(*names):
    """The two rounds that all run: three calls in a row, and when all have had them one more."""
    return [n for n in names for _ in range(3)] + list(names)


def test_candidates_and_reference_take_turns():
    journal, base, times = race(400.0, fast=300.0)
    assert journal == opening("reference", "fast") + ["reference", "fast"] * measure.ROUNDS
    assert (np.median(base), np.median(times["fast"])) == (400, 300)


def test_who_loses_the_first_rounds_clearly_is_timed_in_them_alone():
    journal, base, times = race(400.0, slow=1000.0, fast=100.0, second=130.0)
    assert journal == opening("reference", "slow", "fast", "second") + ["fast", "second"] * measure.ROUNDS
    assert (np.median(base), np.median(times["slow"])) == (400, 1000)


def test_a_first_round_spoilt_by_a_neighbour_costs_nobody_the_race():
    journal = []
    quiet = Scripted("spoilt", 300.0, journal)

    def spoilt(round_s, max_calls):
        found = quiet(round_s, max_calls)
        return found if journal.count("spoilt") > 3 else found * 10

    measure.compare(Scripted("reference", 400.0, journal), {"spoilt": spoilt})
    assert journal == opening("reference", "spoilt") + ["reference", "spoilt"] * measure.ROUNDS


def test_one_clear_winner_needs_no_turns():
    journal, _, _ = race(400.0, fast=100.0)
    assert journal == opening("reference", "fast")


def test_a_failed_candidate_reports_infinite_times_and_is_left_alone():
    _, _, times = race(400.0, gone=np.inf)
    assert np.isinf(times["gone"]).all()


def test_near_ties_are_measured_twice_as_long():
    journal, _, _ = race(400.0, near=385.0)
    assert journal.count("near") == 4 + 2 * measure.ROUNDS


@pytest.mark.parametrize(("us", "calls"), [(1e6, 2 + measure.SLOW_ROUNDS), (1e4, 2 + 2 + 12 + 9 * measure.ROUNDS)])
def test_slow_models_get_fewer_calls_but_enough(us, calls):
    journal = []
    reference = Scripted("reference", us, journal)
    measure.compare(reference, {"fast": Scripted("fast", us * 0.8, journal)})
    assert reference.made == calls


def test_rounds_that_a_neighbour_spoils_do_not_count():
    """It costs the one more than the other; half of the rounds are its."""
    journal = []
    runs = {name: Scripted(name, us, journal) for name, us in (("reference", 120.0), ("waits", 100.0))}

    def disturbed(name, factor):
        def run(round_s, max_calls):
            found = runs[name](round_s, max_calls)
            return found * factor if journal.count(name) % 2 else found

        return run

    base, times = measure.compare(disturbed("reference", 2.0), {"waits": disturbed("waits", 6.0)})
    assert (np.median(base), np.median(times["waits"])) == (120, 100)


def test_the_summary_has_median_and_p90():
    found = measure.summary(np.arange(1.0, 102.0))
    assert (found.median_us, found.p90_us, found.calls) == (51.0, 91.0, 101)


def test_without_time_left_two_turns_each_must_do():
    journal = []
    runs = {name: Scripted(name, us, journal) for name, us in (("reference", 400.0), ("near", 385.0))}
    measure.compare(runs["reference"], {"near": runs["near"]}, lambda: 0.0)
    assert journal == opening("reference", "near") + ["reference", "near"] * measure.LEAST_TURNS


def test_the_first_call_of_a_slow_model_counts():
    journal, _, _ = race(1e6, fast=1000.0)
    assert journal.count("reference") == 2


def test_more_callers_only_where_they_get_more_answered():
    rates = {"wide": {1: 100.0, 2: 103.0}, "narrow": {1: 60.0, 2: 115.0}, "gone": {1: 0.0, 2: 0.0}}
    runs = {name: lambda callers, seconds, name=name: rates[name][callers] for name in rates}
    assert measure.saturate(runs, 2) == {"wide": (100.0, 1), "narrow": (115.0, 2), "gone": (0.0, 1)}
    assert measure.saturate({"wide": runs["wide"]}, 1) == {"wide": (100.0, 1)}


def test_calls_of_a_second_are_counted_once():
    journal = []

    def run(callers, seconds):
        journal.append(callers)
        return 1.5

    assert measure.saturate({"slow": run}, 2) == {"slow": (1.5, 1)}
    assert journal == [1, 2]
