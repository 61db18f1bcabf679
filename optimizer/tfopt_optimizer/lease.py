"""A lock that works between hosts that share a folder: a file that its holder keeps renewing.

    with lease.hold(folder / "plan.lock", on_wait) as ours: ...
    with lease.hold(folder / "plan.lock", on_wait, living=give_up) as ours: ...  # give_up raises

Made with O_EXCL, which is atomic on local disks, NFS and the bucket mounts that check preconditions (flock is not there
on all of them). A holder that stops renewing for EXPIRY_S, by the waiter's own clock, is dead and loses it; one whose
process is gone from this very machine loses it at once. The lock saves work, it does not keep results right: there may
be two holders when one was frozen for so long, or when several take over at the same moment, and what they make must be
published by an atomic rename.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

RENEW_S = 3.0
EXPIRY_S = 30.0
POLL_S = 0.2


class Lease:
    """One holder's claim on the file. `token` is in it and nobody else's."""

    def __init__(self, path: Path, token: str) -> None:
        self._path, self.token, self._beats = path, token, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="tfopt-lease", daemon=True)

    def take(self) -> bool:
        """Whether the file was not there and is ours now. OSError when the folder cannot be written."""
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w") as file:
                file.write(self._text())
        except OSError:  # a full disk: an empty file would make others wait
            self._path.unlink(missing_ok=True)
            raise
        self._thread.start()
        return True

    def ours(self) -> bool:
        """Whether the file is still ours: somebody may have taken it while this process was frozen."""
        return _read(self._path).get("token") == self.token

    def lost(self) -> bool:
        """Whether it is known not to be ours. A share that is away for a moment says nothing."""
        try:
            return bool(json.loads(self._path.read_text())["token"] != self.token)
        except FileNotFoundError:
            return True
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def give_back(self) -> None:
        self._stop.set()
        self._thread.join()
        if not self.lost():  # it may be there without a word in it: a renewal that found the disk full
            self._path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S) and not self.lost():
            self._beats += 1
            with contextlib.suppress(OSError):  # the next renewal may reach the share
                self._path.write_text(self._text())

    def _text(self) -> str:
        return json.dumps({"token": self.token, "where": here(), "pid": os.getpid(), "beat": self._beats})


@contextlib.contextmanager
def hold(path: Path, on_wait: Callable[[], None], living: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Waits until the file is ours. `on_wait` is called once, before the first wait; `living` whenever the holder has
    been seen to renew it: who does not want to wait raises there. OSError as from `Lease.take`."""
    lease, told = Lease(path, uuid.uuid4().hex), False
    watched = _Watched(path)
    while not lease.take():
        if not told:
            told = True
            on_wait()
        if watched.dead():
            _remove(path, lease.token)
            continue
        if watched.renewed:
            living()
        time.sleep(POLL_S)
    try:
        yield lease
    finally:
        lease.give_back()


class _Watched:
    """Somebody else's lease, looked at again and again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, object] = {}
        self._since = time.monotonic()
        self.renewed = False  # by its holder, since we look

    def dead(self) -> bool:
        found = _read(self._path)
        if found != self._seen:
            self.renewed = bool(found and found.get("token") == self._seen.get("token"))
            self._seen, self._since = found, time.monotonic()
        if here() and found.get("where") == here() and not _lives(found.get("pid")):
            return True
        return time.monotonic() - self._since > EXPIRY_S


def _remove(path: Path, token: str) -> None:
    """Takes a dead holder's file away; of several that try at once, one moves it. One that comes just after may move
    the next holder's instead: then both work, as the module says."""
    stale = path.with_name(f"{path.name}.{token}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(stale)
        stale.unlink()


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):  # just gone, or just being written
        return {}
    return found if isinstance(found, dict) else {}


def here() -> str:
    """This machine since its start, and the process numbers' name space: a pid means something there alone. "" where
    the system does not tell."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


def _lives(pid: object) -> bool:
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
