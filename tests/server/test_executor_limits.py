"""What a request may cost, with a fake engine: late, cancelled, too many, in TensorFlow Serving's batches."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.errors import Code, ServingError

from tests.server.executing import Make, failure, values
from tests.server.fakes import Runner, x


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
