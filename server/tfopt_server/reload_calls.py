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

from tfopt_server import model_config
from tfopt_server.config_board import ConfigBoard, Outcome
from tfopt_server.errors import Code, ServingError, invalid
from tfopt_server.model_config import ModelConfigError
from tfopt_server.registry import Registry
from tfopt_server.reloading import label_problem

log = logging.getLogger(__name__)


class ReloadCalls:
    """`wake` makes this worker's loader look at the board."""

    def __init__(
        self, registry: Registry, board: ConfigBoard, seat: int, labels_ahead: bool, wake: Callable[[], None]
    ) -> None:
        self._registry, self._board, self._seat = registry, board, seat
        self._labels_ahead, self._wake = labels_ahead, wake
        self._waiting: list[tuple[int, Future[None]]] = []
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
        try:
            models = model_config.from_proto(config, "config", labels_ahead=True)
        except ModelConfigError as error:
            raise invalid(error.problems[0]) from error
        names = [each.name for each in models.configs]
        if problem := label_problem(self._registry, models, self._labels_ahead, names):
            raise ServingError(Code.FAILED_PRECONDITION, problem)
        future: Future[None] = Future()
        with self._lock:
            number = self._board.post(config.SerializeToString())
            self._waiting.append((number, future))
        log.info("a client configures %s", ", ".join(names) or "no model", extra={"config": number})
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
            outcomes = [(future, self._board.outcome(number)) for number, future in self._waiting]
            self._waiting = [w for w, (_, o) in zip(self._waiting, outcomes, strict=True) if o is None]
        for future, outcome in outcomes:
            if outcome is not None and future.set_running_or_notify_cancel():
                _answer(future, outcome)


def _answer(future: Future[None], outcome: Outcome) -> None:
    if outcome.code:
        log.error("a client's config failed: %s", outcome.text)
        future.set_exception(ServingError(Code(outcome.code), outcome.text))
    else:
        future.set_result(None)
