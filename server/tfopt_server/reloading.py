"""--model_config_file_poll_wait_seconds: reads the model config file again and says what changed.

Called by the loader's thread at the start of its rounds, so that models come and go between loads. A file that cannot
be served is named in the log, once, and what was configured before stays. Labels follow their versions: one is assigned
when its version is AVAILABLE, or at once with --allow_version_labels_for_unavailable_models, and keeps its old version
until then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tfopt_server import model_config
from tfopt_server.lifecycle import State
from tfopt_server.loading import ModelConfig
from tfopt_server.model_config import ModelConfigError, Models
from tfopt_server.registry import Registry

log = logging.getLogger(__name__)


class Reloader:
    """`poll_s` between two looks; `models` is what is configured already."""

    def __init__(  # noqa: PLR0917 - one caller
        self, file: Path, poll_s: float, labels_ahead: bool, registry: Registry, models: Models,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._file, self.poll_s, self._labels_ahead = file, poll_s, labels_ahead
        self._registry, self._models, self._clock = registry, models, clock
        self._due = clock() + poll_s
        self._problem = ""
        self._pending = ""

    def look(self) -> tuple[ModelConfig, ...] | None:
        """The models to serve from now on, None when they are the same as before or it is not time to look."""
        if self._clock() < self._due:
            return None
        self._due = self._clock() + self.poll_s
        try:
            found = model_config.read(self._file, labels_ahead=True)
        except ModelConfigError as error:
            self._complain(str(error))
            return None
        self._complain("")
        before, self._models = self._models, found
        self._label(found.labels, before.labels)
        if found.configs == before.configs:
            return None
        log.info("%s changed: serving %s", self._file, ", ".join(c.name for c in found.configs) or "no model")
        return found.configs

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
                if self._labels_ahead or self._serves(name, version):
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

    def _serves(self, name: str, version: int) -> bool:
        return any(s.version == version and s.state is State.AVAILABLE for s in self._registry.history(name))
