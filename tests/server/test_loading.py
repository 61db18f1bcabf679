"""The loader, one round at a time: real folders, fake models, no threads and no waiting."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import threading
from pathlib import Path

import pytest
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_server import loading
from tfopt_server.awaiting import Awaited
from tfopt_server.errors import Code
from tfopt_server.improving import Improver
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import All, Latest, Policy, Specific
from tfopt_server.loading import Loader, ModelConfig, Schedule
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadError, LoadOptions, Source
from tfopt_server.registry import Loaded, Registry, Version

from tests.server.fakes import Runner


class FakeServable:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class House:
    """A repository, a loader and what it did. `broken` maps a version to the error that its load raises."""

    def __init__(self, base: Path, policy: Policy | None = None, **schedule: object) -> None:
        self.base = base
        self.now = 1000.0
        self.broken: dict[int, Exception] = {}
        self.opened: list[int] = []
        self.servables: dict[int, FakeServable] = {}
        self.metrics = Metrics()
        self.registry = Registry(["m"])
        self.loader = Loader(
            [ModelConfig("m", base, policy or Latest())],
            self.registry,
            LoadOptions(OptimizerFlags(), base),
            Schedule(**schedule),  # type: ignore[arg-type]
            self.metrics,
            prepare=self.prepare,
            clock=lambda: self.now,
        )

    def prepare(self, source: Source, options: LoadOptions, metrics: Metrics) -> Loaded:
        self.opened.append(source.version)
        if source.version in self.broken:
            raise self.broken[source.version]
        servable = self.servables[source.version] = FakeServable()
        lane = Lane(source.model, Runner(), metrics, parameters=None)
        return Loaded(servable, {"serving_default": lane}, None, "a fake", {})  # type: ignore[arg-type]

    def put(self, *numbers: int) -> None:
        for number in numbers:
            (self.base / str(number)).mkdir(parents=True)
            (self.base / str(number) / "saved_model.pb").write_text(f"model {number}")

    def remove(self, number: int) -> None:
        shutil.rmtree(self.base / str(number))

    def round(self) -> dict[int, str]:
        self.loader.round()
        return {s.version: s.state.name for s in self.registry.history("m")}

    @property
    def serving(self) -> list[int]:
        return [v.number for v in self.registry.available()]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "m")


def test_a_new_version_replaces_the_old_one_in_one_round(house: House) -> None:
    house.put(1)
    assert house.round() == {1: "AVAILABLE"}
    house.put(2)
    assert house.round() == {1: "END", 2: "AVAILABLE"}
    assert (house.opened, house.servables[1].closed, house.servables[2].closed) == ([1, 2], True, False)
    assert b'tfopt_version_available{model="m",version="2"} 1' in house.metrics.render()
    assert b'tfopt_version_available{model="m",version="1"}' not in house.metrics.render()


def test_what_did_not_go_as_planned_stands_in_the_status(house: House) -> None:
    prepare = house.loader._prepare
    house.loader._prepare = lambda *args: dataclasses.replace(prepare(*args), warning="no plan could be made: it died")
    house.put(1)
    house.round()
    status = house.registry.status("m")[0]
    assert (status.state.name, status.code, status.message) == ("AVAILABLE", Code.OK, "no plan could be made: it died")


def test_only_the_latest_is_loaded_unless_more_are_wanted(tmp_path: Path) -> None:
    for policy, opened in ((Latest(), [3]), (Latest(2), [3, 2]), (All(), [3, 2, 1])):
        house = House(tmp_path / str(len(opened)), policy)
        house.put(1, 2, 3)
        house.round()
        assert (house.opened, house.serving) == (opened, opened)


def test_a_specific_version_that_is_missing_is_named_and_the_others_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path / "m", Specific(frozenset({1, 4})))
    house.put(1, 2)
    house.round()
    house.round()
    assert house.serving == [1]
    assert caplog.text.count("versions asked for and not found") == 1


def test_the_old_version_is_given_back_when_its_last_request_is_answered(house: House) -> None:
    house.put(1)
    house.round()
    handle = house.registry.resolve("m")
    house.put(2)
    assert house.round() == {1: "UNLOADING", 2: "AVAILABLE"}
    assert house.loader._pause(house.now) == loading.UNLOAD_LOOK_S
    handle.release()
    handle.lanes["serving_default"].enter()  # its run outlives the handle
    assert house.round()[1] == "UNLOADING"
    assert not house.servables[1].closed
    handle.lanes["serving_default"].leave()
    assert house.round() == {1: "END", 2: "AVAILABLE"}
    assert house.servables[1].closed


def test_a_broken_version_is_tried_again_and_leaves_the_good_one_serving(house: House) -> None:
    house.put(1)
    house.round()
    house.put(2)
    house.broken[2] = LoadError(Code.INVALID_ARGUMENT, "bad warmup")
    seen = []
    for _ in range(8):
        seen.append(house.round()[2])
        house.now += 60
    assert seen == ["LOADING"] * 5 + ["END"] * 3
    assert (house.opened, house.serving) == ([1] + [2] * 6, [1])
    status = house.registry.status("m", 2)[0]
    assert (status.code, status.message) == (Code.INVALID_ARGUMENT, "bad warmup")
    assert house.loader.failure() == ""


def test_an_attempt_waits_its_interval_unless_the_files_changed(house: House) -> None:
    house.put(1)
    house.broken[1] = LoadError(Code.UNKNOWN, "half copied")
    house.round()
    assert house.loader._pause(house.now) == 1.0
    house.now += 59
    house.round()
    assert house.opened == [1]
    (house.base / "1" / "variables").mkdir()
    (house.base / "1" / "saved_model.pb").write_text("the rest of the model")
    del house.broken[1]
    assert house.round() == {1: "AVAILABLE"}


def test_a_server_whose_only_version_fails_for_good_says_so(tmp_path: Path) -> None:
    house = House(tmp_path / "m", retries=0)
    house.put(1)
    house.broken[1] = RuntimeError("boom")
    assert house.loader.failure() == ""
    assert house.round() == {1: "END"}
    assert house.loader.failure() == (
        "1 servable(s) did not become available: {{{name: m version: 1} due to error: INTERNAL: RuntimeError: boom}, }"
    )
    house.put(2)
    assert house.round() == {1: "END", 2: "AVAILABLE"}
    assert house.loader.failure() == ""


def test_what_cannot_mend_itself_is_not_tried_again(tmp_path: Path) -> None:
    """TensorFlow that is not installed comes with another image, not with another attempt."""
    house = House(tmp_path / "m", retries=5)
    house.put(1)
    house.broken[1] = LoadError(Code.FAILED_PRECONDITION, "TensorFlow is not installed", lasting=True)
    assert house.round() == {1: "END"}
    assert house.loader.failure().endswith("due to error: FAILED_PRECONDITION: TensorFlow is not installed}, }")


def test_versions_whose_folders_vanish_go_and_may_come_back(house: House) -> None:
    house.put(1)
    house.round()
    house.remove(1)
    assert house.round() == {1: "END"}
    assert not house.registry.ready()
    house.put(1)
    assert house.round() == {1: "AVAILABLE"}
    assert house.opened == [1, 1]


def test_rolling_back_serves_the_old_folder_again(house: House) -> None:
    house.put(1, 2)
    house.round()
    house.remove(2)
    assert house.round() == {1: "AVAILABLE", 2: "END"}


def test_a_version_that_vanishes_while_it_waits_for_another_attempt_is_given_up(house: House) -> None:
    house.put(1)
    house.broken[1] = LoadError(Code.UNKNOWN, "no")
    house.round()
    house.remove(1)
    house.base.mkdir(exist_ok=True)
    assert house.round() == {1: "END"}
    assert house.loader._attempts == {}


def test_a_version_that_vanishes_while_another_loads_is_not_tried(tmp_path: Path) -> None:
    house = House(tmp_path / "m", All())
    house.put(1, 2)
    prepare = house.loader._prepare

    def slow(*args: object) -> Loaded:
        house.remove(1)
        return prepare(*args)  # type: ignore[arg-type]

    house.loader._prepare = slow
    assert house.round() == {1: "END", 2: "AVAILABLE"}
    assert house.opened == [2]


def test_a_base_path_that_is_away_unloads_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.round()
    house.round()
    assert caplog.text.count(f"there is nothing at {house.base}") == 1
    house.put(1)
    house.round()
    house.base.rename(house.base.with_name("away"))
    assert house.round() == {1: "AVAILABLE"}


def test_a_served_model_that_is_being_overwritten_stays(house: House) -> None:
    house.put(1)
    house.round()
    (house.base / "1" / "saved_model.pb").unlink()
    assert house.round() == {1: "AVAILABLE"}


def test_half_written_versions_wait_and_are_named(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    house.put(1)
    (house.base / "2").mkdir()
    assert house.round() == {1: "AVAILABLE"}
    assert f"waiting for files under {house.base}: version 2 lacks saved_model.pb" in caplog.text
    (house.base / "2" / "saved_model.pb").write_text("model")
    assert house.round() == {1: "END", 2: "AVAILABLE"}


def test_without_polling_the_repository_is_read_once(tmp_path: Path) -> None:
    house = House(tmp_path / "m", poll_s=None)
    house.put(1)
    house.round()
    house.put(2)
    assert house.round() == {1: "AVAILABLE"}
    assert house.loader._pause(house.now) is None
    empty = House(tmp_path / "nothing", poll_s=None)
    assert empty.loader.failure() == ""
    empty.round()
    assert empty.loader.failure() == f"no version of model m found under base path {empty.base}"


def test_the_thread_runs_rounds_until_it_is_stopped(house: House) -> None:
    house.put(1)
    house.loader.start()
    house.loader.stop(10)
    assert not house.loader._thread.is_alive()


class Improving(House):
    """Loads a version without a plan first; `plans` decides what the background makes of it."""

    def __init__(self, base: Path, plans: dict[int, object]) -> None:
        super().__init__(base)
        self.plans, self.first = plans, {}  # type: ignore[var-annotated]
        self.loader._options = dataclasses.replace(self.loader._options, background=True)

    def prepare(self, source: Source, options: LoadOptions, metrics: Metrics) -> Loaded:
        loaded = super().prepare(source, options, metrics)
        if options.background:
            self.first[source.version] = loaded.servable
            return dataclasses.replace(loaded, why="for now", provisional=True)
        made = self.plans[source.version]
        if isinstance(made, Exception):
            raise made
        return dataclasses.replace(loaded, plan=made, why="made in 1 s" if made else "no plan could be made: broken")  # type: ignore[arg-type]

    def wait(self) -> None:
        """For the background; its outcome is taken over in the next round."""
        assert self.loader._wake.wait(10)
        self.loader._wake.clear()


def test_a_plan_made_in_the_background_is_swapped_in(tmp_path: Path) -> None:
    house = Improving(tmp_path / "m", {1: "a plan"})
    house.put(1)
    house.round()
    version = house.registry.get("m", 1)
    assert version.loaded.why == "for now"
    assert 'tfopt_optimizing_in_background{model="m",version="1"} 1' in house.metrics.render().decode()
    held = house.registry.resolve("m")
    house.wait()
    house.round()
    with house.registry.resolve("m") as handle:
        assert (handle.loaded.why, handle.loaded.plan) == ("made in 1 s", "a plan")
    assert 'tfopt_optimizing_in_background{model="m"' not in house.metrics.render().decode()
    assert not house.first[1].closed
    held.release()
    house.round()
    assert house.first[1].closed
    assert not version.loaded.servable.closed
    assert house.serving == [1]


@pytest.mark.parametrize("made", [None, LoadError(Code.INTERNAL, "broken"), RuntimeError("broken")])
def test_without_a_plan_plain_tensorflow_goes_on_serving(
    tmp_path: Path, made: object, caplog: pytest.LogCaptureFixture
) -> None:
    house = Improving(tmp_path / "m", {1: made})
    house.put(1)
    house.round()
    house.wait()
    house.round()
    with house.registry.resolve("m") as handle:
        assert handle.loaded.servable is house.first[1]
        assert handle.loaded.why == "no plan could be made: broken"
    assert not house.first[1].closed
    assert "plain TensorFlow goes on serving: no plan could be made: broken" in caplog.text


class Waiting(Improving):
    """Its first plan cannot be made: the optimizer is killed. Whatever lies in `folder` afterwards is one."""

    def __init__(self, base: Path, background: bool) -> None:
        super().__init__(base, {})
        self.folder = base.parent / "plans" / "abc"
        self.loader._options = dataclasses.replace(self.loader._options, background=background)

    def prepare(self, source: Source, options: LoadOptions, metrics: Metrics) -> Loaded:
        text = (self.folder / "plan.json").read_text() if self.folder.exists() else "killed"
        self.plans[source.version] = None if text in ("killed", "damaged") else text
        loaded = super().prepare(source, options, metrics)
        killed = loaded.plan is None and not loaded.provisional
        awaited, warning = (Awaited(self.folder).now(), "killed") if killed else (None, "")
        return dataclasses.replace(loaded, awaited=awaited, warning=warning)

    def put_plan(self, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "plan.json").write_text(text)

    def look_again(self) -> None:
        """A while later: what is there is tried in the background, and taken over in the round after it."""
        self.now += 5.0
        self.round()
        if self.registry.get("m", 1).loaded.provisional:
            self.wait()
            self.round()


@pytest.mark.parametrize("background", [False, True])
def test_a_plan_that_could_not_be_made_is_taken_over_when_it_comes_from_elsewhere(
    tmp_path: Path, background: bool
) -> None:
    """The version stayed on plain TensorFlow until it was loaded again."""
    house = Waiting(tmp_path / "m", background)
    house.put(1)
    house.round()
    if background:
        house.wait()
        house.round()
    version = house.registry.get("m", 1)
    house.look_again()
    assert (version.loaded.plan, version.loaded.provisional) == (None, False)
    assert house.loader._pause(house.now) <= 5.0
    house.put_plan("another server's")
    opened = len(house.opened)
    house.look_again()
    assert (version.loaded.plan, version.loaded.awaited, version.status.message) == ("another server's", None, "")
    house.look_again()
    assert len(house.opened) == opened + 1
    assert house.serving == [1]


def test_a_damaged_plan_is_made_anew_once(tmp_path: Path) -> None:
    house = Waiting(tmp_path / "m", background=False)
    house.put(1)
    house.round()
    house.put_plan("damaged")
    house.look_again()
    opened = len(house.opened)
    house.look_again()
    assert len(house.opened) == opened
    house.put_plan("whole")
    house.look_again()
    assert house.registry.get("m", 1).loaded.plan == "whole"


def test_a_bucket_is_asked_for_the_plan_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house, asked = Waiting(tmp_path / "m", background=False), []

    def pull(uri: object, name: str, cache: Path, say: object) -> bool:
        asked.append((uri, house.folder == cache / name))
        if len(asked) == 2:
            house.put_plan("the bucket's")
        return len(asked) == 2

    monkeypatch.setattr("tfopt_server.storage.plans.pull", pull)
    house.loader._arrivals._bucket = "a bucket"  # type: ignore[assignment]
    house.put(1)
    house.round()
    house.look_again()
    house.look_again()
    assert asked == [("a bucket", True)]
    house.now += 60.0
    house.look_again()
    assert house.registry.get("m", 1).loaded.plan == "the bucket's"
    assert len(asked) == 2


def test_no_plan_is_made_for_a_version_that_was_unloaded_while_it_waited() -> None:
    gone, here = Version("m", 1, Path("1")), Version("m", 2, Path("2"))
    prepared, done = list[Version](), threading.Event()
    improver = Improver(prepared.append, done.set)  # type: ignore[arg-type, func-returns-value]
    gone.close()
    improver.add(gone)
    improver.add(here)
    assert done.wait(10)
    assert prepared == [here]


def test_a_plan_for_a_version_that_is_gone_is_given_back(tmp_path: Path) -> None:
    house = Improving(tmp_path / "m", {1: "a plan", 2: "another"})
    house.put(1)
    house.round()
    house.wait()
    house.put(2)
    house.remove(1)
    house.loader._take_over()  # the plan of version 1
    improved = house.registry.get("m", 1).loaded.servable
    house.round()
    house.round()
    assert house.serving == [2]
    assert improved.closed
    assert house.first[1].closed
