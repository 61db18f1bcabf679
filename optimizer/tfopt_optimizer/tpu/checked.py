"""What compilers and samples say of a converted model before it is written: lowered, tried, compiled ahead of time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tfopt_optimizer.tpu import advice, ahead_placed, graph, lowered, static_check, trial
from tfopt_optimizer.tpu.ahead import Compiled
from tfopt_optimizer.tpu.constants import Demand
from tfopt_optimizer.tpu.errors import CompilerError, ConversionError
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.lowered import Lowered
from tfopt_optimizer.tpu.place import INNER
from tfopt_optimizer.tpu.programs import Conversion
from tfopt_optimizer.tpu.static_check import Sources


@dataclasses.dataclass(frozen=True)
class Checked:
    tried: tuple[trial.Tried, ...]
    ahead: tuple[Compiled, ...]
    cautions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Check:
    """`conversion` is compared with the model in `original` on the `samples`. `doubts`: by placed function, what the
    graph alone says must be known at compile time; XLA has the last word. `model`: the converted graph."""

    conversion: Conversion
    model: ModelGraph
    original: Path
    samples: trial.Samples
    doubts: Mapping[str, Sequence[Demand]]
    sources: Sources
    topology: str

    def run(self, workplace: Path) -> Checked:
        """ConversionError; CompilerError where operations are to blame."""
        found = self._lowered()
        tried = trial.run(self.original, self.conversion.folder, self.conversion.saved_model, self.samples, workplace)
        compiled, not_compiled = list[Compiled](), list[str]()
        if self.topology and self.conversion.borders:
            compiled, not_compiled = ahead_placed.check(self.conversion, self.topology, workplace)
        cautions = (*found.cautions(), *self._never_compiled(found, tried), *not_compiled)
        return Checked(tuple(tried), tuple(compiled), cautions)

    def _lowered(self) -> Lowered:
        try:
            found = lowered.check(self.conversion)
        except CompilerError as error:
            told = [line for name, words in error.words.items() for line in self._told(name, words)]
            raise CompilerError(told, error.words) from error
        doubtful = [line for name in found.untried if name in self.doubts for line in self._told(name, "")]
        if doubtful:
            raise ConversionError(doubtful)
        return found

    def _told(self, name: str, words: str) -> list[str]:
        """What the graph says names arguments, and lines of inner functions."""
        doubts = [static_check.told(self.model, name, demand, self.sources) for demand in self.doubts.get(name, ())]
        nodes = (node.removeprefix("body/") for node in advice.operations(words))
        lines = [line for node in nodes if (line := self.sources.get((name, node)))]
        where = f" ({', '.join(lines)})" if lines else ""
        return doubts or [f"TPU function {name!r}: {advice.explain(words)}{where}"]

    def _never_compiled(self, found: Lowered, tried: Iterable[trial.Tried]) -> list[str]:
        """Where no sample leads, and the shapes of the signature do not say enough, nobody should believe in checks."""
        reached = set[str]()
        for one in tried:
            for root in graph.signature_functions(self.model, one.signature) if one.agreement is not None else ():
                reached |= {root, *self.model.reachable(root)}
        return [
            f"{name!r} was not compiled, only its operations were looked at: no signature that was compared calls it, "
            f"and {why}; add warmup records for one that does"
            for name, why in found.untried.items()
            if not {name, name + INNER} & reached
        ]
