"""Live requests as warmup records: --record_warmup.

    recorder = Recorder(count=100, every=10, directory=None)
    start = recorder.around(start)          # a look at shapes, and a reference to the arrays
    recorder.close()                        # at the end: what was taken so far is written

What is kept is decided by tfopt_warmup.recording. Only requests that were answered are taken: one that the model
refuses would fail the load that it warms. Copying, comparing and writing happen on a thread of its own. A version that
has a file already is not recorded, so nothing that somebody made is lost and a restart does not begin anew.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tfopt_warmup import records
from tfopt_warmup.recording import Asked, Collection, kind_of

from tfopt_server.registry import Handle
from tfopt_server.rows import Feeds
from tfopt_server.tasks import Result

log = logging.getLogger(__name__)

WRITE_EVERY_S = 30.0
WAITING = 256  # requests on their way to the thread; more are let go
EXPLAIN = "Explain"  # perturbed rows are nobody's requests
Start = Callable[..., Result | Future[Result]]


class _Session:
    """One version's recording. `path` is where its file will be."""

    def __init__(self, handle: Handle, path: Path, collection: Collection) -> None:
        self.model, self.version, self.path = handle.name, handle.version, path
        self.collection = collection
        self.open = True
        self.written = 0

    @property
    def extra(self) -> dict[str, Any]:
        return {"model": self.model, "version": self.version}


class Recorder:
    """`directory` None: the file goes into the version's own folder, else into directory/MODEL/VERSION. `claim`:
    whether this worker, of several, is the one to record a version, by its name."""

    def __init__(
        self, count: int, every: int, directory: Path | None, claim: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._count, self._every, self._directory, self._claim = count, every, directory, claim
        self._sessions: dict[tuple[str, int], _Session] = {}
        self._queue: deque[tuple[_Session, Asked]] = deque(maxlen=WAITING)
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="tfopt-recorder", daemon=True)
        self._thread.start()

    def around(self, inner: Start) -> Start:
        """`inner`, with every request that it answers looked at."""

        def start(  # noqa: PLR0917 - as Dataplane.start
            handle: Handle, signature: str, feeds: Feeds, outputs: Sequence[str] | None = None,
            deadline: float | None = None, face: str = "REST", *, api: str = "Predict",
        ) -> Result | Future[Result]:  # fmt: skip
            result = inner(handle, signature, feeds, outputs, deadline, face, api=api)
            session = self._sessions.get((handle.name, handle.version)) or self._begin(handle)
            if session.open and api != EXPLAIN:
                asked = Asked(kind_of(api), signature, feeds, outputs)
                if session.collection.wanted(asked):
                    self._take(session, asked, result)
            return result

        return start

    def _begin(self, handle: Handle) -> _Session:
        with self._lock:
            key = (handle.name, handle.version)
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = self._new(handle)
            return session

    def _new(self, handle: Handle) -> _Session:
        folder = handle.folder
        if self._directory is not None:
            folder = self._directory / handle.name / str(handle.version)
        session = _Session(handle, records.path_in(folder), Collection(self._count, self._every))
        if not self._claim(f"{handle.name}-{handle.version}"):
            session.open = False
        elif session.path.exists():
            self._shut(session, logging.INFO, f"{session.path} is there already")
        elif problem := _unwritable(folder):
            self._shut(session, logging.WARNING, f"{problem}; --record_warmup_dir names another folder")
        return session

    def _shut(self, session: _Session, level: int, why: str) -> None:
        session.open = False
        log.log(level, "requests are not recorded: %s", why, extra=session.extra)

    def _take(self, session: _Session, asked: Asked, result: Result | Future[Result]) -> None:
        if isinstance(result, Future):
            result.add_done_callback(lambda done: self._answered(session, asked, done))
        else:
            self._put(session, asked)

    def _answered(self, session: _Session, asked: Asked, done: Future[Result]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._put(session, asked)

    def _put(self, session: _Session, asked: Asked) -> None:
        self._queue.append((session, asked))
        self._woken.set()

    def _run(self) -> None:
        while not self._closing:
            self._woken.wait(WRITE_EVERY_S)
            due = not self._woken.is_set()
            self._woken.clear()
            try:
                self._gather(write=due)
            except Exception:
                log.exception("recording a request failed")

    def _gather(self, write: bool) -> None:
        with self._lock:
            sessions = list(self._sessions.values())
        while self._queue:
            session, asked = self._queue.popleft()
            session.collection.add(asked)
        for session in sessions:
            if session.open and (write or session.collection.complete):
                self._write(session)

    def _write(self, session: _Session) -> None:
        """The whole file anew, as long as there is something new; complete, the recording ends."""
        found = len(session.collection.asked)
        if found > session.written:
            try:
                records.write(session.path, session.collection.logs(session.model))
            except OSError as error:
                self._shut(session, logging.WARNING, f"{session.path}: {error.strerror}")
                return
            session.written = found
            log.info("%d requests are recorded in %s", found, session.path, extra=session.extra)
        if session.collection.complete:
            session.open = False

    def close(self) -> None:
        """Writes what there is. Nothing is taken afterwards."""
        self._closing = True
        self._woken.set()
        self._thread.join(5)
        self._gather(write=True)


def _unwritable(folder: Path) -> str:
    """Why no file can be made in a folder that may not be there yet; "" when it can."""
    there = next(parent for parent in (folder / records.FILE_NAME.parent, folder, *folder.parents) if parent.exists())
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"
