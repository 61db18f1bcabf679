"""The functions that a conversion placed on the TPU, as programs with static shapes that a compiler can be given."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer.tpu import objects
from tfopt_optimizer.tpu.ahead import Program
from tfopt_optimizer.tpu.emulate import emulate
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.place import INNER

Shape = tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted model: its message, its folder, the static shapes of each placed function's arguments, and the batch
    sizes of those that are batched."""

    saved_model: Any
    folder: Path
    placed: Mapping[str, Sequence[Shape]]
    sizes: Mapping[str, Sequence[int]]

    def emulated(self) -> Any:
        """The message without operations that only a TPU has."""
        found = copy.deepcopy(self.saved_model)
        for meta in found.meta_graphs:
            emulate(meta, compiled=False)
        return found


class Functions:
    """`model`: of an emulated conversion, for `folder`, from where whoever compiles reads it; "" where nobody does."""

    def __init__(self, conversion: Conversion, model: ModelGraph, folder: str) -> None:
        self._model, self._folder = model, folder
        keys = objects.checkpoint_keys(conversion.folder)
        self._of_arguments = objects.arguments(model, objects.handles(model, keys))

    def programs(self, name: str, shapes: Sequence[Shape], sizes: Sequence[int]) -> list[Program]:
        """ValueError says which shape only a request can tell."""
        arguments = self._model.functions[name + INNER].signature.input_arg
        variables = {i: held for i in range(len(arguments)) if (held := self._variable(name, i))}
        given = [
            (a.name, shape) for i, (a, shape) in enumerate(zip(arguments, shapes, strict=True)) if i not in variables
        ]
        for argument, shape in given:
            if shape is None or None in shape[1:]:
                raise ValueError(f"the shape of its argument {argument!r} is {shape}, which only a request can tell")
        for i, (_, size) in variables.items():
            if min(size, default=0) < 0:
                raise ValueError(f"the variable behind its argument {arguments[i].name!r} has no static shape")
        sized = any(shape and shape[0] is None for _, shape in given)
        return [
            Program(
                f"{name} x {rows}" if sized else name,
                inputs=len(given),
                model=self._folder,
                function=name + INNER,
                shapes=tuple(None if i in variables else _sized(shape, rows) for i, shape in enumerate(shapes)),
                variables=variables,
            )
            for rows in (sizes if sized else sizes[:1])
        ]

    def _variable(self, name: str, index: int) -> tuple[int, tuple[int, ...]] | None:
        """The type and the shape of the variable that an argument stands for."""
        number = self._of_arguments.get((name, index), self._of_arguments.get((name + INNER, index)))
        if number is None or not self._model.objects.nodes[number].HasField("variable"):
            return None
        held = self._model.objects.nodes[number].variable
        return int(held.dtype), tuple(int(d.size) for d in held.shape.dim)


def _sized(shape: Shape, rows: int) -> tuple[int, ...]:
    return tuple(rows if d is None else d for d in shape or ())
