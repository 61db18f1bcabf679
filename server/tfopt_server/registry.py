"""Which versions of which models there are, where each stands in its life, and who is using it.

`resolve` is on the path of every request: one look-up in a dict that is replaced, never changed, and one count. A
version that leaves the dict takes no new requests; it is given back when the last of its handles is released.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tfopt_server.errors import Code, invalid, not_found
from tfopt_server.lifecycle import Event, Life, State

if TYPE_CHECKING:
    from tfopt_optimizer.plan import Plan
    from tfopt_optimizer.servable import Servable
    from tfopt_optimizer.tpu.report import Report

    from tfopt_server.awaiting import Awaited
    from tfopt_server.batching_parameters import BatchingParameters
    from tfopt_server.lanes import Lane


@dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus says of one version."""

    version: int
    state: State
    code: Code
    message: str


@dataclass(frozen=True)
class Loaded:
    """What a version consists of once it can serve.

    `plan` is None when the model runs as it is (switched off, or no plan could be made), `why` says where the plan came
    from or why there is none. `signature_defs` are the protos that GetModelMetadata answers; `parameters` the batching
    that was asked for; `warning` what did not go as planned, shown by the version's status ("" when all did).
    `provisional`: plain TensorFlow serves until a plan is ready. `converted`: how it became a model for Cloud TPU.
    `awaited`: the plan that could not be made here; None where there is one, or none is wanted.
    """

    servable: Servable
    lanes: Mapping[str, Lane]
    plan: Plan | None
    why: str
    signature_defs: Mapping[str, Any]
    parameters: BatchingParameters | None = None
    warning: str = ""
    provisional: bool = False
    converted: Report | None = None
    awaited: Awaited | None = None


class Version:
    """One version from the first look at its folder to its end. Made and moved by the registry."""

    def __init__(self, name: str, number: int, path: Path) -> None:
        self.name = name
        self.number = number
        self.path = path
        self.life = Life()
        self.loaded: Loaded | None = None
        # Retired: history, shown by status; the same number may be loaded anew.
        self.retired = False
        self._handles: dict[int, int] = {}  # by servable
        self._replaced: list[Loaded] = []
        self._closing = False
        self._lock = threading.Lock()

    def hold(self) -> Loaded | None:
        """Counts a user of what is loaded now in; None when it is too late for that."""
        with self._lock:
            loaded = self.loaded
            if self._closing or loaded is None:
                return None
            key = id(loaded.servable)
            self._handles[key] = self._handles.get(key, 0) + 1
            return loaded

    def let_go(self, loaded: Loaded) -> None:
        with self._lock:
            self._handles[id(loaded.servable)] -= 1

    def replace(self, loaded: Loaded) -> None:
        """From now on requests run on this; those under way finish on what was there (`replaced`)."""
        with self._lock:
            if self.loaded is not None and self.loaded.servable is not loaded.servable:
                self._replaced.append(self.loaded)
            self.loaded = loaded

    def replaced(self) -> list[Loaded]:
        """What was replaced and has no users any more. The caller closes it."""
        with self._lock:
            free = [old for old in self._replaced if not self._users_of(old)]
            for old in free:
                self._replaced.remove(old)
                self._handles.pop(id(old.servable), None)
            return free

    @property
    def replacing(self) -> bool:
        """Whether something that was replaced is still in use."""
        return bool(self._replaced)

    def close(self) -> None:
        """Takes no more users."""
        with self._lock:
            self._closing = True

    @property
    def closing(self) -> bool:
        return self._closing

    @property
    def users(self) -> int:
        """Handles held, and requests that still wait or run although their handle is gone."""
        current = [] if self.loaded is None else [self.loaded]
        return sum(self._users_of(loaded) for loaded in (*current, *self._replaced))

    def _users_of(self, loaded: Loaded) -> int:
        return self._handles.get(id(loaded.servable), 0) + sum(lane.users for lane in loaded.lanes.values())

    @property
    def status(self) -> VersionStatus:
        life = self.life
        return VersionStatus(self.number, life.state, life.code, life.message)


class Handle:
    """An AVAILABLE version that stays loaded until this is released; a context manager."""

    __slots__ = ("_version", "lanes", "loaded", "name", "version")

    def __init__(self, version: Version, loaded: Loaded) -> None:
        self._version = version
        self.name = version.name
        self.version = version.number
        self.loaded = loaded
        self.lanes = loaded.lanes

    @property
    def folder(self) -> Path:
        """The version's own, with its SavedModel."""
        return self._version.path

    def release(self) -> None:
        self._version.let_go(self.loaded)

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._version.let_go(self.loaded)


class Registry:
    """`names` are the configured models; each is ready when it has an AVAILABLE version."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._versions: dict[str, dict[int, Version]] = {name: {} for name in names}
        self._labels: dict[str, dict[str, int]] = {}
        # (name, number) and (name, None) for the latest; replaced as a whole, so that readers need no lock.
        self._serving: dict[tuple[str, int | None], Version] = {}
        self._lock = threading.RLock()

    def resolve(self, name: str, number: int | None = None, label: str | None = None) -> Handle:
        """A handle on an AVAILABLE version, the latest by default. ServingError with TensorFlow Serving's texts."""
        if label is not None:
            number = self._labels.get(name, {}).get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        while (version := self._serving.get((name, number))) is not None:
            loaded = version.hold()
            if loaded is not None:
                return Handle(version, loaded)
        wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise not_found(f"Servable not found for request: {wanted}")

    def ready(self) -> bool:
        return all((name, None) in self._serving for name in self.names)

    def status(self, name: str, number: int | None = None) -> tuple[VersionStatus, ...]:
        """Every version there is or was, newest first, or the one asked for. NOT_FOUND when there is none."""
        versions = self._versions.get(name, {})
        if number is not None and number not in versions:
            raise not_found(f"Could not find version {number} of model {name}")
        if not versions:
            raise not_found(f"Could not find any versions of model {name}")
        chosen = sorted(versions, reverse=True) if number is None else [number]
        return tuple(versions[n].status for n in chosen)

    def history(self, name: str) -> tuple[VersionStatus, ...]:
        """As `status`, () when there is none."""
        return tuple(v.status for _, v in sorted(self._versions.get(name, {}).items(), reverse=True))

    def available(self) -> tuple[Version, ...]:
        """The versions that serve, by name, newest first."""
        found = {id(version): version for version in self._serving.values()}
        return tuple(sorted(found.values(), key=lambda version: (version.name, -version.number)))

    def loading(self) -> tuple[Version, ...]:
        """The versions that are on their way, or wait for another attempt; by name, newest first."""
        with self._lock:
            every = [version for versions in self._versions.values() for version in versions.values()]
        found = [version for version in every if version.life.state in {State.START, State.LOADING}]
        return tuple(sorted(found, key=lambda version: (version.name, -version.number)))

    def states(self, name: str) -> dict[int, State]:
        """The versions that are not history yet."""
        with self._lock:
            return {n: v.life.state for n, v in self._versions[name].items() if not v.retired}

    def get(self, name: str, number: int) -> Version:
        return self._versions[name][number]

    def add(self, name: str, number: int, path: Path) -> Version:
        """A version that was found on disk; one of the same number must be history."""
        with self._lock:
            before = self._versions[name].get(number)
            if before is not None and not before.retired:
                raise ValueError(f"version {number} of model {name} is here already")
            version = Version(name, number, path)
            self._versions[name] = {**self._versions[name], number: version}
            return version

    def move(self, version: Version, event: Event, code: Code = Code.OK, message: str = "") -> None:
        """Tells what happened to a version. IllegalEvent when that cannot be; nothing changes then."""
        with self._lock:
            version.life = version.life.after(event, code, message)
            if event in {Event.READY, Event.UNLOAD}:
                self._publish()

    def tell(self, version: Version, message: str) -> None:
        """What its status shows from now on."""
        with self._lock:
            version.life = replace(version.life, message=message)

    def retire(self, version: Version) -> None:
        """Makes a version that ended history: its number may come back."""
        with self._lock:
            version.retired = True
            version.loaded = None

    def assign_labels(self, name: str, labels: Mapping[str, int]) -> None:
        with self._lock:
            self._labels = {**self._labels, name: dict(labels)}

    def labels(self, name: str) -> Mapping[str, int]:
        return self._labels.get(name, {})

    def known(self) -> tuple[str, ...]:
        """The models that are configured, or were."""
        with self._lock:
            return tuple(self._versions)

    def configure(self, names: Sequence[str]) -> None:
        """From now on these models are configured. Those that are new do not make a server that was ready unready."""
        with self._lock:
            self.names = tuple(name for name in self.names if name in names)
            self._versions = {**{name: {} for name in names}, **self._versions}

    def _publish(self) -> None:
        serving: dict[tuple[str, int | None], Version] = {}
        for name, versions in self._versions.items():
            alive = sorted(n for n, v in versions.items() if v.life.state is State.AVAILABLE)
            serving |= {(name, n): versions[n] for n in alive}
            if alive:
                serving[name, None] = versions[alive[-1]]
        self._serving = serving


def unavailable_error(statuses: Mapping[str, Sequence[VersionStatus]], what: str = "servable(s)") -> str:
    """TensorFlow Serving's text for models that did not come up, "" when each has a version that did or may yet."""
    failed = [
        f"{{{{name: {name} version: {status.version}}} due to error: {status.code.name}: {status.message}}}"
        for name, versions in statuses.items()
        if versions and all(s.state is State.END for s in versions)
        for status in versions
        if status.code is not Code.OK
    ]
    return f"{len(failed)} {what} did not become available: {{{', '.join(failed)}, }}" if failed else ""
