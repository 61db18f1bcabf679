"""The functions that a conversion placed on the TPU as programs for ahead.py: one per function and batch size."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer.tpu import ahead, files, objects
from tfopt_optimizer.tpu.ahead import AheadUnavailable, Compiled, Program
from tfopt_optimizer.tpu.emulate import emulate
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.link import SIZES
from tfopt_optimizer.tpu.place import INNER

_TOO_LARGE = "RESOURCE_EXHAUSTED"

Shape = tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted model: its message, its folder, the static shapes of each placed function's arguments, and the batch
    sizes of those that are batched."""

    saved_model: Any
    folder: Path
    placed: Mapping[str, Sequence[Shape]]
    sizes: Mapping[str, Sequence[int]]


def check(conversion: Conversion, topology: str, workplace: Path) -> tuple[list[Compiled], list[str]]:
    """Compiles every placed function for `topology`; the results, and a caution per function that could not be tried.

    ConversionError names what does not compile or fit.
    """
    emulated = copy.deepcopy(conversion.saved_model)
    for meta in emulated.meta_graphs:
        emulate(meta, compiled=False)
    files.link(conversion.folder, emulated, workplace / "ahead")
    functions = _Functions(ModelGraph(emulated.meta_graphs[0]), conversion.folder, workplace / "ahead")
    programs, cautions = list[Program](), list[str]()
    for name, shapes in conversion.placed.items():
        try:
            programs += functions.programs(name, shapes, tuple(conversion.sizes.get(name) or SIZES))
        except ValueError as error:
            cautions.append(f"{name!r} was not compiled for {topology}: {error}")
    try:
        made = list(ahead.compile_all(programs, topology))
    except AheadUnavailable as error:
        raise ConversionError([str(error)]) from error
    if wrong := [f"{c.name}: {topology}: {_explained(c.error)}" for c in made if c.error]:
        raise ConversionError(wrong)
    return made, cautions


class _Functions:
    def __init__(self, model: ModelGraph, converted: Path, emulated: Path) -> None:
        self._model, self._folder = model, emulated
        self._of_arguments = objects.arguments(model, objects.handles(model, objects.checkpoint_keys(converted)))

    def programs(self, name: str, shapes: Sequence[Shape], sizes: Sequence[int]) -> list[Program]:
        """ValueError says which argument's shape only a request can tell."""
        arguments = self._model.functions[name + INNER].signature.input_arg
        variables = {i: held for i in range(len(arguments)) if (held := self._variable(name, i))}
        given = [
            (a.name, shape) for i, (a, shape) in enumerate(zip(arguments, shapes, strict=True)) if i not in variables
        ]
        for argument, shape in given:
            if shape is None or None in shape[1:]:
                raise ValueError(f"the shape of its argument {argument!r} is {shape}, which only a request can tell")
        sized = any(shape and shape[0] is None for _, shape in given)
        return [
            Program(
                f"{name} x {rows}" if sized else name,
                inputs=len(given),
                model=str(self._folder),
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


def _explained(error: str) -> str:
    if _TOO_LARGE not in error:
        return error
    return (
        f"{error}: it does not fit into the TPU's memory; allow smaller batch sizes only, convert it to bfloat16 or "
        "place less of the model on the TPU"
    )
