"""A small disk for one command: a tmpfs in a mount namespace of its own, gone with the command.

    subprocess.run(smalldisk.command("64k", folder, [sys.executable, ...]))

Marked `mount`; skipped by name where the system does not let us mount.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_MOUNTED = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'
_LISTED = '"$@"; code=$?; find "$WHERE" -type f | sed "s/^/left: /"; exit $code'


def command(size: str, folder: Path, argv: Sequence[str], *, listed: bool = False) -> list[str]:
    """`argv` with an empty disk of `size` ("64k") at `folder`; `listed`: the files that are there at the end are
    printed to standard output."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    inner = ["env", f"WHERE={folder}", "sh", "-c", _LISTED, "sh", *argv] if listed else [*argv]
    return ["unshare", *user, "--mount", "sh", "-c", _MOUNTED, "sh", size, str(folder), *inner]


@functools.cache
def _usable() -> bool:
    try:
        tried = command("64k", Path("/mnt"), ["true"])
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def needed() -> None:
    """Skips the test where no disk can be mounted."""
    if not _usable():
        pytest.skip("mount: this system does not let us mount a small disk (unshare --mount)")
