"""Does XLA take each placed function: lowered with the shapes of its signature, whatever the samples reach.

What runs on this machine is compiled for the values at hand (trial.py); here the values are unknown, as they are to the
TPU's compiler. The batch size is made up where no batch op says one, so that only what it cannot cause is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfopt_optimizer.engines import modules
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.tpu import advice
from tfopt_optimizer.tpu.errors import CompilerError
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.lower import Library
from tfopt_optimizer.tpu.programs import Conversion, Functions

ROWS = 8


@dataclasses.dataclass(frozen=True)
class Lowered:
    """`results`: function -> the types of its results as MLIR writes them. `untried`: function -> why."""

    results: Mapping[str, tuple[str, ...]]
    untried: Mapping[str, str]

    def cautions(self) -> list[str]:
        """Results that have a bound instead of a size."""
        return [
            f"TPU function {name!r}: result {i} has a bound instead of a size ({kind}): {advice.REMEDIES['dynamic']}"
            for name, kinds in self.results.items()
            for i, kind in enumerate(kinds)
            if "?" in kind
        ]


def check(conversion: Conversion) -> Lowered:
    """CompilerError names the operations that XLA does not take."""
    emulated = conversion.emulated().meta_graphs[0]
    functions = Functions(conversion, ModelGraph(emulated), "")
    results: dict[str, tuple[str, ...]] = {}
    untried: dict[str, str] = {}
    words: dict[str, str] = {}
    with Library(emulated.graph_def.SerializeToString()) as library:
        for name, border in conversion.borders.items():
            try:
                (program,) = functions.programs(name, border.to_tpu, [max(conversion.sizes.get(name) or [ROWS])])
                module = library.module(program.function, program.shapes, program.variables)
            except ValueError as error:
                untried[name] = str(error)
            except NotLowerable as error:
                told = words if advice.operations(str(error.__cause__)) else untried
                told[name] = str(error.__cause__)
            else:
                results[name] = tuple(modules.results(module))
    if words:
        raise CompilerError([f"TPU function {name!r}: {advice.explain(raw)}" for name, raw in words.items()], words)
    return Lowered(results, {name: _short(why) for name, why in untried.items()})


def _short(why: Any) -> str:
    return advice.explain(str(why))
