"""How much memory a tensor takes at the border of a TPU program, and what it costs to bring it there from rank 1.

    >>> padded((8, 16, 16, 3), "float")      # 24,576 bytes of values in tiles of 8 x 128
    196608

The compiler lays arguments and results out in tiles of 8 rows by 128 lanes, with whichever two dimensions as rows and
lanes pad least; fewer than 8 rows take a tile of the next power of two; types of less than 32 bits pack 2 or 4 rows.
Rank 1 is padded to a power of two up to 1024 values. tests/tpu/test_ahead.py compares both with libtpu.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from tfopt_optimizer.tpu.link import item_size

_LANES, _ROWS, _LINE = 128, 8, 1024
_LEAST = 512  # bytes of one register line, the smallest allocation
_WIDEST = 4  # bytes; what is wider is held as several 32-bit values
# libtpu's model for v5e, within a factor of two for what tests/tpu/test_ahead.py measures: bytes of values moved per
# second for each value that lies together in the last dimension, up to the speed of memory both ways.
_RELAYOUT, _MEMORY = 2.5e9, 200e9


def padded(shape: Sequence[int], dtype: str) -> int:
    """Bytes in the layout that pads least."""
    if 0 in shape:
        return 0
    item = item_size(dtype)
    width = min(item, _WIDEST)
    times = item // width
    if len(shape) < 2:
        return times * width * _line(math.prod(shape), width)
    pairs = itertools.permutations(range(len(shape)), 2)
    return times * width * min(_tiled(shape, lanes, rows, width) for lanes, rows in pairs)


def relayout_s(shape: Sequence[int], dtype: str) -> float:
    """Seconds on the TPU to bring rank 1 into this shape, or back."""
    size = math.prod(shape) * item_size(dtype)
    together = shape[-1] if shape else 1
    return size / min(_RELAYOUT * max(together, 1), _MEMORY)


def _line(values: int, width: int) -> int:
    """Rank 1, in values."""
    least = _LEAST // width
    if values <= least:
        return least
    return _up(values, min(_LINE, 1 << (values - 1).bit_length()))


def _tiled(shape: Sequence[int], lanes: int, rows: int, width: int) -> int:
    packed = _WIDEST // width
    high = max(packed, min(_ROWS, 1 << (shape[rows] - 1).bit_length()))
    rest = math.prod(d for i, d in enumerate(shape) if i not in (lanes, rows))
    return rest * _up(shape[lanes], _LANES) * _up(shape[rows], high)


def _up(number: int, to: int) -> int:
    return -(-number // to) * to
