"""ModelService's HandleReloadConfigRequest behind the faces: a client's config is checked, posted, and waited for.

One worker hears the call and puts the config on the board (config_board.py); every worker's loader follows it
(reloading.py). The call is answered when all have: OK, or UNKNOWN with the models that did not become available. A
config that is posted while an earlier one is being followed takes its place, and answers both calls. What the client
gives up waiting for goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tfopt_server import logs, model_config
from tfopt_server.config_board import ConfigBoard, Outcome
from tfopt_server.errors import Code, ServingError, invalid, not_found
from tfopt_server.loading import ModelConfig
from tfopt_server.model_config import ModelConfigError, Models
from tfopt_server.registry import Registry
from tfopt_server.reloading import Reloader, label_problem

log = logging.getLogger(__name__)


class ReloadCalls:
    """`wake` makes this worker's loader look at the board, as `reloader` does."""

    def __init__(  # noqa: PLR0917 - one caller
        self, registry: Registry, board: ConfigBoard, seat: int, labels_ahead: bool, wake: Callable[[], None],
        reloader: Reloader,
    ) -> None:  # fmt: skip
        self._reloader = reloader
        self._registry, self._board, self._seat = registry, board, seat
        self._labels_ahead, self._wake = labels_ahead, wake
        self._waiting: list[tuple[int, Future[None], str]] = []  # with the request's id
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._listen, name="tfopt-config-board", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._board.wake(self._seat)

    def begin(self, config: Any) -> Future[None]:
        """Starts following a ModelServerConfig message with a model_config_list. INVALID_ARGUMENT, FAILED_PRECONDITION
        for one that cannot be; nothing changes then. The future fails with UNKNOWN."""
        future = self._begin(config)
        assert future is not None
        return future

    def _begin(self, config: Any, after: int | None = None) -> Future[None] | None:
        """None where the latest config is not number `after` any more."""
        try:
            models = model_config.from_proto(config, "config", labels_ahead=True)
        except ModelConfigError as error:
            raise invalid(error.problems[0]) from error
        names = [each.name for each in models.configs]
        if problem := label_problem(self._registry, models, self._labels_ahead, names):
            raise ServingError(Code.FAILED_PRECONDITION, problem)
        future: Future[None] = Future()
        with self._lock:
            number = self._board.post(config.SerializeToString(), after)
            if not number:
                return None
            self._waiting.append((number, future, logs.request_id.get()))
        log.info("a client configures %s", ", ".join(names) or "no model", extra={"config": number})
        return future

    def load(self, name: str, base_path: str = "") -> Future[None]:
        """Serves model `name` besides what is served: from `base_path`, or "" as it was configured once. NOT_FOUND
        where it never was; else as `begin`."""
        known = self._reloader.known
        if not base_path and name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise not_found(f"expected a model that was configured once ({names}), or a base_path; received {name!r}")
        try:
            config = ModelConfig(name, model_config.base_path_of(base_path)) if base_path else known[name]
        except ValueError as error:
            raise invalid(f"base_path: {error}") from error
        labels = {} if base_path else self._reloader.known_labels[name]
        return self._change(
            lambda now: Models((*_without(now, name), config), {**now.labels, **({name: labels} if labels else {})})
        )

    def unload(self, name: str) -> Future[None]:
        """Serves what is served but for model `name`. NOT_FOUND where it is not configured."""

        def change(now: Models) -> Models:
            left = _without(now, name)
            if len(left) == len(now.configs):
                names = ", ".join(config.name for config in now.configs) or "none"
                raise not_found(f"expected a model that is served ({names}); received {name!r}")
            return Models(left, {each: labels for each, labels in now.labels.items() if each != name})

        return self._change(change)

    def _change(self, change: Callable[[Models], Models]) -> Future[None]:
        """Follows what is configured now with a change to it. Another worker's change in between is not lost."""
        while True:
            number, models = self._reloader.current()
            future = self._begin(model_config.to_proto(change(models)), after=number)
            if future is not None:
                return future

    def _listen(self) -> None:
        """On a thread of its own: hears news from the board for the loader and for the calls that wait."""
        seen = self._board.number
        while not self._ended:
            self._board.wait(self._seat)
            if self._board.number != seen:
                seen = self._board.number
                self._wake()
            self._settle()

    def _settle(self) -> None:
        with self._lock:
            outcomes = [(future, self._board.outcome(number), name) for number, future, name in self._waiting]
            self._waiting = [w for w, (_, o, _) in zip(self._waiting, outcomes, strict=True) if o is None]
        for future, outcome, name in outcomes:
            if outcome is not None and future.set_running_or_notify_cancel():
                with logs.naming(name):
                    _answer(future, outcome)


def _without(models: Models, name: str) -> tuple[ModelConfig, ...]:
    return tuple(config for config in models.configs if config.name != name)


def _answer(future: Future[None], outcome: Outcome) -> None:
    if outcome.code:
        log.error("a client's config failed: %s", outcome.text)
        future.set_exception(ServingError(Code(outcome.code), outcome.text))
    else:
        future.set_result(None)
