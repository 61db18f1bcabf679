"""Requests whose bucket the device has no memory for: answered all the same, and the bucket is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from tfopt_optimizer.errors import OutOfMemory
from tfopt_optimizer.plan import SignatureInfo, SignaturePlan, TensorInfo
from tfopt_optimizer.signature_runner import Bucket, SignatureRunner
from tfopt_server.executor import Executor
from tfopt_server.lanes import HOP_US, Lane
from tfopt_server.metrics import Metrics
from tfopt_server.tasks import Result

from tests.server.fakes import x

INFO = SignatureInfo("serving_default", "predict", (TensorInfo("x", "float", (None, 2)),), ())


class Device:
    """Doubles what it is given, as long as that is at most `room` rows."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.runs: list[int] = []
        self.plain: list[int] = []

    def run(self, feeds: dict[str, np.ndarray], outputs: object = None) -> dict[str, np.ndarray]:
        if len(feeds["x"]) > self.room:
            raise OutOfMemory("Out of memory allocating 17179869184 bytes.")
        self.runs.append(len(feeds["x"]))
        return {"y": 2 * feeds["x"]}

    def reference(self, feeds: dict[str, np.ndarray], outputs: object = None) -> dict[str, np.ndarray]:
        self.plain.append(len(feeds["x"]))
        return {"y": 2 * feeds["x"]}


class Plane:
    def __init__(self, room: int, cost_us: float, independent: bool = True) -> None:
        self.device, self.metrics = Device(room), Metrics()
        plan = SignaturePlan(INFO, independent, "", independent, "", ())
        sizes: tuple[int | None, ...] = (1, 4, 8) if independent else (None,)
        buckets = [Bucket(n, "xla/gpu", True, cost_us * (n or 1), self.device.run, {"x": (n or 3, 2)}) for n in sizes]
        self.runner = SignatureRunner(plan, buckets, self.device.reference)
        self.executor = Executor(self.metrics, 2)
        self.lane = Lane("m", self.runner, self.metrics, parameters=None)  # type: ignore[arg-type]

    def ask(self, *values: float) -> list[float]:
        answer = self.executor.start(self.lane, x(*values))
        result = answer.result(10) if isinstance(answer, Future) else answer
        assert isinstance(result, Result)
        return [float(v) for v in result.outputs["y"][:, 0]]

    def dropped(self) -> list[str]:
        return [key[-1] for key in self.metrics.buckets_dropped.children()]


Make = Callable[..., Plane]


@pytest.fixture
def make() -> Iterator[Make]:
    planes: list[Plane] = []

    def build(*args: object, **more: object) -> Plane:
        planes.append(Plane(*args, **more))  # type: ignore[arg-type]
        return planes[-1]

    yield build
    for plane in planes:
        plane.executor.finish(10)


@pytest.mark.parametrize("cost_us", [HOP_US / 10, HOP_US, 5000.0])  # at once, on the caller's thread, from the queue
def test_smaller_buckets_take_the_rows_of_one_that_does_not_fit(
    make: Make, cost_us: float, caplog: pytest.LogCaptureFixture
) -> None:
    plane = make(4, cost_us)
    eight = [float(n) for n in range(8)]
    assert plane.ask(*eight) == [2 * n for n in eight]
    assert (plane.runner.buckets, plane.dropped(), plane.device.runs, plane.device.plain) == ((1, 4), ["8"], [4, 4], [])
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "signature serving_default of model m: the bucket of 8 rows is dropped, xla/gpu has no memory for it: "
        "Out of memory allocating 17179869184 bytes.; left: 1, 4"
    ]
    assert plane.lane.rule.limit == 4
    eleven = [float(n) for n in range(11)]
    assert plane.ask(*eleven) == [2 * n for n in eleven]
    assert max(plane.device.runs) == 4
    assert len(caplog.records) == 1


def test_merged_requests_each_get_their_own_rows(make: Make) -> None:
    plane = make(1, 5000.0)
    answers = [plane.executor.start(plane.lane, x(float(n))) for n in range(40)]
    found = [a.result(10) for a in answers if isinstance(a, Future)]
    assert [float(r.outputs["y"][0, 0]) for r in found] == [2.0 * n for n in range(40)]
    assert set(plane.device.runs) == {1}


@pytest.mark.parametrize("cost_us", [HOP_US / 10, 5000.0])
def test_plain_tensorflow_stands_in_for_the_last_bucket(make: Make, cost_us: float) -> None:
    plane = make(0, cost_us)
    assert plane.ask(1.0, 2.0, 3.0) == [2.0, 4.0, 6.0]
    assert plane.ask(*range(20)) == [2.0 * n for n in range(20)]
    assert sorted(plane.dropped()) == ["1", "4", "8"]
    assert (plane.device.runs, sum(plane.device.plain)) == ([], 23)


@pytest.mark.parametrize("cost_us", [HOP_US / 10, 5000.0])
def test_rows_that_depend_on_each_other_stay_together(make: Make, cost_us: float) -> None:
    plane = make(0, cost_us, independent=False)
    assert plane.ask(1.0, 2.0, 3.0) == [2.0, 4.0, 6.0]
    assert plane.ask(1.0, 2.0, 3.0) == [2.0, 4.0, 6.0]
    assert (plane.dropped(), plane.device.plain) == (["any"], [3, 3])
