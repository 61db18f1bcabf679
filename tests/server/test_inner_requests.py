"""Requests of different lengths through the executor: padded up to an inner bucket, merged there, their answers cut."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from tfopt_optimizer.errors import Declined
from tfopt_optimizer.fitting import InnerBuckets
from tfopt_optimizer.plan import Axis, InnerBucket, InnerDimension, InnerPlan, SignatureInfo, SignaturePlan, TensorInfo
from tfopt_optimizer.signature_runner import Bucket, SignatureRunner
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.executor import Executor
from tfopt_server.lanes import Lane
from tfopt_server.metrics import Metrics
from tfopt_server.tasks import Result

ODD = 99
INFO = SignatureInfo(
    "serving_default",
    "predict",
    (TensorInfo("tokens", "int32", (None, None)),),
    (TensorInfo("sum", "int32", (None,)), TensorInfo("twice", "int32", (None, None))),
)
LENGTHS = (4, 8, 32)
Arrays = dict[str, np.ndarray]


class Model:
    """Sums of tokens, where 0 is padding. Buckets of 1 and 4 rows by 4 and 8 tokens; not padded up to 32, where nothing
    was won. Notes the shape of every run."""

    def __init__(self, cost_us: float, padded: bool = True) -> None:
        self.ran: list[tuple[str, tuple[int, ...]]] = []
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.gate.set()
        dimension = InnerDimension((Axis("tokens", 1),), (Axis("twice", 1),))
        inner = InnerPlan(
            (dimension,), tuple(InnerBucket((n,), n if n == 32 else 1) for n in LENGTHS), padded, "", (1,)
        )
        plan = SignaturePlan(INFO, True, "proven", True, "measured", (), inner=inner)

        def buckets(length: int) -> list[Bucket]:
            return [Bucket(n, "fake", True, cost_us, self._engine, {"tokens": (n, length)}, (length,)) for n in (1, 4)]

        runners = {(n,): SignatureRunner(plan, buckets(n), self._plain) for n in LENGTHS}
        self.runner = runners[8,]
        self.runner.inner = InnerBuckets(inner, runners)

    def _engine(self, feeds: Arrays, outputs: object) -> Arrays:
        self.entered.release()
        assert self.gate.wait(10)
        if (feeds["tokens"] == ODD).any():
            raise Declined("INVALID_ARGUMENT", "99 is outside the table")
        return self._answer("engine", feeds)

    def _plain(self, feeds: Arrays, outputs: object = None) -> Arrays:
        return self._answer("plain", feeds)

    def _answer(self, who: str, feeds: Arrays) -> Arrays:
        self.ran.append((who, feeds["tokens"].shape))
        return {"sum": feeds["tokens"].sum(1, dtype=np.int32), "twice": 2 * feeds["tokens"]}


class Plane:
    def __init__(self, model: Model, parameters: BatchingParameters | None = None) -> None:
        self.model, self.metrics = model, Metrics()
        self.executor = Executor(self.metrics, 1)
        self.lane = Lane("m", model.runner, self.metrics, parameters=parameters)

    def start(self, *rows: list[int]) -> Future[Result] | Result:
        return self.executor.start(self.lane, {"tokens": np.array(rows, np.int32)})

    def counted(self, name: str) -> float:
        return sum(child.value for child in getattr(self.metrics, name).children().values())


@pytest.fixture
def planes() -> Iterator[list[Plane]]:
    made: list[Plane] = []
    yield made
    for plane in made:
        plane.model.gate.set()
        plane.executor.finish(10)


def outputs(answer: Future[Result] | Result) -> Arrays:
    return (answer.result(10) if isinstance(answer, Future) else answer).outputs


@pytest.mark.parametrize("cost_us", [20.0, 5000.0])  # on the caller's thread, and queued
@pytest.mark.parametrize(
    ("length", "ran"),
    [
        (8, ("engine", (1, 8))),
        (4, ("engine", (1, 4))),
        (3, ("engine", (1, 4))),
        (5, ("engine", (1, 8))),
        (9, ("plain", (1, 9))),  # padding up to 32 would be slower than plain TensorFlow
        (32, ("engine", (1, 32))),
        (33, ("plain", (1, 33))),
    ],
)
def test_a_request_goes_to_the_next_inner_bucket_and_its_answer_is_cut(planes, cost_us, length, ran):
    planes.append(plane := Plane(Model(cost_us)))
    found = outputs(plane.start(list(range(1, length + 1))))
    assert {name: array.tolist() for name, array in found.items()} == {
        "sum": [length * (length + 1) // 2],
        "twice": [[2 * n for n in range(1, length + 1)]],
    }
    assert plane.model.ran == [ran]
    assert plane.counted("inner_padded") == (ran[0] == "engine" and ran[1][1] != length)
    assert plane.counted("fallbacks") == (ran[0] == "plain")


def test_requests_of_different_lengths_merge_in_the_bucket_that_both_are_padded_to(planes):
    planes.append(plane := Plane(Model(5000.0)))
    plane.model.gate.clear()
    busy = plane.start([1] * 8)
    assert plane.model.entered.acquire(timeout=10)
    # one of exactly the first bucket's length is among them
    waiting = [plane.start([1, 2]), plane.start([1] * 7, [2] * 7), plane.start([5, 5, 5]), plane.start([3] * 8)]
    assert plane.lane.users >= 5
    plane.model.gate.set()
    assert [outputs(answer)["sum"].tolist() for answer in [busy, *waiting]] == [[8], [3], [7, 14], [15], [24]]
    assert [outputs(answer)["twice"].shape for answer in waiting] == [(1, 2), (2, 7), (1, 3), (1, 8)]
    assert sorted(plane.model.ran[1:]) == [("engine", (4, 4)), ("engine", (4, 8))]
    plane.executor.finish(10)
    assert plane.lane.users == 0


@pytest.mark.parametrize("cost_us", [20.0, 5000.0])
def test_values_that_an_engine_declines_are_answered_by_plain_tensorflow_as_they_are_padded(planes, cost_us):
    planes.append(plane := Plane(Model(cost_us)))
    found = outputs(plane.start([ODD, 1, 1]))
    assert (found["sum"].tolist(), found["twice"].shape) == ([101], (1, 3))
    assert plane.model.ran == [("plain", (1, 4))]
    assert plane.counted("fallbacks") == 1


def test_a_request_larger_than_the_largest_bucket_is_cut_in_rows_too(planes):
    planes.append(plane := Plane(Model(5000.0)))
    found = outputs(plane.start(*([n, n, n] for n in range(6))))
    assert found["sum"].tolist() == [0, 3, 6, 9, 12, 15]
    assert found["twice"].shape == (6, 3)


def test_without_a_proof_nothing_is_padded(planes):
    planes.append(plane := Plane(Model(20.0, padded=False)))
    assert outputs(plane.start([1, 2, 3]))["sum"].tolist() == [6]
    assert outputs(plane.start([1, 2, 3, 4]))["sum"].tolist() == [10]
    assert plane.model.ran == [("plain", (1, 3)), ("engine", (1, 4))]
    assert (plane.counted("fallbacks"), plane.counted("inner_padded")) == (1, 0)


def test_padding_by_tensorflow_servings_rule_is_left_to_it(planes):
    parameters = BatchingParameters(max_batch_size=4, batch_timeout_micros=0, pad_variable_length_inputs=True)
    planes.append(plane := Plane(Model(20.0), parameters))
    assert plane.lane.inner is None
    assert outputs(plane.start([1, 2, 3]))["sum"].tolist() == [6]


def test_what_the_servable_runs_by_itself_takes_the_same_way():
    model = Model(20.0)
    found = model.runner.run({"tokens": np.array([[1, 2, 3], [4, 5, 6]], np.int32)})
    assert (found["sum"].tolist(), found["twice"].shape, model.ran) == ([6, 15], (2, 3), [("engine", (4, 4))])
    assert [b.shapes["tokens"] for b in model.runner.all_buckets()] == [
        *[(1, 8), (4, 8), (1, 4), (4, 4), (1, 32), (4, 32)],
    ]
