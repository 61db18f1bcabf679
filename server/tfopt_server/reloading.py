"""Which models are served from now on: from --model_config_file, read again and again, or from a client's call.

Called by the loader's thread: `look` at the start of its rounds says what changed, `settle` at their end tells the
board how that went. A file that cannot be served is named in the log, once, and what was configured before stays; as in
TensorFlow Serving, the file wins over what a client sent as soon as it is read again. Labels follow their versions: one
is assigned when its version is AVAILABLE, or at once with --allow_version_labels_for_unavailable_models, and keeps its
old version until then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tfopt_server import model_config
from tfopt_server.config_board import ConfigBoard, Outcome
from tfopt_server.errors import Code
from tfopt_server.lifecycle import State
from tfopt_server.loading import ModelConfig
from tfopt_server.model_config import ModelConfigError, Models
from tfopt_server.registry import Registry, unavailable_error

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """--model_config_file and the seconds between two looks at it."""

    path: Path
    poll_s: float


class Reloader:
    """`models` is what is configured already, by config `number` of the board (0: by the flags)."""

    def __init__(  # noqa: PLR0917 - one caller
        self, registry: Registry, models: Models, labels_ahead: bool, board: ConfigBoard, seat: int, number: int,
        file: File | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._registry, self._labels_ahead = registry, labels_ahead
        self._board, self._seat = board, seat
        self._followed = number, models  # replaced as one: other threads read it
        self._file, self._clock = file, clock
        self._due = clock() + (file.poll_s if file else 0.0)
        self._problem = ""
        self._pending = ""
        # Every model that was configured once, as it was last: what a client may load again by its name.
        self.known: dict[str, ModelConfig] = {}
        self.known_labels: dict[str, Mapping[str, int]] = {}
        self.remember(models)
        # What a config that is being followed waits for: models that it brought.
        self._awaited: frozenset[str] | None = frozenset(c.name for c in models.configs) if number else None
        board.join(seat)

    @property
    def poll_s(self) -> float | None:
        return None if self._file is None else self._file.poll_s

    @property
    def _number(self) -> int:
        return self._followed[0]

    @property
    def _models(self) -> Models:
        return self._followed[1]

    def remember(self, models: Models) -> None:
        for config in models.configs:
            self.known[config.name] = config
            self.known_labels[config.name] = models.labels.get(config.name, {})

    def current(self) -> tuple[int, Models]:
        """What is configured now, whether this worker follows it already or not, and the board's number for it. From
        any thread."""
        number, models = self._followed
        if self._board.number == number:
            return number, models
        number, data = self._board.latest()
        return number, model_config.from_bytes(data)

    def look(self) -> tuple[ModelConfig, ...] | None:
        """The models to serve from now on, None when they are the same as before or it is not time to look."""
        if self._board.number != self._number:
            return self._follow_board()
        if self._file is None or self._clock() < self._due:
            if self._pending:
                self._label(self._models.labels, self._models.labels)
            return None
        self._due = self._clock() + self._file.poll_s
        try:
            found = model_config.read(self._file.path, labels_ahead=True)
        except ModelConfigError as error:
            self._complain(str(error))
            return None
        self._complain("")
        return self._follow(self._number, found, str(self._file.path))

    def _follow_board(self) -> tuple[ModelConfig, ...] | None:
        before = {config.name for config in self._models.configs}
        number, data = self._board.latest()
        found = model_config.from_bytes(data)
        new = frozenset(config.name for config in found.configs) - before
        self._awaited = new | (self._awaited or frozenset())
        return self._follow(number, found, "a client's config")

    def _follow(self, number: int, found: Models, source: str) -> tuple[ModelConfig, ...] | None:
        before, self._followed = self._models, (number, found)
        self.remember(found)
        self._label(found.labels, before.labels)
        if found.configs == before.configs:
            return None
        log.info("%s changed: serving %s", source, ", ".join(c.name for c in found.configs) or "no model")
        return found.configs

    def settle(self) -> None:
        """Tells the board when every model that a client's config brought serves, or one never will."""
        if self._awaited is None or self._board.number != self._number:
            return
        names = self._awaited & {config.name for config in self._models.configs}
        histories = {name: self._registry.history(name) for name in names}
        failed = unavailable_error(histories, "model(s)")
        if not failed and not all(any(s.state is State.AVAILABLE for s in h) for h in histories.values()):
            return
        self._awaited = None
        self._board.report(self._seat, self._number, Outcome(int(Code.UNKNOWN), failed) if failed else Outcome())

    def _complain(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.error("%s; what was configured before stays", problem)
        self._problem = problem

    def _label(self, labels: Mapping[str, Mapping[str, int]], before: Mapping[str, Mapping[str, int]]) -> None:
        waiting = []
        for name in {*labels, *before}:
            now = self._registry.labels(name)
            assigned = {}
            for label, version in labels.get(name, {}).items():
                if self._labels_ahead or serves(self._registry, name, version):
                    assigned[label] = version
                    continue
                waiting.append(f"{label!r} of model {name} for version {version}")
                if label in now:
                    assigned[label] = now[label]
            if assigned != now:
                self._registry.assign_labels(name, assigned)
        pending = ", ".join(sorted(waiting))
        if pending and pending != self._pending:
            log.warning("labels that wait until their version is available for inference: %s", pending)
        self._pending = pending


def serves(registry: Registry, name: str, version: int) -> bool:
    return any(s.version == version and s.state is State.AVAILABLE for s in registry.history(name))


def label_problem(registry: Registry, models: Models, ahead: bool, names: Collection[str]) -> str:
    """Why a client's labels cannot be assigned, "" when they can: TensorFlow Serving's rule and text.

    `ahead`: a label that is new to its model may name any version.
    """
    for name in names:
        now = registry.labels(name)
        for label, version in models.labels.get(name, {}).items():
            if now.get(label) == version or (ahead and label not in now) or serves(registry, name, version):
                continue
            return (
                f"Request to assign label to version {version} of model {name}, which is not currently available for "
                "inference"
            )
    return ""
