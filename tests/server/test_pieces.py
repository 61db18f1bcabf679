"""Requests whose rows go through several buckets in turn, because that takes less than filling up the next."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import Future

import pytest
from tfopt_server.errors import Code
from tfopt_server.lanes import HOP_US, cost_of, in_pieces
from tfopt_server.tasks import Result

from tests.server.executing import Make, failure, values
from tests.server.fakes import POISON, Runner, x

LABELS = ("m", "serving_default", "fake")


@pytest.mark.parametrize("cost_us", [HOP_US, 200.0, 5_000.0])  # from the queue, for all of them together
def test_five_rows_are_run_as_four_and_one(make: Make, cost_us: float) -> None:
    plane = make(Runner(cost_us=cost_us, per_row=True))
    assert values(plane.executor.start(plane.lane, x(1, 2, 3, 4, 5))) == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert plane.runner.engine.runs == [[1.0, 2.0, 3.0, 4.0], [5.0]]
    assert plane.counted("requests") == {(*LABELS, "1"): 1.0, (*LABELS, "4"): 0.0}
    assert plane.counted("rows") == {(*LABELS, "4"): 4.0, (*LABELS, "1"): 1.0}
    assert sum(plane.counted("padding_rows").values()) == 0.0


def test_both_runs_are_on_the_callers_thread_where_they_are_short_together(make: Make) -> None:
    plane = make(Runner(cost_us=50.0, per_row=True, merge=False))
    answer = plane.executor.start(plane.lane, x(1, 2, 3, 4, 5), ["n", "y"])
    assert isinstance(answer, Result)
    assert set(plane.runner.engine.threads) == {threading.current_thread().name}
    assert answer.outputs["n"].tolist() == [0, 1, 2, 3, 0]
    assert plane.executor._busy == 0


def test_what_is_larger_than_the_largest_bucket_is_cut_and_what_is_left_of_it_parted(make: Make) -> None:
    plane = make(Runner(cost_us=5_000.0, per_row=True))
    assert values(plane.executor.start(plane.lane, x(*range(21)))) == [2.0 * n for n in range(21)]
    assert [len(run) for run in plane.runner.engine.runs] == [8, 8, 4, 1]


def test_the_error_of_one_part_is_the_requests(make: Make) -> None:
    plane = make(Runner(cost_us=5_000.0, per_row=True))
    answer = plane.executor.start(plane.lane, x(1, 2, 3, 4, POISON))
    assert isinstance(answer, Future)
    assert failure(answer) == (Code.INVALID_ARGUMENT, "poisoned: 1 of 1 rows")
    assert values(plane.executor.start(plane.lane, x(1))) == [2.0]


def test_answers_that_lack_rows_are_not_joined(make: Make) -> None:
    plane = make(Runner(cost_us=5_000.0, per_row=True))
    four = plane.runner._buckets[4]
    plane.runner._buckets[4] = dataclasses.replace(four, run=lambda feeds, outputs: {"y": 2 * feeds["x"][:1]})
    answer = plane.executor.start(plane.lane, x(1, 2, 3, 4, 5))
    assert isinstance(answer, Future)
    code, text = failure(answer)
    assert code is Code.FAILED_PRECONDITION
    assert text.startswith("Batched output tensor's 0th dimension does not equal the sum")


def test_waiting_requests_that_would_be_parted_again_are_not_joined(make: Make) -> None:
    """Five lone rows: four now and one next, not five that are parted into the same runs and answered together."""
    plane = make(Runner(cost_us=5_000.0, per_row=True))
    busy = plane.occupy()
    waiting = [plane.queue(float(n)) for n in range(1, 6)]
    plane.runner.engine.gate.set()
    assert [values(answer) for answer in (busy, *waiting)] == [[2.0 * n] for n in range(6)]
    assert [len(run) for run in plane.runner.engine.runs] == [1, 4, 1]


def test_what_a_join_costs_is_what_its_parts_cost() -> None:
    runner = Runner(cost_us=1_000.0, per_row=True)
    cost_us = cost_of(runner)
    assert [cost_us(n) for n in (1, 2, 5, 8, 16)] == [1_000.0, 2_010.0, 5_010.0, 8_000.0, 16_000.0]


def test_a_request_costs_what_its_parts_cost_together(make: Make) -> None:
    plane = make(Runner(cost_us=1_000.0, per_row=True))
    assert plane.lane.cost_us(plane.runner.buckets_for(5), 5, x(1, 2, 3, 4, 5)) == 4_000.0 + 1_000.0 + 10.0
    assert plane.lane.cost_us(plane.runner.buckets_for(4), 4, x(1, 2, 3, 4)) == 4_000.0


def test_the_log_gives_examples() -> None:
    assert in_pieces(Runner(cost_us=1_000.0, per_row=True)) == "2 as 2 x 1, 5 as 1 x 4 and 1 x 1"
    assert in_pieces(Runner(cost_us=1_000.0)) == ""
    slow = Runner(cost_us=1_000.0, per_row=True)
    slow._buckets[8] = dataclasses.replace(slow._buckets[8], cost_us=20_000.0)
    assert in_pieces(slow) == "2 as 2 x 1, 5 as 1 x 4 and 1 x 1, 8 as 2 x 4"
    assert in_pieces(Runner(row_independent=False)) == ""
