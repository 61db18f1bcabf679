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
from typing import Any

from tfopt_optimizer import plan
from tfopt_optimizer.plan import SignatureInfo

FILE_NAME = "split.json"


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
class Stage:
    """A segment. Host stages have `steps`; device stages a signature, its packs, and `results`: the names of the
    signature's outputs -> tensors."""

    where: str
    steps: tuple[Step, ...] = ()
    folder: str = ""
    signature: SignatureInfo | None = None
    packs: tuple[Pack, ...] = ()
    results: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Program:
    """`inputs` and `outputs`: the signature's names -> tensors. `constants`: tensors -> numbers in the store."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    stages: tuple[Stage, ...]
    constants: Mapping[str, int] = dataclasses.field(default_factory=dict)
    shown: tuple[plan.Segment, ...] = ()

    @property
    def devices(self) -> tuple[Stage, ...]:
        return tuple(s for s in self.stages if s.where == "device")


def write(program: Program, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).write_text(json.dumps(dataclasses.asdict(program), indent=1))


def read(folder: Path) -> Program:
    """OSError or ValueError (PlanError) when it is not there or damaged."""
    path = folder / FILE_NAME
    found: Any = plan.build(Program, json.loads(path.read_text()), str(path))
    return typing.cast(Program, found)
