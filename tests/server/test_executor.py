"""Running requests, with a fake engine: inline, merged, split, refused, late, cancelled."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from tfopt_server import executor as module
from tfopt_server import logs
from tfopt_server.batching import Company
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.errors import Code, ServingError
from tfopt_server.executor import Executor
from tfopt_server.lanes import Lane
from tfopt_server.metrics import Metrics
from tfopt_server.tasks import Result

from tests.server.fakes import ODD, POISON, Runner, x


class Plane:
    """An executor with one lane, and what went through it."""

    def __init__(self, runner: Runner, runners: int = 1, parameters: BatchingParameters | None = None) -> None:
        self.metrics = Metrics()
        self.executor = Executor(self.metrics, runners)
        self.runner = runner
        self.lane = Lane("m", runner, self.metrics, parameters=parameters)

    def queue(self, *values: float, deadline: float | None = None) -> Future[Result]:
        """Sends a request from an event loop: it must not be answered on this thread."""
        answer = self.executor.start(self.lane, x(*values), deadline=deadline)
        assert isinstance(answer, Future)
        return answer

    def occupy(self) -> Future[Result]:
        """Closes the gate and sends a request that keeps the runner busy behind it."""
        self.runner.engine.gate.clear()
        busy = self.queue(0.0)
        assert self.runner.engine.entered.acquire(timeout=10)
        return busy

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        return {key: child.value for key, child in getattr(self.metrics, name).children().items()}


# Of functions, Python's and built-in ones, on the shortest way through the executor: a few microseconds.
INLINE_CALLS = 40

Make = Callable[..., Plane]


@pytest.fixture
def make() -> Iterator[Make]:
    planes: list[Plane] = []

    def build(runner: Runner | None = None, **options: object) -> Plane:
        planes.append(Plane(runner or Runner(), **options))  # type: ignore[arg-type]
        return planes[-1]

    yield build
    for plane in planes:
        plane.runner.engine.gate.set()
        plane.runner.reference.gate.set()
        plane.executor.finish(10)


def values(answer: Future[Result] | Result) -> list[float]:
    result = answer.result(10) if isinstance(answer, Future) else answer
    return [float(v) for v in result.outputs["y"][:, 0]]


def failure(answer: Future[Result]) -> tuple[Code, str]:
    error = answer.exception(10)
    assert isinstance(error, ServingError)
    return error.code, error.message


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


def test_requests_outside_the_plan_are_answered_by_plain_tensorflow_counted_and_named_once_per_shape(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make()
    odd = {"x": np.ones([3, 5], np.float32)}
    for _ in range(3):
        answer = plane.executor.start(plane.lane, odd)
        assert isinstance(answer, Future)
        assert answer.result(10).outputs["y"].tolist() == [[2.0] * 5] * 3
    assert plane.runner.engine.runs == []
    assert plane.counted("fallbacks") == {("m", "serving_default", "input 'x' is float32[...]"): 3.0}
    assert plane.counted("requests") == {("m", "serving_default", "tensorflow", "any"): 3.0}
    assert [r.getMessage() for r in caplog.records] == [
        "a request for signature serving_default of model m is outside the plan (input 'x' is float32[3, 5]) and runs "
        "on plain TensorFlow: x: float32[3, 5]"
    ]


@pytest.mark.parametrize("cost_us", [10.0, 100.0])
def test_values_that_an_engine_declines_leave_the_event_loop_for_plain_tensorflow(make, cost_us, caplog) -> None:
    """The first such request may load TensorFlow, which takes seconds."""
    plane = make(Runner(cost_us=cost_us, merge=False))
    for _ in range(2):
        for values in ((ODD,), (1.0, ODD, 2.0)):
            answer = plane.queue(*values).result(10)
            np.testing.assert_array_equal(answer.outputs["y"], 2 * x(*values)["x"])
    here = threading.current_thread().name
    assert here in plane.runner.engine.threads
    assert here not in plane.runner.reference.threads
    assert plane.counted("fallbacks") == {("m", "serving_default", "its engine declines the values"): 4}
    (line,) = [r.getMessage() for r in caplog.records if "outside the plan" in r.getMessage()]
    assert "its engine declines the values: INVALID_ARGUMENT: 777 is outside the table" in line


def test_a_request_that_an_engine_declines_does_not_take_its_neighbours_with_it(make: Make) -> None:
    plane = make()
    busy = plane.occupy()
    waiting = [plane.queue(v) for v in (1.0, ODD, 2.0)]
    plane.runner.engine.gate.set()
    for future, value in zip(waiting, (1.0, ODD, 2.0), strict=True):
        assert future.result(10).outputs["y"][0, 0] == 2 * value
    busy.result(10)
    assert plane.runner.reference.runs == [[ODD]]
    assert plane.counted("fallbacks") == {("m", "serving_default", "its engine declines the values"): 1}


def test_zero_rows_are_answered(make: Make) -> None:
    for parameters in (None, BatchingParameters(batch_timeout_micros=10**9)):
        plane = make(parameters=parameters)
        assert values(plane.queue()) == []
        assert plane.runner.reference.runs == [[]]


def test_plain_tensorflow_stays_on_the_loop_once_it_is_known_to_be_cheap(make: Make) -> None:
    plane = make()
    kinds = [type(plane.executor.start(plane.lane, x())) for _ in range(4)]
    assert kinds == [Future] * 4
    time.sleep(0.05)
    inline = 0
    for _ in range(30):
        answer = plane.executor.start(plane.lane, x())
        inline += isinstance(answer, Result)
        values(answer)
    assert inline > 15


def test_a_large_request_does_not_stay_on_the_loop_because_small_ones_were_cheap(make: Make) -> None:
    plane = make(Runner(cost_us=0.0, row_independent=False))
    for _ in range(20):
        values(plane.executor.start(plane.lane, x(1)))
    assert isinstance(plane.executor.start(plane.lane, x(1)), Result)
    assert values(plane.queue(*range(1000, 11_000)))[-1] == 21_998.0


def test_reasons_that_clients_invent_do_not_become_metric_labels_without_end(make: Make) -> None:
    plane = make()
    for i in range(50):
        plane.lane.fell_back(f"reason {i}", x(1))
    assert len(plane.counted("fallbacks")) == 21
    assert plane.counted("fallbacks")["m", "serving_default", "other"] == 30.0


class TestDeadlines:
    def test_a_request_that_is_late_already_is_refused(self, make: Make) -> None:
        plane = make()
        with pytest.raises(ServingError, match="before the request could run") as caught:
            plane.executor.start(plane.lane, x(1), deadline=time.monotonic() - 1)
        assert caught.value.code is Code.DEADLINE_EXCEEDED

    def test_a_waiting_and_a_running_request_are_answered_at_their_deadline(self, make: Make) -> None:
        plane = make()
        plane.runner.engine.gate.clear()
        soon = time.monotonic() + 0.05
        running = plane.queue(1, deadline=soon)
        assert plane.runner.engine.entered.acquire(timeout=10)
        waiting, patient = plane.queue(2, deadline=soon), plane.queue(3)
        assert failure(waiting) == (Code.DEADLINE_EXCEEDED, "Deadline exceeded while waiting for a runner")
        assert failure(running) == (Code.DEADLINE_EXCEEDED, "Deadline exceeded while the request was running")
        plane.runner.engine.gate.set()
        assert values(patient) == [6.0]
        assert plane.runner.engine.runs == [[1.0], [3.0]]

    def test_with_batching_the_text_is_tensorflow_servings(self, make: Make) -> None:
        plane = make(parameters=BatchingParameters(batch_timeout_micros=10**7))
        answer = plane.queue(1, deadline=time.monotonic() + 0.01)
        assert failure(answer) == (
            Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue",
        )  # fmt: skip


def test_a_cancelled_request_does_not_run(make: Make) -> None:
    plane = make()
    busy = plane.occupy()
    given_up, other = plane.queue(1), plane.queue(2)
    assert given_up.cancel()
    plane.runner.engine.gate.set()
    assert (values(busy), values(other)) == ([0.0], [4.0])
    assert plane.runner.engine.runs == [[0.0], [2.0]]


class TestBatchingParameters:
    def test_requests_wait_for_company_until_the_batch_is_full(self, make: Make) -> None:
        parameters = BatchingParameters(max_batch_size=4, batch_timeout_micros=10**7)
        plane = make(Runner(cost_us=1.0), parameters=parameters)
        answers = [plane.queue(v) for v in (1, 2, 3, 4)]
        assert [values(a) for a in answers] == [[2.0], [4.0], [6.0], [8.0]]
        assert plane.runner.engine.runs == [[1.0, 2.0, 3.0, 4.0]]
        assert plane.metrics.wrapped_run_count.labels().value == 1
        assert plane.metrics.input_batch_size.labels().sum == 4
        assert plane.metrics.processed_batch_size.labels().sum == 4
        assert plane.metrics.padding_size.labels(4).sum == 0
        assert plane.metrics.queuing_latency.labels("batch_threads").count == 4

    def test_a_lone_request_runs_when_its_time_is_up(self, make: Make) -> None:
        plane = make(parameters=BatchingParameters(batch_timeout_micros=20_000))
        begin = time.monotonic()
        assert values(plane.queue(1)) == [2.0]
        assert 0.02 <= time.monotonic() - begin < 5.0

    def test_limits_hold_on_every_path(self, make: Make) -> None:
        message = "Task size 5 is larger than maximum input batch size 4"
        for cost_us in (1.0, 200.0, 1000.0):
            plane = make(Runner(cost_us=cost_us), parameters=BatchingParameters(max_batch_size=4))
            with pytest.raises(ServingError, match=message) as caught:
                plane.executor.start(plane.lane, x(*range(5)))
            assert caught.value.code is Code.INVALID_ARGUMENT

    def test_a_full_queue_is_unavailable(self, make: Make) -> None:
        plane = make(parameters=BatchingParameters(max_batch_size=1, max_enqueued_batches=2))
        plane.occupy()
        waiting = [plane.queue(1), plane.queue(2)]
        with pytest.raises(ServingError, match="queue to which this task was submitted is full") as caught:
            plane.queue(3)
        assert caught.value.code is Code.UNAVAILABLE
        plane.runner.engine.gate.set()
        assert [values(a) for a in waiting] == [[2.0], [4.0]]

    def test_variable_lengths_are_padded_to_the_longest(self, make: Make) -> None:
        parameters = BatchingParameters(max_batch_size=3, batch_timeout_micros=10**7, pad_variable_length_inputs=True)
        plane = make(parameters=parameters)
        short = plane.executor.start(plane.lane, {"x": np.array([[7.0]], np.float32)})
        long = plane.executor.start(plane.lane, x(1, 2))
        assert isinstance(short, Future)
        assert isinstance(long, Future)
        assert short.result(10).outputs["y"].tolist() == [[14.0, 14.0]]
        assert values(long) == [2.0, 4.0]
        assert plane.runner.engine.runs == [[7.0, 1.0, 2.0, 7.0]]


def test_closing_finishes_what_waits_and_takes_nothing_new(make: Make) -> None:
    plane = make()
    busy = plane.occupy()
    waiting = plane.queue(1)
    threading.Timer(0.05, plane.runner.engine.gate.set).start()
    assert plane.executor.finish(10)
    assert (values(busy), values(waiting)) == ([0.0], [2.0])
    with pytest.raises(ServingError, match="shutting down"):
        plane.queue(2)


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
