"""Plans that are made, or come from elsewhere, while a version serves on plain TensorFlow."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_server.awaiting import Awaited
from tfopt_server.errors import Code
from tfopt_server.improving import Improver
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadError, LoadOptions, Source, prepare
from tfopt_server.registry import Loaded, Version

from tests.server.loaderhouse import House


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


@pytest.mark.usefixtures("optimized_here")
def test_a_plan_that_could_not_be_made_is_known_by_its_name_when_another_server_made_it(
    savedmodel: Callable[[str], Path], tmp_path: Path
) -> None:
    def crash(*_: object) -> None:
        raise OptimizeError("the optimizer died with exit code -9")

    flags = OptimizerFlags(allowed_batch_sizes=(1,), engines=("openvino",))
    source, theirs, ours = Source("m", 1, savedmodel("half_plus_two")), tmp_path / "theirs", tmp_path / "ours"
    elsewhere = prepare(source, LoadOptions(flags, theirs), Metrics())
    here = prepare(source, LoadOptions(flags, ours), Metrics(), optimize=crash)
    assert elsewhere.awaited is None
    assert here.awaited is not None
    assert not here.awaited.there()
    shutil.copytree(theirs, ours, dirs_exist_ok=True)
    assert here.awaited.there()
    assert not here.awaited.now().there()
    for loaded in (elsewhere, here):
        loaded.servable.close()
