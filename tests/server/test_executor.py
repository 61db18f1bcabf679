"""Running requests, with a fake engine: inline, merged, split, refused."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
from tfopt_server import executor as module
from tfopt_server import logs
from tfopt_server.batching import Company
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.errors import Code, ServingError
from tfopt_server.tasks import Result

from tests.server.executing import Make, failure, values
from tests.server.fakes import POISON, Runner, x

# Of functions, Python's and built-in ones, on the shortest way through the executor: a few microseconds.
INLINE_CALLS = 40


def test_a_short_run_happens_on_the_callers_thread_and_is_padded_to_its_bucket(make: Make) -> None:
    plane = make(Runner(cost_us=20.0))
    answer = plane.executor.start(plane.lane, x(1, 2, 3))
    assert isinstance(answer, Result)
    assert values(answer) == [2.0, 4.0, 6.0]
    assert plane.runner.engine.runs == [[1.0, 2.0, 3.0, 1.0]]
    assert plane.runner.engine.threads == [threading.current_thread().name]
    assert answer.timings.batch == 4
    assert plane.counted("requests") == {("m", "serving_default", "fake", "4"): 1.0}
    assert plane.counted("rows") == {("m", "serving_default", "fake", "4"): 3.0}
    assert plane.counted("padding_rows") == {("m", "serving_default", "4"): 1.0}


def test_a_runner_that_takes_any_number_of_rows_gets_no_padding(make: Make) -> None:
    plane = make(Runner(cost_us=20.0, static=False))
    assert values(plane.executor.start(plane.lane, x(*range(11)))) == [2.0 * v for v in range(11)]
    assert plane.runner.engine.runs == [[float(v) for v in range(11)]]


def test_only_the_outputs_that_were_asked_for(make: Make) -> None:
    plane = make(Runner(cost_us=20.0))
    answer = plane.executor.start(plane.lane, x(1, 2), ["n"])
    assert isinstance(answer, Result)
    assert {name: array.tolist() for name, array in answer.outputs.items()} == {"n": [0, 1]}


def test_a_run_stays_on_the_callers_thread_while_a_runner_is_free_and_nothing_could_merge(make: Make) -> None:
    plane = make(Runner(cost_us=200.0, merge=False))
    assert isinstance(plane.executor.start(plane.lane, x(1)), Result)
    plane.runner.engine.gate.clear()
    busy = threading.Thread(target=plane.executor.start, args=(plane.lane, x(0)))
    busy.start()
    assert [plane.runner.engine.entered.acquire(timeout=10) for _ in range(2)] == [True, True]
    waiting = plane.queue(2)
    plane.runner.engine.gate.set()
    busy.join(10)
    assert values(waiting) == [4.0]


def test_where_merging_saves_more_than_a_hop_requests_with_company_are_queued(make: Make) -> None:
    plane = make(Runner(cost_us=200.0))
    on_this_thread = 0
    for i in range(100):
        answer = plane.executor.start(plane.lane, x(i))
        on_this_thread += isinstance(answer, Result)
        assert values(answer) == [2.0 * i]  # a lone client: it waits for each answer
    assert on_this_thread >= 80
    plane.lane.company = Company()
    plane.runner.engine.gate.clear()
    together = [plane.queue(i) for i in range(30)]
    plane.runner.engine.gate.set()
    assert [values(a) for a in together] == [[2.0 * i] for i in range(30)]
    assert len(plane.runner.engine.runs) < 100 + 10


def test_a_run_that_takes_long_never_happens_on_the_callers_thread(make: Make) -> None:
    plane = make(Runner(cost_us=50_000.0, merge=False))
    assert values(plane.queue(1)) == [2.0]
    assert plane.runner.engine.threads == ["tfopt-runner-0"]


def test_what_arrives_while_the_runner_is_busy_becomes_the_next_batch(make: Make) -> None:
    plane = make()
    busy = plane.occupy()
    answers = [plane.queue(v) for v in (1, 2, 3)]
    assert plane.metrics.queue_depth.labels().value == 3
    assert plane.metrics.busy_runners.labels().value == 1
    plane.runner.engine.gate.set()
    assert [values(a) for a in (busy, *answers)] == [[0.0], [2.0], [4.0], [6.0]]
    assert plane.runner.engine.runs == [[0.0], [1.0, 2.0, 3.0, 1.0]]
    assert plane.counted("requests") == {
        ("m", "serving_default", "fake", "1"): 1,
        ("m", "serving_default", "fake", "4"): 3,
    }
    timings = answers[0].result().timings
    assert timings.batch == 4
    assert min(timings) >= 0.0


def test_nothing_merges_where_the_plan_measured_no_gain_unless_batching_was_asked_for(make: Make) -> None:
    for parameters, runs in ((None, [[0.0], [1.0], [2.0]]), (BatchingParameters(), [[0.0], [1.0, 2.0, 1.0, 1.0]])):
        plane = make(Runner(merge=False), parameters=parameters)
        plane.occupy()
        answers = [plane.queue(v) for v in (1, 2)]
        plane.runner.engine.gate.set()
        assert [values(a) for a in answers] == [[2.0], [4.0]]
        assert plane.runner.engine.runs == runs


def test_rows_that_depend_on_each_other_are_neither_merged_nor_padded_whoever_asks(make: Make) -> None:
    plane = make(Runner(row_independent=False), parameters=BatchingParameters(max_batch_size=2))
    plane.occupy()
    answers = [plane.queue(1, 2, 3), plane.queue(4)]
    plane.runner.engine.gate.set()
    assert [values(a) for a in answers] == [[2.0, 4.0, 6.0], [8.0]]
    assert plane.runner.engine.runs == [[0.0], [1.0, 2.0, 3.0], [4.0]]


@pytest.mark.parametrize("row_independent", [True, False], ids=["outside the plan", "rows that depend on each other"])
def test_however_many_wait_for_a_run_of_their_own_there_is_one_queue_to_look_at(
    make: Make, row_independent: bool
) -> None:
    plane = make(Runner(row_independent=row_independent))
    odd = {"x": np.ones((1, 3), np.float32)} if row_independent else x(1)
    plane.occupy()
    waiting = [plane.executor.start(plane.lane, odd) for _ in range(5)]
    assert len(plane.executor._batcher._queues) == 1
    plane.runner.engine.gate.set()
    assert [values(each) for each in waiting] == [[2.0]] * 5
    assert [len(run) for run in (plane.runner.reference.runs or plane.runner.engine.runs[1:])] == [1] * 5


def test_a_large_request_runs_in_pieces_and_comes_back_whole(make: Make) -> None:
    plane = make(runners=2)
    assert values(plane.queue(*range(19))) == [2.0 * v for v in range(19)]
    assert sorted(plane.runner.engine.runs) == [
        [float(v) for v in range(8)], [float(v) for v in range(8, 16)], [16.0, 17.0, 18.0, 16.0],
    ]  # fmt: skip


def test_a_request_that_the_model_refuses_does_not_fail_its_neighbours(make: Make) -> None:
    plane = make()
    plane.occupy()
    good, bad, other = plane.queue(1), plane.queue(POISON, 2), plane.queue(3)
    plane.runner.engine.gate.set()
    assert (values(good), values(other)) == ([2.0], [6.0])
    assert failure(bad) == (Code.INVALID_ARGUMENT, "poisoned: 3 of 4 rows")  # itself and the padding
    assert plane.counted("merge_retries") == {("m", "serving_default"): 1.0}


def test_lines_about_a_batch_name_its_requests(make: Make) -> None:
    """Those that have a name; and where each runs again alone, none has a neighbour's."""
    plane = make()
    plane.occupy()
    with logs.naming("a"):
        first = plane.queue(1)
    unnamed = plane.queue(POISON)
    with logs.naming("b"):
        last = plane.queue(3)
    plane.runner.engine.gate.set()
    assert (values(first), values(last), failure(unnamed)[0]) == ([2.0], [6.0], Code.INVALID_ARGUMENT)
    assert plane.runner.engine.names == ["", "a, b", "a", "", "b"]


def test_a_piece_that_fails_fails_its_request_once(make: Make) -> None:
    plane = make(runners=2)
    answer = plane.queue(*range(9), POISON)
    assert failure(answer)[0] is Code.INVALID_ARGUMENT
    assert values(plane.queue(5)) == [10.0]


def test_an_unknown_failure_is_passed_on_as_it_is_and_the_runner_lives(make: Make) -> None:
    plane = make()
    plane.runner.engine.run = None  # type: ignore[method-assign, assignment]
    object.__setattr__(plane.runner._buckets[1], "run", lambda *_: 1 / 0)
    assert isinstance(plane.queue(1).exception(10), ZeroDivisionError)
    object.__setattr__(plane.runner._buckets[1], "run", lambda feeds, _: {"y": feeds["x"]})
    assert values(plane.queue(1)) == [1.0]
    object.__setattr__(plane.runner._buckets[1], "run", lambda *_: 1 / 0)
    object.__setattr__(plane.runner._buckets[1], "cost_us", 1.0)
    with pytest.raises(ZeroDivisionError):
        plane.executor.start(plane.lane, x(1))


def test_outputs_without_a_batch_dimension_cannot_be_divided(make: Make) -> None:
    plane = make(Runner(cost_us=1.0))
    for outputs, message in (
        ({"y": np.float32(1)}, "Batched output tensor has 0 dimensions"),
        ({"y": np.zeros([3, 2])}, "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension"),
    ):
        object.__setattr__(plane.runner._buckets[4], "run", lambda *_, o=outputs: o)
        with pytest.raises(ServingError) as caught:
            plane.executor.start(plane.lane, x(1, 2))
        assert caught.value.code is Code.FAILED_PRECONDITION
        assert caught.value.message.startswith(message)


def test_many_threads_and_every_answer_is_the_callers_own(make: Make) -> None:
    plane = make(Runner(cost_us=200.0), runners=3)
    wrong: list[object] = []

    def client(base: float) -> None:
        for i in range(100):
            sent = [base + i, base + i + 0.5][: 1 + i % 2]
            got = values(plane.executor.start(plane.lane, x(*sent)))
            if got != [2 * v for v in sent]:
                wrong.append((sent, got))

    threads = [threading.Thread(target=client, args=(1000.0 * t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert sum(plane.counted("requests").values()) == 800
    assert plane.metrics.queue_depth.labels().value == plane.metrics.busy_runners.labels().value == 0


def test_the_inline_path_adds_little_to_a_run(make: Make) -> None:
    """Calls of any kind, because times on a shared machine say little."""
    plane = make(Runner(cost_us=10.0))
    feeds = x(1)
    object.__setattr__(plane.runner._buckets[1], "run", lambda feeds, _outputs: feeds)
    plane.executor.start(plane.lane, feeds)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event.endswith("call") else None)
    try:
        plane.executor.start(plane.lane, feeds)
    finally:
        sys.setprofile(None)
    assert len(calls) <= INLINE_CALLS, calls


def test_constants_are_ordered() -> None:
    assert 0 < module.HOP_US < module.INLINE_LIMIT_US
