"""A model's base path in a bucket, and the copies of its versions on this machine.

    <--model_cache_dir>/<bucket-path-digest>/<version>/        the SavedModel
                                             .<version>.json    what it was copied from, written when it is whole
                                             .<version>.part/   a copy that is on its way
                                             .locks/            who copies, who uses

Workers of one server, and servers on one machine, share the copies: one downloads while the others wait, and a copy
that was given up goes when nobody uses it any more. A copy that is there already is compared with the bucket's list
(names, sizes, ETags) and only what differs is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tfopt_server import repository
from tfopt_server.errors import Code
from tfopt_server.repository import BARE_VERSION, MODEL_FILES, Listing
from tfopt_server.storage.download import Download, mb, safe
from tfopt_server.storage.store import Object, StorageError, Store
from tfopt_server.uris import Uri

BARE = "model"  # the folder of a SavedModel that lies at the base path itself


class Mirror:
    """`poll_s` between two looks at the bucket; in between, `look` repeats what it saw."""

    def __init__(
        self, uri: Uri, cache: Path, poll_s: float, clock: Callable[[], float] = time.monotonic,
        open_store: Callable[[Uri], Store] = Store,
    ) -> None:  # fmt: skip
        self.uri, self._poll_s, self._clock, self._open = uri, poll_s, clock, open_store
        self.folder = cache / uri.folder_name
        self._store: Store | None = None
        self._seen: Listing | None = None
        self._due = 0.0
        self._whole: set[str] = set()
        self._used: dict[str, int] = {}  # open files of .locks that say so

    def look(self) -> Listing:
        """As repository.look, with the folders that `fetch` will fill. `problem` says why the bucket cannot be read."""
        if self._seen is None or self._clock() >= self._due:
            try:
                self._seen = self._listed()
            except StorageError as error:
                self._seen = Listing({}, {}, problem=error.message)
            self._due = self._clock() + self._poll_s
        return self._seen

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open(self.uri)
        return self._store

    def _listed(self) -> Listing:
        names, objects = self._opened().folders()
        if any(each.path in MODEL_FILES for each in objects):
            lacks = self._lacks(BARE)
            here = {BARE_VERSION: self.folder / BARE}
            return Listing({} if lacks else here, {BARE_VERSION: lacks} if lacks else {})
        if not names and not objects:
            return Listing({}, {}, problem=f"there is nothing at {self.uri}")
        folders, ignored = repository.numbered(sorted(names))
        lacking = {number: self._lacks(name) for number, name in folders.items()}
        self._whole &= set(folders.values())
        return Listing(
            {number: self.folder / name for number, name in folders.items() if not lacking[number]},
            {number: lacks for number, lacks in lacking.items() if lacks},
            ignored,
        )

    def _lacks(self, name: str) -> str:
        """A version that was whole once is not listed again: one request per look, however many versions there are."""
        if name in self._whole:
            return ""
        lacks = repository.lacking([each.path for each in self._tree(name)])
        if not lacks:
            self._whole.add(name)
        return lacks

    def _tree(self, name: str) -> list[Object]:
        return self._opened().tree("" if name == BARE else name)

    def stamp(self, folder: Path) -> tuple[tuple[str, int, str], ...]:
        """Differs when somebody changed the version's objects; () while nobody can say."""
        try:
            return tuple(sorted((each.path, each.size, each.etag) for each in self._tree(folder.name)))
        except StorageError:
            return ()

    def fetch(self, folder: Path, say: Callable[[str], None]) -> None:
        """Makes the folder a copy of its version and holds it. StorageError says why that cannot be."""
        name = folder.name
        try:
            with self._copying(name):
                self._use(name)
                self._bring(name, say)
                self._tidy()
        except OSError as error:
            raise StorageError(
                Code.UNAVAILABLE, f"{self.uri}: cannot be copied to {self.folder} (--model_cache_dir): {error}"
            ) from error
        except StorageError:
            self._whole.discard(name)
            raise

    def _bring(self, name: str, say: Callable[[str], None]) -> None:
        objects = self._tree(name)
        if not objects:
            raise StorageError(Code.NOT_FOUND, f"{self._where(name)}: the version is gone")
        folder, staging, record = self.folder / name, self.folder / f".{name}.part", self.folder / f".{name}.json"
        wanted = {each.path: [each.size, each.etag] for each in objects}
        have = _recorded(record, folder)
        missing = [each for each in objects if have.get(each.path) != wanted[each.path] or not each.etag]
        gone = have.keys() - wanted.keys()
        if missing or gone:
            record.unlink(missing_ok=True)
        began = time.monotonic()
        download = Download(self._opened().read, self._where(name), staging, say)
        size = download.run(missing)
        for each in missing:
            target = folder / safe(each.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / safe(each.path), target)
        for path in gone:
            (folder / safe(path)).unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        record.write_text(json.dumps(wanted))
        if not missing:
            say(f"{self._where(name)} is here already, in {folder}")
            return
        seconds = time.monotonic() - began
        kept = f", {mb(download.resumed)} were here from an earlier try" if download.resumed else ""
        say(
            f"downloaded {self._where(name)} to {folder}: {len(missing)} objects, {mb(size)} in {seconds:.1f} s{kept}; "
            f"{download.checked} checked by MD5, all by size and ETag"
        )

    def _where(self, name: str) -> str:
        return str(self.uri) if name == BARE else f"{str(self.uri).rstrip('/')}/{name}"

    def release(self, folder: Path) -> None:
        """The version is not used here any more: its copy goes when no other process uses it either."""
        lock = self._used.pop(folder.name, None)
        if lock is not None:
            _unlock(lock)
        self._whole.discard(folder.name)
        self._remove_unused(folder.name)

    def _tidy(self) -> None:
        """Removes copies of versions that are neither used nor in the bucket any more: an earlier server's."""
        listed = {path.name for path in self._seen.versions.values()} if self._seen else set()
        for child in self.folder.iterdir():
            if child.is_dir() and not child.name.startswith(".") and child.name not in listed | self._used.keys():
                self._remove_unused(child.name)

    def _remove_unused(self, name: str) -> None:
        with contextlib.suppress(OSError):
            lock = self._lock_file(f"{name}.used")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (self.folder / f".{name}.json").unlink(missing_ok=True)
                shutil.rmtree(self.folder / name, ignore_errors=True)
                shutil.rmtree(self.folder / f".{name}.part", ignore_errors=True)
            finally:
                _unlock(lock)

    @contextlib.contextmanager
    def _copying(self, name: str) -> Iterator[None]:
        lock = self._lock_file(f"{name}.copied")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            _unlock(lock)

    def _use(self, name: str) -> None:
        if name not in self._used:
            lock = self._lock_file(f"{name}.used")
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._used[name] = lock

    def _lock_file(self, name: str) -> int:
        locks = self.folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return os.open(locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _unlock(lock: int) -> None:
    """Closing alone would leave the lock to a child that is just being started: it has the file open until its exec."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _recorded(record: Path, folder: Path) -> dict[str, list[object]]:
    """What a whole copy holds, without what was lost from it since; {} where there is none."""
    try:
        recorded: dict[str, list[object]] = json.loads(record.read_text())
        return {path: [size, tag] for path, (size, tag) in recorded.items() if _is(folder / path, size)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is(path: Path, size: object) -> bool:
    return path.is_file() and path.stat().st_size == size
