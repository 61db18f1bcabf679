"""A folder takes the place of another, so that whoever looks finds the one or the other, whole.

Linux exchanges two names in one step (renameat2). File systems that cannot, NFS and mounted buckets among them, rename
twice: who is killed just between leaves the old folder whole under another name.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

_HERE = -100  # AT_FDCWD: relative paths are those of the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE


def replace(folder: Path, final: Path) -> None:
    """Gives `folder` the name `final`, which is beside it, and removes what had it. OSError: `final` is as before."""
    try:
        _swap(folder, final)
    except OSError:
        shutil.rmtree(_moved(folder, final), ignore_errors=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _moved(folder: Path, final: Path) -> Path:
    """By two renames, by one where nothing has the name. Returns where the old one is."""
    old = folder.with_name(f"{folder.name}.old")
    try:
        final.rename(old)
    except FileNotFoundError:
        folder.rename(final)
        return old
    try:
        folder.rename(final)
    except OSError:
        old.rename(final)
        raise
    return old


def _swap(one: Path, other: Path) -> None:
    """OSError where the system or the file system has no such step."""
    rename = _renameat2()
    if rename is None:
        raise OSError(f"no renameat2 to exchange {one} and {other}")
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one), None, str(other))


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return found
