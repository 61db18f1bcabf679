"""The life of one version of a model, and which versions of a model should be alive.

Rules for changing it: the state machine is ONE table, `TRANSITIONS`; an event that the table does not list for a state
raises `IllegalEvent` and changes nothing. Everything here is a pure function of its arguments: no clock, no threads, no
files. States and their meaning are TensorFlow Serving's (ServableState::ManagerState, get_model_status.proto).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tfopt_server.errors import Code


class State(enum.Enum):
    """The values are the numbers of GetModelStatus."""

    START = 10  # known, nothing done yet
    LOADING = 20  # being optimized, opened and warmed, or waiting for another attempt
    AVAILABLE = 30  # answers requests
    UNLOADING = 40  # takes no new requests, finishes those it has
    END = 50  # gone; `Life.code` says whether it failed


class Event(enum.Enum):
    LOAD = "load"  # the loader starts on it
    RETRY = "retry"  # an attempt failed, there will be another
    READY = "ready"  # opened and warmed
    FAIL = "fail"  # the last attempt failed
    CANCEL = "cancel"  # no longer wanted before it was ready
    UNLOAD = "unload"  # no longer wanted
    GONE = "gone"  # its last request is answered and its memory given back


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.START: {Event.LOAD: State.LOADING, Event.CANCEL: State.END},
    State.LOADING: {
        Event.READY: State.AVAILABLE,
        Event.RETRY: State.LOADING,
        Event.FAIL: State.END,
        Event.CANCEL: State.END,
    },
    State.AVAILABLE: {Event.UNLOAD: State.UNLOADING},
    State.UNLOADING: {Event.GONE: State.END},
    State.END: {},
}


class IllegalEvent(RuntimeError):
    """An event that makes no sense in the state; a mistake of the caller, never of a user."""


@dataclass(frozen=True)
class Life:
    """Where a version stands. `code` and `message` say why it failed, or what the last attempt ran into."""

    state: State = State.START
    code: Code = Code.OK
    message: str = ""

    def after(self, event: Event, code: Code = Code.OK, message: str = "") -> Life:
        """The life after `event`. IllegalEvent where the table has no such transition."""
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            allowed = ", ".join(e.value for e in TRANSITIONS[self.state]) or "nothing"
            raise IllegalEvent(f"{event.value} while {self.state.name}: only {allowed} may happen")
        return replace(self, state=following, code=code, message=message)


@dataclass(frozen=True)
class Latest:
    """The `number` highest versions; 0 means 1, as in TensorFlow Serving."""

    number: int = 1


@dataclass(frozen=True)
class All:
    """Every version there is."""


@dataclass(frozen=True)
class Specific:
    """Exactly these, where they exist."""

    versions: frozenset[int]


Policy = Latest | All | Specific


def wanted(policy: Policy, found: Collection[int]) -> tuple[int, ...]:
    """Which of the versions found on disk should be served, highest first."""
    falling = tuple(sorted(set(found), reverse=True))
    match policy:
        case Latest(number):
            return falling[: max(1, number)]
        case All():
            return falling
        case Specific(versions):
            return tuple(v for v in falling if v in versions)


def missing(policy: Policy, found: Collection[int]) -> tuple[int, ...]:
    """Versions that a specific policy names and that are not on disk, rising; worth a warning."""
    return tuple(sorted(policy.versions - set(found))) if isinstance(policy, Specific) else ()


@dataclass(frozen=True)
class Steps:
    """What to do now. `load` is highest first, `unload` and `cancel` lowest first."""

    load: tuple[int, ...] = ()
    unload: tuple[int, ...] = ()
    cancel: tuple[int, ...] = ()


def next_steps(states: Mapping[int, State], should_serve: Collection[int]) -> Steps:
    """How to get from the versions there are to those that should serve, without a gap in between.

    The old version serves until a wanted one is available (TensorFlow Serving's AvailabilityPreservingPolicy): versions
    that are no longer wanted are unloaded when none is wanted, when a wanted one is available, or, but for the highest,
    when there are several of them. A version that failed (END) is not tried again while it stays wanted.
    """
    target = set(should_serve)
    serving = {v for v, s in states.items() if s is State.AVAILABLE}
    surplus = sorted(serving - target)
    free_to_go = not target or bool(serving & target)
    return Steps(
        load=tuple(sorted((v for v in target if states.get(v, State.START) is State.START), reverse=True)),
        unload=tuple(surplus if free_to_go else surplus[:-1]),
        cancel=tuple(sorted(v for v, s in states.items() if s in {State.START, State.LOADING} and v not in target)),
    )
