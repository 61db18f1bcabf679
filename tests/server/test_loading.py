"""The loader, one round at a time: real folders, fake models, no threads and no waiting."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
from tfopt_server import loading
from tfopt_server.errors import Code
from tfopt_server.lifecycle import All, Latest, Specific
from tfopt_server.preparing import LoadError
from tfopt_server.registry import Loaded

from tests.server.loaderhouse import House


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
