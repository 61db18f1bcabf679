"""How one model lies on several devices: large weights in equal parts along one dimension, everything else whole.

XLA's GSPMD does the rest: from the weights' places it finds where products are summed across devices.
"""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 64 << 10  # bytes of a weight below which parts save nothing worth a transfer
WHOLE = "{replicated}"


def axis(shape: Sequence[int], nbytes: int, parts: int) -> int | None:
    """The dimension to cut: the largest that `parts` divides, of equal ones the last; None: the array stays whole."""
    if parts == 1 or nbytes < LEAST:
        return None
    able = [i for i, size in enumerate(shape) if size and size % parts == 0]
    return max(able, key=lambda i: (shape[i], i), default=None)


def text(rank: int, cut: int | None, parts: int) -> str:
    """The same in the words of XLA's `OpSharding`: `{devices=[1,4]<=[4]}`."""
    if cut is None:
        return WHOLE
    tiles = ",".join(str(parts if i == cut else 1) for i in range(rank))
    return f"{{devices=[{tiles}]<=[{parts}]}}"
