"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc


def give_memory_back() -> None:
    """Returns freed memory to the system: without it, resident memory keeps its highest mark over reloads."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library than glibc has no such call
        return
