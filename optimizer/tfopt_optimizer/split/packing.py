"""Few inputs for a device segment: tensors with one row each lie side by side in one matrix per type. Pure policy.

A call costs an engine 1 to 10 us per input, and TensorFlow's session more. Which tensors may share a matrix: those
whose first dimension is the request's rows for sure and whose others are known. 64-bit numbers whose values are known
to fit travel in 32 bits, which OpenVINO computes in anyway.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from tfopt_optimizer.plan import Shape
from tfopt_optimizer.split.graph import Graph, node_of

_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "int64")


@dataclasses.dataclass(frozen=True)
class Part:
    """A tensor of the graph in an input: its own type and shape."""

    tensor: str
    dtype: str
    shape: Shape | None


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of a device segment of type `dtype`: one tensor, or a matrix [rows, sum(widths)] of several."""

    name: str
    dtype: str
    shape: Shape | None
    members: tuple[Part, ...]
    widths: tuple[int, ...] = ()
    rows: bool = False  # the first dimension is the request's

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(m.tensor for m in self.members)

    def static(self, rows: int | None) -> tuple[int, ...] | None:
        """The shape for a batch; None when it is known only at run time."""
        if self.shape is None:
            return None
        found = [rows if i == 0 and self.rows else d for i, d in enumerate(self.shape)]
        return None if any(d is None for d in found) else tuple(d for d in found if d is not None)


def pack(graph: Graph, tensors: Sequence[str], fits_int32: Callable[[str], bool]) -> tuple[Input, ...]:
    """The inputs, in the order in which their first tensors are asked for."""
    groups: dict[str, list[Part]] = {}
    for name in tensors:
        part = Part(name, graph.tensor(name).dtype, graph.shape(name))
        dtype = "int32" if part.dtype == "int64" and fits_int32(name) else part.dtype
        # Numbers of a request that may be looked up keep an input of their own, where engines check their range.
        free = part.dtype not in _INTEGERS or node_of(name) not in graph.fed
        regular = free and graph.has_rows(name) and part.shape is not None and None not in part.shape[1:]
        groups.setdefault(f"{dtype}:" if regular else f"{dtype}:{name}", []).append(part)
    found: list[Input] = []
    for key, members in groups.items():
        name, dtype = f"in_{len(found)}", key.partition(":")[0]
        if len(members) == 1:
            shape, rows = members[0].shape, graph.has_rows(members[0].tensor)
            found.append(Input(name, dtype, shape, tuple(members), rows=rows))
        else:
            widths = tuple(math.prod(d or 0 for d in (m.shape or ())[1:]) for m in members)
            found.append(Input(name, dtype, (None, sum(widths)), tuple(members), widths, rows=True))
    return tuple(found)
