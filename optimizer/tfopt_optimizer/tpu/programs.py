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
from tfopt_optimizer.tpu.graph import DT_RESOURCE, ModelGraph
from tfopt_optimizer.tpu.io_shapes import Border, Parcel
from tfopt_optimizer.tpu.place import INNER


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted model: its message, its folder, what crosses to each placed function, the sizes of their batches."""

    saved_model: Any
    folder: Path
    borders: Mapping[str, Border]
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

    def programs(self, name: str, parcels: Sequence[Parcel], sizes: Sequence[int]) -> list[Program]:
        """ValueError says which shape only a request can tell."""
        arguments = self._model.functions[name + INNER].signature.input_arg
        variables = {i: held for i in range(len(arguments)) if (held := self._variable(name, i))}
        given = [i for i in range(len(arguments)) if i not in variables]
        if unknown := [arguments[i].name for i in given if arguments[i].type == DT_RESOURCE]:
            raise ValueError(f"what its argument {unknown[0]!r} holds is not known")
        for i, (_, size) in variables.items():
            if min(size, default=0) < 0:
                raise ValueError(f"the variable behind its argument {arguments[i].name!r} has no static shape")
        sized = any(p.by_rows for p in parcels)
        programs = []
        for rows in sizes if sized else sizes[:1]:
            shapes = {i: p.crossing(rows) for i, p in zip(given, parcels, strict=True)}
            programs.append(
                Program(
                    f"{name} x {rows}" if sized else name,
                    inputs=len(given),
                    model=self._folder,
                    function=name + INNER,
                    shapes=tuple(shapes.get(i) for i in range(len(arguments))),
                    variables=variables,
                )
            )
        return programs

    def _variable(self, name: str, index: int) -> tuple[int, tuple[int, ...]] | None:
        """The type and the shape of the variable that an argument stands for."""
        number = self._of_arguments.get((name + INNER, index))
        if number is None or not self._model.objects.nodes[number].HasField("variable"):
            return None
        held = self._model.objects.nodes[number].variable
        return int(held.dtype), tuple(int(d.size) for d in held.shape.dim)
