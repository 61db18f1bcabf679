"""A client's config through two workers' loaders in one process: real folders, fake models, real threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_protos import messages
from tfopt_server import model_config
from tfopt_server.config_board import ConfigBoard
from tfopt_server.errors import Code, ServingError
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Specific
from tfopt_server.loading import Loader, ModelConfig, Schedule
from tfopt_server.metrics import Metrics
from tfopt_server.model_config import Models
from tfopt_server.preparing import LoadError, LoadOptions, Source
from tfopt_server.registry import Loaded, Registry
from tfopt_server.reload_calls import ReloadCalls
from tfopt_server.reloading import Reloader

from tests.server.fakes import Runner


class Servable:
    def close(self) -> None:
        return


class Worker:
    """`broken`: names whose loads fail; `slow`: seconds of a load."""

    def __init__(self, base: Path, board: ConfigBoard, seat: int, ahead: bool = False, number: int = 0) -> None:
        self.broken: set[str] = set()
        self.slow = 0.0
        models = Models((ModelConfig("first", base / "first"),))
        self.registry = Registry(["first"])
        self.reloader = reloader = Reloader(self.registry, models, ahead, board, seat, number)
        self.loader = Loader(
            models.configs, self.registry, LoadOptions(OptimizerFlags(), base), Schedule(None, retries=0), Metrics(),
            prepare=self.prepare, reconfigured=reloader.look, settled=reloader.settle,
        )  # fmt: skip
        self.calls = ReloadCalls(self.registry, board, seat, ahead, self.loader.wake, reloader)
        self.loader.start()
        self.calls.start()

    def prepare(self, source: Source, options: LoadOptions, metrics: Metrics) -> Loaded:
        time.sleep(self.slow)
        if source.model in self.broken:
            raise LoadError(Code.NOT_FOUND, "no such thing")
        lanes = {"serving_default": Lane(source.model, Runner(), metrics, parameters=None)}
        return Loaded(Servable(), lanes, None, "a fake", {})  # type: ignore[arg-type]

    def stop(self) -> None:
        self.calls.stop()
        self.loader.stop(5)

    @property
    def serving(self) -> list[tuple[str, int]]:
        return [(v.name, v.number) for v in self.registry.available()]


class House:
    def __init__(self, base: Path, seats: int, ahead: bool) -> None:
        self.base = base
        for name in ("first", "second", "third"):
            (base / name / "1").mkdir(parents=True)
            (base / name / "1" / "saved_model.pb").write_text(name)
        self.board = ConfigBoard(seats)
        self.workers = [Worker(base, self.board, seat, ahead) for seat in self.board.seats]
        self.until(lambda: all(w.serving == [("first", 1)] for w in self.workers))

    def config(self, *names: str, **labels: int) -> Any:
        proto = messages.message("tensorflow.serving.ModelServerConfig")()
        proto.model_config_list.SetInParent()
        for name in names:
            one = proto.model_config_list.config.add(name=name, model_platform="tensorflow")
            one.base_path = str(self.base / name)
            for label, version in labels.items():
                one.version_labels[label] = version
        return proto

    def reload(self, *names: str, **labels: int) -> Future[None]:
        return self.workers[0].calls.begin(self.config(*names, **labels))

    @staticmethod
    def until(ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.005)


def test_what_is_configured_is_never_half_the_old_and_half_the_new(tmp_path: Path, monkeypatch: Any) -> None:
    """A call by name on another thread changes what `current` says: with the new number and the old models it would
    take back what another client had just configured."""
    board = ConfigBoard(1)
    first, both = (Models(tuple(ModelConfig(n, tmp_path / n) for n in names)) for names in (["a"], ["a", "b"]))
    reloader = Reloader(Registry(["a"]), first, False, board, 1, 0)
    number = board.post(model_config.to_proto(both).SerializeToString())
    read, said = model_config.from_bytes, []

    def reading(data: bytes) -> Models:
        found = read(data)
        with monkeypatch.context() as undone:
            undone.setattr(model_config, "from_bytes", read)
            said.append(reloader.current())
        return found

    monkeypatch.setattr(model_config, "from_bytes", reading)
    reloader.look()
    assert said == [(number, both)]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., House]]:
    houses = []

    def one(seats: int = 2, ahead: bool = False) -> House:
        houses.append(House(tmp_path, seats, ahead))
        return houses[-1]

    yield one
    for house in houses:
        for worker in house.workers:
            worker.stop()


def test_the_call_is_answered_when_every_worker_serves_the_new_models(make: Callable[..., House]) -> None:
    house = make()
    house.workers[1].slow = 0.3
    house.reload("second", "third").result(20)
    assert [w.serving for w in house.workers] == [[("second", 1), ("third", 1)]] * 2
    house.until(lambda: all(w.registry.history("first")[0].state.name == "END" for w in house.workers))


def test_the_same_config_again_and_an_empty_one_are_allowed(make: Callable[..., House]) -> None:
    house = make()
    house.reload("first").result(20)
    assert house.workers[1].serving == [("first", 1)]
    house.reload().result(20)
    house.until(lambda: [w.serving for w in house.workers] == [[], []])
    assert all(w.registry.ready() for w in house.workers)


def test_models_are_unloaded_and_loaded_by_name_whichever_worker_hears_it(make: Callable[..., House]) -> None:
    house = make()
    house.reload("first", "second").result(20)
    house.workers[1].calls.unload("first").result(20)
    house.until(lambda: all(w.serving == [("second", 1)] for w in house.workers))
    house.workers[0].calls.load("first").result(20)
    house.workers[1].calls.load("third", str(house.base / "third")).result(20)
    assert [w.serving for w in house.workers] == [[("first", 1), ("second", 1), ("third", 1)]] * 2
    with pytest.raises(ServingError, match=r"expected a model that was configured once \(first, second, third\)"):
        house.workers[0].calls.load("fourth")
    with pytest.raises(ServingError, match="base_path: expected a folder, gs://"):
        house.workers[0].calls.load("fifth", "ftp://there/m")
    with pytest.raises(ServingError, match="Expected model fifth to have an absolute path or URI"):
        house.workers[0].calls.load("fifth", "here/m")
    with pytest.raises(ServingError, match="expected a model that is served"):
        house.workers[0].calls.unload("fourth")


def test_changes_by_name_at_the_same_time_are_all_kept(make: Callable[..., House]) -> None:
    house = make()
    changes = [("second", 0), ("third", 1)]
    with ThreadPoolExecutor(2) as pool:
        begun = list(pool.map(lambda c: house.workers[c[1]].calls.load(c[0], str(house.base / c[0])), changes))
    for each in begun:
        each.result(20)
    house.until(lambda: all(len(w.serving) == 3 for w in house.workers))


def test_policies_and_labels_survive_a_change_by_name(make: Callable[..., House]) -> None:
    house = make(1, ahead=True)
    config = house.config("first", "second", stable=1)
    config.model_config_list.config[0].model_version_policy.specific.versions.append(1)
    house.workers[0].calls.begin(config).result(20)
    house.workers[0].calls.unload("second").result(20)
    house.workers[0].calls.load("second").result(20)
    _, models = house.workers[0].reloader.current()
    assert models.labels == {"first": {"stable": 1}, "second": {"stable": 1}}
    assert models.configs[0].policy == Specific(frozenset({1}))


def test_a_model_that_does_not_load_anywhere_is_named_and_the_others_serve(make: Callable[..., House]) -> None:
    house = make()
    house.workers[1].broken.add("third")
    with pytest.raises(ServingError) as raised:
        house.reload("first", "second", "third").result(20)
    assert (raised.value.code, raised.value.message) == (
        Code.UNKNOWN,
        "1 model(s) did not become available: {{{name: third version: 1} due to error: NOT_FOUND: no such thing}, }",
    )
    assert house.workers[1].serving == [("first", 1), ("second", 1)]
    assert all(w.loader.failure() == "" for w in house.workers)


def test_a_config_that_comes_meanwhile_takes_its_place_and_answers_both(make: Callable[..., House]) -> None:
    house = make(1)
    house.workers[0].slow = 0.2
    first = house.reload("first", "second", "third")
    last = house.reload("first", "third")
    last.result(20)
    first.result(20)
    house.until(lambda: house.workers[0].serving == [("first", 1), ("third", 1)])


def test_labels_need_an_available_version(make: Callable[..., House]) -> None:
    house = make()
    with pytest.raises(ServingError) as raised:
        house.reload("first", stable=7)
    assert (raised.value.code, raised.value.message) == (
        Code.FAILED_PRECONDITION,
        "Request to assign label to version 7 of model first, which is not currently available for inference",
    )
    assert house.board.number == 0
    house.reload("first", stable=1).result(20)
    assert [dict(w.registry.labels("first")) for w in house.workers] == [{"stable": 1}] * 2


def test_labels_ahead_may_be_new_but_not_moved_to_what_does_not_serve(make: Callable[..., House]) -> None:
    house = make(1, ahead=True)
    house.reload("first", next=7, stable=1).result(20)
    assert house.workers[0].registry.labels("first") == {"next": 7, "stable": 1}
    house.reload("first", next=7, stable=1).result(20)
    with pytest.raises(ServingError, match="Request to assign label to version 8 of model first"):
        house.reload("first", stable=8)


def test_what_cannot_be_served_changes_nothing(make: Callable[..., House]) -> None:
    house = make(1)
    for broken, text in (
        (house.config("first", "first"), "Illegal to list model first multiple times in config list"),
        (messages.from_text("tensorflow.serving.ModelServerConfig",
                            'model_config_list { config { name: "m" base_path: "m" model_platform: "tensorflow" } }'),
         "Expected model m to have an absolute path or URI; got base_path()=m"),
    ):  # fmt: skip
        with pytest.raises(ServingError) as raised:
            house.workers[0].calls.begin(broken)
        assert (raised.value.code, raised.value.message) == (Code.INVALID_ARGUMENT, text)
    assert (house.board.number, house.workers[0].serving) == (0, [("first", 1)])


def test_a_client_that_gives_up_stops_nothing(make: Callable[..., House]) -> None:
    house = make(1)
    house.workers[0].slow = 0.2
    assert house.reload("second").cancel()
    house.until(lambda: house.workers[0].serving == [("second", 1)])
