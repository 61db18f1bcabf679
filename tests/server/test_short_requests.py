"""Requests of exactly a short bucket's rows take a way of their own through the executor: same answers, same counts."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tfopt_server import tasks
from tfopt_server.errors import Code, ServingError
from tfopt_server.executor import Executor
from tfopt_server.lanes import HOP_US, Lane
from tfopt_server.metrics import Metrics
from tfopt_server.tasks import Result

from tests.server.fakes import POISON, Runner, x


def counts(cost_us: float, rows: int) -> tuple[list[float], dict[str, dict[tuple[str, ...], float]]]:
    """The answer to one request and what was counted for it."""
    metrics = Metrics()
    executor = Executor(metrics, 1)
    lane = Lane("m", Runner(cost_us, merge=False), metrics, parameters=None)
    answer = executor.start(lane, x(*range(rows)))
    assert isinstance(answer, Result)
    assert lane.runner.engine.threads == [threading.current_thread().name]  # type: ignore[attr-defined]
    counted = {
        name: {key: child.value for key, child in getattr(metrics, name).children().items()}
        for name in ("requests", "rows", "padding_rows")
    }
    counted["runs"] = {("run",): lane.steps.run.count, ("batches",): lane.batch_requests.count}
    counted["runtime"] = {key: child.count for key, child in metrics.runtime_latency.children().items()}
    return [float(v) for v in answer.outputs["y"][:, 0]], counted


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_a_short_request_is_answered_and_counted_as_a_longer_one_on_the_same_thread(rows: int) -> None:
    assert counts(HOP_US, rows) == counts(HOP_US + 1, rows)


def test_rows_that_fill_no_bucket_are_padded_whatever_it_costs() -> None:
    answer, counted = counts(HOP_US, 3)
    assert answer == [0.0, 2.0, 4.0]
    assert list(counted["padding_rows"].values()) == [1.0]


def test_what_the_engine_refuses_reaches_the_client_as_its_own_code_and_text() -> None:
    metrics = Metrics()
    lane = Lane("m", Runner(HOP_US), metrics, parameters=None)
    with pytest.raises(ServingError) as refused:
        Executor(metrics, 1).start(lane, x(POISON))
    assert (refused.value.code, refused.value.message) == (Code.INVALID_ARGUMENT, "poisoned: 1 of 1 rows")


@pytest.mark.parametrize(
    ("array", "long"),
    [
        (np.zeros(1 << 18, np.float32), True),
        (np.zeros((1 << 18) - 1, np.float32), False),
        (np.full(4096, b"a text of some length", object), True),
        (np.full(4095, b"a text of some length", object), False),
        (np.zeros(4096, np.float64), False),
    ],
)
def test_which_answers_are_written_on_a_thread(array: np.ndarray, long: bool) -> None:
    """Strings by their number: the array holds pointers, however long the texts are."""
    assert tasks.is_long(tasks.Result({"small": np.zeros(1), "y": array}, tasks.Timings(0, 0, 0, 0, 1))) is long
