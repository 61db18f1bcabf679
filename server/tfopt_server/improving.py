"""Plans made while their versions serve already, on plain TensorFlow (--optimize_in_background).

One thread, one version after the other: the optimizer takes all cores as it is. It prepares the version once more, with
a plan; the loader takes the outcome over in its next round (`finished`). So it does when a plan that could not be made
here comes from elsewhere (`Arrivals`).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import queue
import threading
from collections.abc import Callable, Sequence

from tfopt_server.awaiting import Awaited
from tfopt_server.preparing import LoadError
from tfopt_server.registry import Loaded, Version
from tfopt_server.storage import plans
from tfopt_server.uris import Uri

log = logging.getLogger(__name__)

# How often it is looked whether a plan that could not be made here is there by now, and whether it is in the bucket.
PLAN_LOOK_S = 5.0
BUCKET_LOOK_S = 60.0

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


def waiting(versions: Sequence[Version]) -> list[tuple[Version, Loaded, Awaited]]:
    """Those that serve on plain TensorFlow because no plan could be made, with the plan they wait for."""
    loaded = [(version, version.loaded) for version in versions]
    return [(v, now, now.awaited) for v, now in loaded if now is not None and now.awaited and not now.provisional]


class Arrivals:
    """Looks for plans that could not be made here, now and then."""

    def __init__(self, bucket: Uri | None, clock: Callable[[], float]) -> None:
        self._bucket, self._clock = bucket, clock
        self._due = {PLAN_LOOK_S: 0.0, BUCKET_LOOK_S: 0.0}

    def look(self, versions: Sequence[Version]) -> list[Version]:
        """Those whose plan is there now. They are `provisional` from now on, until it is taken over."""
        found = []
        there = waiting(versions) if self._is_due(PLAN_LOOK_S) else []
        bucket = self._bucket if there and self._is_due(BUCKET_LOOK_S) else None
        for version, loaded, awaited in there:
            extra = {"model": version.name, "version": version.number}
            if bucket is not None and awaited.missing():
                say = functools.partial(log.info, "%s", extra=extra)
                plans.pull(bucket, awaited.folder.name, awaited.folder.parent, say)
            if awaited.there():
                log.info("the plan that could not be made here is there now: it is taken over", extra=extra)
                version.replace(dataclasses.replace(loaded, provisional=True, awaited=awaited.now()))
                found.append(version)
        return found

    def _is_due(self, every_s: float) -> bool:
        now = self._clock()
        if now < self._due[every_s]:
            return False
        self._due[every_s] = now + every_s
        return True
