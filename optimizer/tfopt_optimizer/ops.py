"""Which operations TensorFlow has, and which of them XLA compiles: a committed list that needs no TensorFlow.

A test compares the list with the installed TensorFlow; optimizer/extract_ops.py writes it.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from importlib import resources


@dataclasses.dataclass(frozen=True)
class Registry:
    """`names`: every registered operation; `compiled`: those with an XLA kernel (for some of their types)."""

    version: str
    graph_def_version: int
    names: frozenset[str]
    compiled: frozenset[str]


@functools.cache
def registry() -> Registry:
    header, *lines = resources.files(__package__).joinpath("ops.txt").read_text().splitlines()
    found = re.match(r"# tensorflow (\S+), GraphDef version (\d+)\.", header)
    if found is None:
        raise ValueError(f"ops.txt: expected a header with TensorFlow's version, received {header!r}")
    rows = [line.split() for line in lines]
    return Registry(
        found[1],
        int(found[2]),
        frozenset(row[0] for row in rows),
        frozenset(row[0] for row in rows if row[1:] == ["xla"]),
    )
