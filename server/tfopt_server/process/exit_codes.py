"""What the process's exit code says; docs/server-behavior.md has the table for operators."""

from __future__ import annotations

DRAINED = 0
CANNOT_START = 255  # what a shell sees of TensorFlow Serving's `return -1`


def cut_short(sig: int) -> int:
    """Ended at once by this signal, as a shell would report it."""
    return 128 + sig
