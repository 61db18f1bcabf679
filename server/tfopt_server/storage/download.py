"""Objects of a bucket into a folder: in parallel pieces, checked, and going on where an earlier try ended.

A piece that was written is noted beside its file, so that a download that broke off (a lost connection, a restart) goes
on with what is missing, as long as the object is still the same (its ETag). Every read asks for that ETag. A finished
file's size is checked, and its MD5 where the ETag is one: S3's and Google's are, except for objects that were uploaded
in parts or are encrypted with a customer's key. The two look alike, so a digest that differs is read once more; the
same digest again means that the ETag is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from tfopt_server.errors import Code
from tfopt_server.storage.store import Changed, Object, StorageError

log = logging.getLogger(__name__)

PIECE = 16 * 1024 * 1024
THREADS = 8
TRIES = 4
FIRST_PAUSE_S = 0.5
PROGRESS_S = 5.0
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


Read = Callable[[Object, int, int], Iterator[memoryview]]


class _File:
    """An object on its way to `target`."""

    def __init__(self, what: Object, target: Path, piece: int) -> None:
        self.what, self.target, self._piece = what, target, piece
        self.part = target.with_name(target.name + ".part")
        self.notes = target.with_name(target.name + ".pieces")
        self._lock = threading.Lock()

    def begin(self) -> list[tuple[int, int]]:
        """The pieces that are missing, as (start, stop); none when the file is there."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        head = f"{self.what.etag} {self.what.size} {self._piece}\n"
        done: set[int] = set()
        with contextlib.suppress(OSError):
            lines = self.notes.read_text().splitlines(keepends=True)
            if self.what.etag and lines and lines[0] == head and self.part.is_file():
                done = {int(line) for line in lines[1:] if line.endswith("\n")}
        if not done:
            self.notes.write_text(head)
            self.part.write_bytes(b"")
        os.truncate(self.part, self.what.size)
        starts = range(0, self.what.size, self._piece)
        return [(at, min(at + self._piece, self.what.size)) for at in starts if at not in done]

    def note(self, start: int) -> None:
        with self._lock, self.notes.open("a") as notes:
            notes.write(f"{start}\n")

    def forget(self) -> None:
        self.notes.unlink(missing_ok=True)

    def digest(self) -> str:
        with self.part.open("rb") as part:
            return hashlib.file_digest(part, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def finish(self) -> None:
        os.replace(self.part, self.target)
        self.forget()


class Download:
    """`say` hears a line every few seconds. `read` gives an object's bytes: Store.read."""

    def __init__(
        self, read: Read, where: str, folder: Path, say: Callable[[str], None], *,
        piece: int = PIECE, pause_s: float = FIRST_PAUSE_S,
    ) -> None:  # fmt: skip
        self._read, self._where, self._folder, self._say = read, where, folder, say
        self._piece, self._pause_s = piece, pause_s
        self._stop = threading.Event()
        self._arrived = 0
        self._lock = threading.Lock()
        self.checked = 0
        self.resumed = 0

    def run(self, objects: Sequence[Object]) -> int:
        """Brings the objects into the folder; the bytes that were read. StorageError; what arrived is kept."""
        files = [_File(each, self._folder / safe(each.path), self._piece) for each in objects]
        total = sum(each.size for each in objects)
        self._began = self._said = time.monotonic()
        with ThreadPoolExecutor(THREADS, "tfopt-download") as pool:
            self._all(pool, files, total)
            again = [file for file in files if not self._right(file)]
            if again:
                digests = {file.what.key: file.digest() for file in again}
                for file in again:
                    file.forget()
                self._all(pool, again, total)
                for file in again:
                    if not self._right(file) and file.digest() != digests[file.what.key]:
                        file.forget()
                        raise StorageError(
                            Code.DATA_LOSS, f"{self._where}: {file.what.path} arrived with another checksum each time"
                        )
        for file in files:
            file.finish()
        return self._arrived

    def _all(self, pool: ThreadPoolExecutor, files: Sequence[_File], total: int) -> None:
        waiting: set[Future[None]] = set()
        for file in files:
            missing = file.begin()
            self.resumed += file.what.size - sum(stop - start for start, stop in missing)
            waiting |= {pool.submit(self._one, file, start, stop) for start, stop in missing}
        while waiting:
            done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_EXCEPTION)
            failed = next((error for future in done if (error := future.exception()) is not None), None)
            if failed is not None:
                self._stop.set()
                for future in waiting:
                    future.cancel()
                raise failed
            self._progress(total)

    def _progress(self, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= PROGRESS_S:
            self._said = now
            rate = self._arrived / (now - self._began)
            have = self._arrived + self.resumed
            self._say(f"downloading {self._where}: {mb(have)} of {mb(total)}, {mb(rate)}/s")

    def _one(self, file: _File, start: int, stop: int) -> None:
        """One piece, tried again when it breaks off."""
        for attempt in range(TRIES):
            try:
                self._piece_of(file, start, stop)
            except StorageError as error:
                hopeless = error.code in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.NOT_FOUND}
                if isinstance(error, Changed) or hopeless or attempt == TRIES - 1:
                    raise
                pause = self._pause_s * 2**attempt * random.uniform(0.5, 1.5)
                log.info("%s: %s, again in %.1f s: %s", self._where, file.what.path, pause, error)
                if self._stop.wait(pause):
                    return
            else:
                file.note(start)
                return

    def _piece_of(self, file: _File, start: int, stop: int) -> None:
        at = start
        with file.part.open("r+b", buffering=0) as part:
            part.seek(start)
            for some in self._read(file.what, start, stop):
                if at + len(some) > stop:
                    break
                part.write(some)
                at += len(some)
                with self._lock:
                    self._arrived += len(some)
                if self._stop.is_set():
                    raise StorageError(Code.CANCELLED, f"{self._where}: another piece failed")
        if at != stop:
            raise StorageError(
                Code.UNAVAILABLE,
                f"{self._where}: {file.what.path} broke off after {at - start} of {stop - start} bytes",
            )

    def _right(self, file: _File) -> bool:
        """Whether the digest is what the ETag says, or the ETag says nothing."""
        match = _MD5.fullmatch(file.what.etag)
        if match is None:
            return True
        right = file.digest() == match[1]
        self.checked += right
        return right


def safe(path: str) -> Path:
    """An object's path as one below a folder. StorageError for one that would lead out of it."""
    found = Path(path)
    if found.is_absolute() or ".." in found.parts or not found.parts:
        raise StorageError(Code.INVALID_ARGUMENT, f"an object is called {path!r}, which is no path below a folder")
    return found


def mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"
