"""Names, versions, handles: who may use what, and for how long."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tfopt_server.errors import Code, ServingError
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Event, IllegalEvent, State
from tfopt_server.metrics import Metrics
from tfopt_server.registry import Handle, Loaded, Registry, Version, VersionStatus, unavailable_error

from tests.server.fakes import Runner


def loaded() -> Loaded:
    lane = Lane("m", Runner(), Metrics(), parameters=None)
    return Loaded(None, {"serving_default": lane}, None, "a fake", {})  # type: ignore[arg-type]


def serve(registry: Registry, number: int, name: str = "m") -> Version:
    version = registry.add(name, number, Path(f"/models/{name}/{number}"))
    registry.move(version, Event.LOAD)
    version.loaded = loaded()
    registry.move(version, Event.READY)
    return version


def refusal(registry: Registry, *spec: object) -> tuple[Code, str]:
    with pytest.raises(ServingError) as caught:
        registry.resolve(*spec)  # type: ignore[arg-type]
    return caught.value.code, caught.value.message


def test_the_latest_a_number_or_a_label() -> None:
    registry = Registry(["m"])
    for number in (3, 12, 7):
        serve(registry, number)
    registry.assign_labels("m", {"stable": 7})
    with (
        registry.resolve("m") as latest,
        registry.resolve("m", 3) as third,
        registry.resolve("m", None, "stable") as stable,
    ):
        assert [(h.name, h.version) for h in (latest, third, stable)] == [("m", 12), ("m", 3), ("m", 7)]


def test_what_is_not_there_is_refused_in_tensorflow_servings_words() -> None:
    registry = Registry(["m"])
    serve(registry, 1)
    assert refusal(registry, "x") == (Code.NOT_FOUND, "Servable not found for request: Latest(x)")
    assert refusal(registry, "m", 9) == (Code.NOT_FOUND, "Servable not found for request: Specific(m, 9)")
    assert refusal(registry, "m", None, "x") == (Code.INVALID_ARGUMENT, "Unrecognized servable version label: x")


def test_status_tells_the_whole_history_newest_first() -> None:
    registry = Registry(["m"])
    old = serve(registry, 1)
    registry.move(old, Event.UNLOAD)
    registry.move(old, Event.GONE)
    failed = registry.add("m", 2, Path("/models/m/2"))
    registry.move(failed, Event.LOAD)
    registry.move(failed, Event.FAIL, Code.INTERNAL, "broken")
    serve(registry, 3)
    first = VersionStatus(1, State.END, Code.OK, "")
    second = VersionStatus(2, State.END, Code.INTERNAL, "broken")
    third = VersionStatus(3, State.AVAILABLE, Code.OK, "")
    assert registry.status("m") == registry.history("m") == (third, second, first)
    assert registry.status("m", 2) == (second,)
    with pytest.raises(ServingError, match="Could not find version 9 of model m"):
        registry.status("m", 9)
    with pytest.raises(ServingError, match="Could not find any versions of model x"):
        registry.status("x")


def test_ready_is_when_every_model_has_a_version() -> None:
    registry = Registry(["a", "b"])
    assert not registry.ready()
    serve(registry, 1, "a")
    assert not registry.ready()
    version = serve(registry, 5, "b")
    assert registry.ready()
    assert [(v.name, v.number) for v in registry.available()] == [("a", 1), ("b", 5)]
    registry.move(version, Event.UNLOAD)
    assert not registry.ready()


def test_a_version_that_leaves_serves_those_who_hold_it_and_nobody_else() -> None:
    registry = Registry(["m"])
    old = serve(registry, 1)
    held = registry.resolve("m")
    serve(registry, 2)
    registry.move(old, Event.UNLOAD)
    old.close()
    assert old.users == 1
    assert not old.hold()
    with registry.resolve("m") as handle:
        assert handle.version == 2
    assert refusal(registry, "m", 1)[0] is Code.NOT_FOUND
    held.release()
    assert old.users == 0


def test_a_run_that_outlives_its_handle_counts_as_a_user() -> None:
    registry = Registry(["m"])
    version = serve(registry, 1)
    with registry.resolve("m") as handle:
        handle.lanes["serving_default"].enter()
    assert version.users == 1
    handle.lanes["serving_default"].leave()
    assert version.users == 0


def test_an_event_that_cannot_be_changes_nothing() -> None:
    registry = Registry(["m"])
    version = serve(registry, 1)
    with pytest.raises(IllegalEvent):
        registry.move(version, Event.GONE)
    assert isinstance(registry.resolve("m"), Handle)


def test_a_number_comes_back_only_after_it_is_history() -> None:
    registry = Registry(["m"])
    version = serve(registry, 1)
    with pytest.raises(ValueError, match="here already"):
        registry.add("m", 1, Path("/elsewhere"))
    registry.move(version, Event.UNLOAD)
    registry.move(version, Event.GONE)
    registry.retire(version)
    assert registry.states("m") == {}
    assert serve(registry, 1) is not version


def test_the_text_of_a_server_that_cannot_start() -> None:
    end, loading = VersionStatus(2, State.END, Code.NOT_FOUND, "no file"), VersionStatus(3, State.LOADING, Code.OK, "")
    assert unavailable_error({"m": (end,)}) == (
        "1 servable(s) did not become available: {{{name: m version: 2} due to error: NOT_FOUND: no file}, }"
    )
    assert unavailable_error({"m": (loading, end)}) == ""
    assert unavailable_error({"m": ()}) == ""


def test_what_is_replaced_serves_those_who_hold_it_and_then_nobody() -> None:
    registry = Registry(["m"])
    version = serve(registry, 1)
    before, after = version.loaded, dataclasses.replace(loaded(), servable=object())  # type: ignore[arg-type]
    held = registry.resolve("m")
    held.lanes["serving_default"].enter()  # a run that outlives its handle
    version.replace(after)
    with registry.resolve("m") as handle:
        assert handle.loaded is after
        assert version.users == 3
        assert (version.replaced(), version.replacing) == ([], True)
    held.release()
    assert version.replaced() == []
    held.lanes["serving_default"].leave()
    assert version.replaced() == [before]
    assert (version.replaced(), version.replacing, version.users) == ([], False, 0)
