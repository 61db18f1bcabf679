"""An executor over a fake engine, and what came of its requests."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.errors import Code, ServingError
from tfopt_server.executor import Executor
from tfopt_server.lanes import Lane
from tfopt_server.metrics import Metrics
from tfopt_server.tasks import Result

from tests.server.fakes import Runner, x


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


Make = Callable[..., Plane]


def values(answer: Future[Result] | Result) -> list[float]:
    result = answer.result(10) if isinstance(answer, Future) else answer
    return [float(v) for v in result.outputs["y"][:, 0]]


def failure(answer: Future[Result]) -> tuple[Code, str]:
    error = answer.exception(10)
    assert isinstance(error, ServingError)
    return error.code, error.message
