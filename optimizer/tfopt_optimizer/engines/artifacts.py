"""What a compiled target's folder holds: the module, what its parameters mean, and the machine code.

`module.stablehlo`   serialized StableHLO; parameters: the inputs, then the weights
`module.json`        names of inputs and outputs in order, numbers of the weights in the plan's weights file, and the
                     values that inputs may have (guards.py)
`executable.<variant>`  the module compiled, valid for an equal processor (`pjrt`) or accelerator and an equal jaxlib
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tfopt_optimizer import whole
from tfopt_optimizer.engines import limits
from tfopt_optimizer.engines.limits import Bounds, Part

MODULE, META = "module.stablehlo", "module.json"


@dataclasses.dataclass(frozen=True)
class Meta:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[int, ...]
    limits: Bounds = dataclasses.field(default_factory=dict)


def executable(variant: str) -> str:
    """The name of the file with a variant's machine code."""
    return f"executable.{variant}"


def write_module(folder: Path, module: bytes, meta: Meta) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = {**dataclasses.asdict(dataclasses.replace(meta, limits={})), "bounds": limits.written(meta.limits)}
    (folder / META).write_text(json.dumps(told, indent=1))
    whole.write(folder / MODULE, module)  # last, for its presence says: both are there


def read_meta(folder: Path) -> Meta:
    data = json.loads((folder / META).read_text())
    of_inputs = {Part(name): (low, high) for name, (low, high) in data.get("limits", {}).items()}  # by older versions
    return Meta(
        tuple(data["inputs"]),
        tuple(data["outputs"]),
        tuple(data["weights"]),
        {**of_inputs, **limits.read(data.get("bounds", ()))},
    )
