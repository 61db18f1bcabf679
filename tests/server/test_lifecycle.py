"""The life of a version as a table, and the choice of versions, without files or threads."""

from __future__ import annotations

import itertools

import pytest
from tfopt_server.errors import Code
from tfopt_server.lifecycle import (
    TRANSITIONS,
    All,
    Event,
    IllegalEvent,
    Latest,
    Life,
    Specific,
    State,
    Steps,
    missing,
    next_steps,
    wanted,
)

START, LOADING, AVAILABLE, UNLOADING, END = State


def lived(*events: Event) -> list[State]:
    life = Life()
    states = [life.state]
    for event in events:
        life = life.after(event)
        states.append(life.state)
    return states


def test_a_version_that_serves_and_goes() -> None:
    events = (Event.LOAD, Event.RETRY, Event.READY, Event.UNLOAD, Event.GONE)
    assert lived(*events) == [START, LOADING, LOADING, AVAILABLE, UNLOADING, END]


def test_a_version_that_never_loads_ends_with_its_error() -> None:
    life = Life().after(Event.LOAD).after(Event.RETRY, Code.INTERNAL, "first").after(Event.FAIL, Code.NOT_FOUND, "last")
    assert life == Life(END, Code.NOT_FOUND, "last")


def test_an_event_outside_the_table_raises_and_changes_nothing() -> None:
    refused = 0
    for state, event in itertools.product(State, Event):
        life = Life(state, Code.OK, "as it was")
        if event in TRANSITIONS[state]:
            assert life.after(event).state is TRANSITIONS[state][event]
            continue
        with pytest.raises(IllegalEvent, match=f"{event.value} while {state.name}"):
            life.after(event)
        assert life == Life(state, Code.OK, "as it was")
        refused += 1
    assert refused == len(State) * len(Event) - sum(map(len, TRANSITIONS.values()))


def test_which_versions_are_wanted() -> None:
    found = [3, 1, 7]
    assert wanted(Latest(), found) == (7,)
    assert wanted(Latest(0), found) == (7,)
    assert wanted(Latest(2), found) == (7, 3)
    assert wanted(Latest(9), found) == (7, 3, 1)
    assert wanted(All(), found) == (7, 3, 1)
    assert wanted(Specific(frozenset({1, 9})), found) == (1,)
    assert missing(Specific(frozenset({1, 9})), found) == (9,)
    assert missing(Latest(), []) == ()
    assert wanted(Latest(), []) == ()


def test_the_old_version_serves_until_the_new_one_is_ready() -> None:
    assert next_steps({1: AVAILABLE}, (2,)) == Steps(load=(2,))
    assert next_steps({1: AVAILABLE, 2: LOADING}, (2,)) == Steps()
    assert next_steps({1: AVAILABLE, 2: AVAILABLE}, (2,)) == Steps(unload=(1,))
    assert next_steps({1: END, 2: AVAILABLE}, (2,)) == Steps()


def test_a_version_that_failed_leaves_the_old_one_serving_and_is_not_tried_again() -> None:
    assert next_steps({1: AVAILABLE, 2: END}, (2,)) == Steps()


def test_versions_whose_folders_vanished_go_whether_or_not_others_remain() -> None:
    assert next_steps({1: AVAILABLE, 2: AVAILABLE}, ()) == Steps(unload=(1, 2))
    assert next_steps({1: AVAILABLE, 2: AVAILABLE, 3: LOADING}, (3,)) == Steps(unload=(1,))
    assert next_steps({2: LOADING, 3: START}, ()) == Steps(cancel=(2, 3))


def test_new_versions_load_from_the_highest() -> None:
    assert next_steps({}, (1, 3, 2)) == Steps(load=(3, 2, 1))
    assert next_steps({1: UNLOADING}, (1,)) == Steps()
