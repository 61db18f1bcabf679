"""Whether a disk is full, and the line for the operator that says which.

Native code says it in words of its own ("iostream error") or not at all, so besides asking the error we try to write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfopt_optimizer import plan, wording
from tfopt_optimizer.errors import NoSpace

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PROBE = 64 << 10


def is_full(error: BaseException | None) -> bool:
    """Whether the error, or what it was raised from, is a write for which there was no space."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def refusal(error: BaseException | None, plan_dir: Path) -> str:
    """Which folder has no space left, after a command that wrote and failed with `error`, or that ended well, which
    native code may believe of half a file. "" when that is not the trouble."""
    if not _takes_more(plan_dir / plan.UNFINISHED):
        return line(plan_dir)
    if not is_full(error):
        return ""
    temporary = _temporary()
    return line(temporary) if temporary and not _temporary_takes_more() else line(plan_dir, temporary)


def line(*folders: Path | None) -> str:
    """For example "no space left in /plans (12.3 kB of 8.39 MB are free)"; several where it is one of them."""
    return "no space left in " + " or ".join(f"{folder}{_free(folder)}" for folder in folders if folder is not None)


@contextlib.contextmanager
def told(folder: Path) -> Iterator[None]:
    """NoSpace, which names the folder, for a write in it that finds none; Python's own error often does not."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise NoSpace(line(folder)) from error
        raise


@contextlib.contextmanager
def named_temporary() -> Iterator[None]:
    """Within it a temporary folder has a name even where none can be written: importing TensorFlow asks for no more."""
    if _temporary() is not None:
        yield
        return
    tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = None  # the next who asks looks again


def need_temporary() -> None:
    """NoSpace when there is no folder for temporary files."""
    if _temporary() is None:
        raise NoSpace(
            "no folder for temporary files can be written, each is full or read-only: TMPDIR, /tmp, /var/tmp, /usr/tmp "
            "and the working directory were tried"
        )


def _takes_more(path: Path) -> bool:
    """Whether an empty file can grow a little. True where that cannot be told: the folder may be gone."""
    try:
        handle = os.open(path, os.O_WRONLY)
        with os.fdopen(handle, "wb", buffering=0) as file:
            return _grows(file.fileno())
    except OSError:
        return True


def _temporary_takes_more() -> bool:
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            return _grows(file.fileno())
    except OSError as error:
        return not is_full(error)


def _grows(handle: int) -> bool:
    try:
        return os.write(handle, os.urandom(PROBE)) == PROBE  # zeros may cost nothing: file systems compress
    except OSError as error:
        return not is_full(error)
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)


def _temporary() -> Path | None:
    with contextlib.suppress(OSError):  # no folder of the usual ones can be written
        return Path(tempfile.gettempdir())
    return None


def _free(folder: Path) -> str:
    with contextlib.suppress(OSError):
        found = os.statvfs(folder)
        if found.f_blocks:
            free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
            return f" ({wording.size(free)} of {wording.size(whole)} are free)"
    return ""
