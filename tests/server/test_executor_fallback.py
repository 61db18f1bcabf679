"""Requests that plain TensorFlow answers, with a fake engine: outside the plan, declined, without rows."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.tasks import Result

from tests.server.executing import Make, values
from tests.server.fakes import ODD, Runner, x


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
        for sent in ((ODD,), (1.0, ODD, 2.0)):
            answer = plane.queue(*sent).result(10)
            np.testing.assert_array_equal(answer.outputs["y"], 2 * x(*sent)["x"])
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
