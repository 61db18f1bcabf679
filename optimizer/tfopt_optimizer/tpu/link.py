"""What crosses the link between the host and the TPU in one call of a placed function, by batch size, from shapes.

Variables stay on the TPU. Values that a function captured are sent with every call, as its arguments are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfopt_protos import dtypes

from tfopt_optimizer.tpu.batch_rules import Shape
from tfopt_optimizer.tpu.graph import DT_RESOURCE, ModelGraph
from tfopt_optimizer.tpu.shapes import FunctionShapes
from tfopt_optimizer.wording import count, size

SIZES = (1, 8)  # rows, where the function is not batched


@dataclasses.dataclass(frozen=True)
class Moved:
    """One tensor; `shape` and `size` (bytes) are None where only a request can tell."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    size: int | None


@dataclasses.dataclass(frozen=True)
class Transfer:
    """One call of `function` with `rows` rows, None where its shapes do not depend on a number of rows."""

    function: str
    rows: int | None
    to_tpu: tuple[Moved, ...]
    from_tpu: tuple[Moved, ...]

    @property
    def name(self) -> str:
        return self.function if self.rows is None else f"{self.function} x {self.rows}"


def transfers(
    model: ModelGraph, shapes: Mapping[str, FunctionShapes], sizes: Mapping[str, Sequence[int]]
) -> tuple[Transfer, ...]:
    """For the functions of `shapes`. `sizes`: the batch sizes of those that are batched. An unknown first dimension is
    the number of rows."""
    found = []
    for name, known in sorted(shapes.items()):
        signature = model.functions[name].signature
        given = [
            (a, s) for a, s in zip(signature.input_arg, known.inputs, strict=True) if a.type != DT_RESOURCE
        ]  # variables are there already
        answers = list(zip(signature.output_arg, known.outputs, strict=True))
        sized = any(s and s[0] is None for _, s in (*given, *answers))
        for rows in (sizes.get(name) or SIZES) if sized else (None,):
            found.append(Transfer(name, rows, _moved(given, rows), _moved(answers, rows)))
    return tuple(found)


def total(tensors: Iterable[Moved]) -> int:
    """Bytes of those whose size is known."""
    return sum(t.size or 0 for t in tensors)


def lines(found: Iterable[Transfer]) -> list[str]:
    return [f"host link: {c.name}: {_side(c.to_tpu)} to the TPU, {_side(c.from_tpu)} back" for c in found]


def _side(tensors: Sequence[Moved]) -> str:
    unknown = [t.name for t in tensors if t.size is None]
    beyond = f" and {', '.join(unknown)}, whose size only a request can tell," if unknown else ""
    return f"{size(total(tensors))} in {count(len(tensors), 'tensor')}{beyond}"


def _moved(tensors: Iterable[tuple[Any, Shape]], rows: int | None) -> tuple[Moved, ...]:
    return tuple(_one(argument, shape, rows) for argument, shape in tensors)


def _one(argument: Any, shape: Shape, rows: int | None) -> Moved:
    dtype = dtypes.name(argument.type)
    if shape is None or None in shape[1:]:
        return Moved(argument.name, dtype, None, None)
    known = tuple(rows or 0 if d is None else d for d in shape)
    return Moved(argument.name, dtype, known, math.prod(known) * item_size(dtype))


def item_size(dtype: str) -> int:
    """Bytes of one element. Quantized types have those of the integers that they hold."""
    return dtypes.to_numpy(dtype.removeprefix("q")).itemsize
