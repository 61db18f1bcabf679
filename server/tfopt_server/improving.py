"""Plans made while their versions serve already, on plain TensorFlow (--optimize_in_background).

One thread, one version after the other: the optimizer takes all cores as it is. It prepares the version once more, with
a plan; the loader takes the outcome over in its next round (`finished`).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from tfopt_server.preparing import LoadError
from tfopt_server.registry import Loaded, Version

log = logging.getLogger(__name__)

Outcome = tuple[Version, Loaded | Exception]


class Improver:
    """`prepare(version)` gives the version with its plan; `wake` is called when there is something to take over."""

    def __init__(self, prepare: Callable[[Version], Loaded], wake: Callable[[], None]) -> None:
        self._prepare, self._wake = prepare, wake
        self._todo: queue.SimpleQueue[Version] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, version: Version) -> None:
        self._todo.put(version)
        if self._thread is None:
            # A daemon: nobody waits for a plan at the end, and its processes end with this one.
            self._thread = threading.Thread(target=self._run, name="tfopt-improver", daemon=True)
            self._thread.start()

    def finished(self) -> list[Outcome]:
        """What came out since the last call: the version with its plan, or why there is none."""
        found: list[Outcome] = []
        while not self._done.empty():
            found.append(self._done.get())
        return found

    def _run(self) -> None:
        while True:
            version = self._todo.get()
            if version.closing:  # unloaded while it waited its turn: minutes of all cores for nobody
                continue
            outcome: Loaded | Exception
            try:
                outcome = self._prepare(version)
            except LoadError as error:
                outcome = error
            except Exception as error:  # whatever it was, the version goes on serving, and this thread making plans
                log.exception("making a plan in the background failed", extra={"model": version.name})
                outcome = error
            self._done.put((version, outcome))
            self._wake()
