"""A split signature as data: what the host computes, what the device is given, how the answer is put together.

A program lies in the folder of the plan's artifact: `split.json` (this module), tables (stored.py), and one folder per
device segment, `d1`, `d3`, ..., with what its engine keeps there.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tfopt_optimizer import plan, typed_json, whole
from tfopt_optimizer.plan import SignatureInfo

FILE_NAME, HOST_GRAPH = "split.json", "host.pb"
Exact = Mapping[str, Mapping[str, Mapping[str, plan.Shape]]]


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation on the host. `attributes` are the operation's own, as text (hostops.py reads them)."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pack:
    """One input of a device segment: a tensor as it is (`width` 0), or several side by side in a matrix [rows, width].

    `dtype` is the input's; the parts are converted to it. `widths` are the columns of each part."""

    name: str
    dtype: str
    parts: tuple[str, ...]
    widths: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Resource:
    """A table or a variable of the host's TensorFlow part: the node, and the numbers in the store of its keys and
    values, or of its one value."""

    node: str
    arrays: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the columns from `start` to `stop` (as Python counts) on an axis of a tensor may be."""

    tensor: str
    axis: int
    start: int
    stop: int | None
    low: int
    high: int


@dataclasses.dataclass(frozen=True)
class Stage:
    """A segment. Device stages have a signature, its packs, and `results`: the names of the signature's outputs ->
    tensors. Host stages have `steps`, or run in TensorFlow: `feeds` are placeholders -> tensors, `fetches` what comes
    out, `effects` the nodes that must run beside.

    `limits`: tensors of the packs -> the least and the largest value that the segment's look-ups can take; `columns`:
    the same of some columns alone."""

    where: str
    steps: tuple[Step, ...] = ()
    tensorflow: bool = False
    feeds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fetches: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    folder: str = ""
    signature: SignatureInfo | None = None
    packs: tuple[Pack, ...] = ()
    results: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    columns: tuple[Columns, ...] = ()


@dataclasses.dataclass(frozen=True)
class Program:
    """`inputs` and `outputs`: the signature's names -> tensors. `constants`: tensors -> numbers in the store.
    `resources`: of the host stages that run in TensorFlow. `exact`: for sets of input shapes (`key`), the device
    stages' folders -> their inputs' shapes, where more than the number of rows decides them."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    stages: tuple[Stage, ...]
    constants: Mapping[str, int] = dataclasses.field(default_factory=dict)
    shown: tuple[plan.Segment, ...] = ()
    resources: tuple[Resource, ...] = ()
    exact: Exact = dataclasses.field(default_factory=dict)

    @property
    def devices(self) -> tuple[Stage, ...]:
        return tuple(s for s in self.stages if s.where == "device")

    @property
    def needs_tensorflow(self) -> bool:
        return any(s.tensorflow for s in self.stages)


class Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def key(call: Mapping[str, Shaped | tuple[int, ...]], rows: bool = False) -> str:
    """Of a call's input shapes, or of all but the first dimension, which are `rows`."""
    shapes = {name: found if isinstance(found, tuple) else found.shape for name, found in call.items()}
    return json.dumps(sorted((name, list(shape[rows:])) for name, shape in shapes.items()))


def filled(shape: plan.Shape | None, rows: int | None) -> tuple[int, ...] | None:
    """The static shape for so many rows; None when more is open than that."""
    if shape is None or None in (shape if rows is None else shape[1:]):
        return None
    return tuple((rows or 0) if d is None else d for d in shape)


def write(program: Program, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole.write(folder / FILE_NAME, json.dumps(dataclasses.asdict(program), indent=1))


def read(folder: Path) -> Program:
    """OSError or ValueError (DocumentError) when it is not there or damaged."""
    path = folder / FILE_NAME
    found: Any = typed_json.build(Program, json.loads(path.read_text()), str(path))
    return typing.cast(Program, found)
