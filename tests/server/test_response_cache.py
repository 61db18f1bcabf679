"""The response cache: what is the same request, what is never remembered, what makes room."""

from __future__ import annotations

import logging
import threading
import tracemalloc
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfopt_server import response_cache
from tfopt_server.dataplane import Layered, ModelSpec
from tfopt_server.errors import ServingError
from tfopt_server.executor import Executor
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Event
from tfopt_server.metrics import Metrics
from tfopt_server.registry import Loaded, Registry, Version
from tfopt_server.response_cache import ResponseCache

from tests.server.fakes import POISON, Runner, x

# Of the answer to one row: y is two float32, n an int64.
SIZE = response_cache.ENTRY_BYTES + 2 * response_cache.ARRAY_BYTES + 8 + 8


class Served:
    """Model m behind a cache, with a clock to turn."""

    def __init__(self, limit: int = 10_000, cacheable: Any = ("serving_default", "other"), **options: Any) -> None:
        self.metrics, self.registry = Metrics(), Registry(["m"])
        self.now = 0.0
        self.learned = threading.Event()

        def look(folder: Path, tags: Any) -> Any:
            if isinstance(cacheable, Exception):
                raise cacheable
            return cacheable

        self.cache = ResponseCache(self.metrics, limit, 60.0, look=look, clock=lambda: self.now, **options)
        self.plane = Layered(self.registry, Executor(self.metrics, 1), self.metrics, None, [self.cache.around])
        self.engines: list[Any] = []
        self.version = self.load(4)

    def loaded(self, version: int) -> Loaded:
        runners = {key: Runner(1.0, key=key) for key in ("serving_default", "other")}
        self.engines.append(runners["serving_default"].engine)
        lanes = {key: Lane("m", runner, self.metrics, parameters=None) for key, runner in runners.items()}
        return Loaded(None, lanes, None, f"version {version}", {})  # type: ignore[arg-type]

    def load(self, number: int) -> Version:
        version = self.registry.add("m", number, Path(f"/models/m/{number}"))
        self.registry.move(version, Event.LOAD)
        version.loaded = self.loaded(number)
        self.registry.move(version, Event.READY)
        return version

    def ask(self, *rows: float, key: str = "", outputs: Any = None, version: int | None = None, **rest: Any) -> Any:
        with self.plane.resolve(ModelSpec("m", version)) as handle:
            answer = self.plane.start(handle, key, x(*rows), outputs, **rest)
            return (answer.result(10) if isinstance(answer, Future) else answer).outputs

    def settle(self) -> None:
        """Asks once, and waits until it is known what may be cached."""
        self.ask(-1, api="Explain")
        for thread in threading.enumerate():
            if thread.name == "tfopt-cache":
                thread.join(10)

    def counted(self) -> tuple[float, float]:
        return tuple(self.metrics.cached.labels("m", what).value for what in ("hit", "miss"))  # type: ignore[return-value]

    def forget_runs(self) -> None:
        for engine in self.engines:
            engine.runs.clear()
            engine.threads.clear()

    @property
    def runs(self) -> int:
        return sum(len(engine.runs) for engine in self.engines)


@pytest.fixture
def served() -> Served:
    found = Served()
    found.settle()
    return found


def test_the_same_request_runs_once(served: Served) -> None:
    first, before = served.ask(1, 2), served.runs
    again = served.ask(1, 2)
    assert again["y"].tolist() == first["y"].tolist() == [[2.0, 2.0], [4.0, 4.0]]
    assert served.runs == before
    assert served.counted() == (1, 1)
    with pytest.raises(ValueError, match="read-only"):
        again["y"][0] = 0


def test_what_makes_another_request(served: Served) -> None:
    served.ask(1, 2)
    for rest in ({"key": "other"}, {"outputs": ("y",)}, {"outputs": ("n",)}):
        served.ask(1, 2, **rest)
    served.ask(2, 1)
    served.ask(1)
    assert served.counted() == (0, 6)
    assert list(served.ask(1, 2, outputs=("n",))) == ["n"]
    assert served.counted() == (1, 6)
    with served.plane.resolve(ModelSpec("m")) as handle:  # the same bytes of another shape or dtype
        array = x(1, 2)["x"]
        for other in (array.reshape(1, -1), array.view(np.int32)):
            served.plane.start(handle, "", {"x": other})
    assert served.counted() == (1, 8)


def test_answers_grow_old(served: Served) -> None:
    served.ask(1)
    served.now = 59.9
    served.ask(1)
    served.now = 60.0
    served.ask(1)
    assert served.counted() == (1, 2)


def test_the_least_recently_used_make_room() -> None:
    served = Served(limit=6 * SIZE)
    served.settle()
    for i in range(6):
        served.ask(i)
    served.ask(0)  # used again: 1 is now the oldest
    served.ask(6)
    hits = served.counted()[0]
    for i in (0, 2, 6):
        served.ask(i)
    assert served.counted()[0] == hits + 3
    served.ask(1)
    assert served.counted()[0] == hits + 3
    assert served.metrics.cached_bytes.labels("m").value == 6 * SIZE


def test_what_an_answer_takes_counts_and_not_only_its_values() -> None:
    """Thousands of answers of one number are mostly overhead."""
    served = Served(limit=400_000)
    served.settle()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(3000):
            served.ask(1000 + i)
            served.forget_runs()
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()


def test_an_answer_that_would_push_out_all_others_is_not_kept() -> None:
    served = Served(limit=3 * SIZE)
    served.settle()
    served.ask(1)
    served.ask(1)
    assert served.counted() == (0, 2)


def test_versions_answer_for_themselves(served: Served) -> None:
    served.load(5)
    served.ask(1, version=4)
    served.settle()
    before = served.runs
    served.ask(1, version=5)
    assert served.runs == before + 1
    served.ask(1, version=4)
    assert served.counted()[0] == 1


def test_a_version_that_is_replaced_begins_empty(served: Served) -> None:
    served.ask(1)
    served.version.replace(served.loaded(4))
    served.settle()
    assert served.counted()[0] == 0
    assert served.metrics.cached_bytes.labels("m").value == 0
    before = served.runs
    served.ask(1)
    assert served.runs == before + 1


def test_errors_are_not_remembered(served: Served) -> None:
    before = served.runs
    for _ in range(2):
        with pytest.raises(ServingError, match="poisoned"):
            served.ask(POISON)
    assert served.runs == before + 2


def test_explanations_and_other_models_are_left_alone(served: Served) -> None:
    served.ask(1, api="Explain")
    served.ask(1, api="Explain")
    assert served.counted() == (0, 0)
    other = Served(models=("another",))
    other.settle()
    other.ask(1)
    assert other.counted() == (0, 0)


@pytest.mark.parametrize("cacheable", [(), ("other",), OSError("unreadable")])
def test_signatures_that_depend_on_more_than_their_inputs_are_never_cached(cacheable: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        served = Served(cacheable=cacheable)
        served.settle()
    before = served.runs
    served.ask(1)
    served.ask(1)
    assert served.runs == before + 2
    assert "not cached" in caplog.text
    assert served.counted() == (0, 0)


def test_which_signatures_of_real_models_may_be_cached(savedmodel: Any) -> None:
    assert response_cache.cacheable(savedmodel("counter"), ("serve",)) == frozenset()
    assert "serving_default" in response_cache.cacheable(savedmodel("half_plus_two"), ("serve",))
    assert "serving_default" in response_cache.cacheable(savedmodel("lookup"), ("serve",))
    assert response_cache.cacheable(savedmodel("outside"), ("serve",)) == {"plain"}
