"""A model loaded as the server loads it, and run on a pipeline's elements: no port, no queue, no Beam.

    scorer = Scorer.load("/models/m", ("--allow_precompilation",), "serving_default")
    scorer.score([{"x": [1.0, 2.0]}]).answers      # [{"y": float32[3]}]

Loading is `tfopt serve`'s: the plan that came with the model, from the plan cache or made on the spot; warmup records
replayed. Thread-safe. All that a caller in another process may use is `score`, whose values can be pickled.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfopt_optimizer.errors import EngineError
from tfopt_optimizer.signature_runner import SignatureRunner

from tfopt_server import devices, plane, settings
from tfopt_server.beam import elements
from tfopt_server.beam.elements import ElementError, Feeds, Group
from tfopt_server.commands.optimize import brought
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadError, Source, prepare
from tfopt_server.settings import Settings, SettingsErrors

log = logging.getLogger(__name__)


class ScoringError(RuntimeError):
    """A model that does not load, or a call that its engine refuses; the text says why."""


Refusal = ElementError | ScoringError


class Scored(NamedTuple):
    """An answer per element, in their order, or why there is none; how many calls of an engine that took; and how many
    elements plain TensorFlow answered because they lie outside of the plan."""

    answers: list[Feeds | Refusal]
    calls: int
    outside: int


def parse(model: str, flags: Sequence[str]) -> Settings:
    """The settings of `tfopt serve` with these flags. ValueError with every mistake; unknown flags are mistakes."""
    try:
        found, notices = settings.parse(
            [*flags, f"--model_base_path={model}", "--model_name=model", "--strict_flags"], os.environ
        )
    except SettingsErrors as error:
        raise ValueError(f"flags: {error}") from error
    for notice in notices:
        log.warning("%s", notice.text)
    return dataclasses.replace(found, optimize_in_background=False)


class Scorer:
    """One signature of one loaded model."""

    def __init__(self, runner: SignatureRunner) -> None:
        self._runner = runner
        self._outputs = frozenset(t.name for t in runner.info.outputs)

    @classmethod
    def load(cls, model: str, flags: Sequence[str], signature: str) -> Scorer:
        """`model`: a SavedModel or a folder of versions, here or in a bucket. ScoringError; ValueError for flags."""
        chosen = parse(model, flags)
        try:
            folder = brought(chosen)
            options = plane.load_options(chosen, devices.resolve(chosen))
            loaded = prepare(Source("model", 1, folder), options, Metrics())
        except LoadError as error:
            raise ScoringError(f"{model}: {error.code.name}: {error.message}") from error
        except OSError as error:
            raise ScoringError(f"{model}: {error}") from error
        if loaded.warning:
            log.warning("%s: %s", model, loaded.warning)
        runner = loaded.servable.signatures.get(signature)
        if runner is None:
            there = ", ".join(sorted(loaded.servable.signatures))
            raise ScoringError(f"{model}: expected one of the signatures {there}, received {signature!r}")
        log.info("%s is loaded (%s)", model, loaded.why)
        return cls(runner)

    def score(self, batch: Sequence[Any], outputs: Sequence[str] | None = None, *, keep: bool = False) -> Scored:
        """ElementError for an element that the signature does not take, ScoringError for what its engine refuses; with
        `keep` they stand for the answers of those elements, and the others are answered.

        Elements share a call only where rows were proven independent.
        """
        if unknown := sorted(set(outputs or ()) - self._outputs):
            raise ScoringError(f"outputs: expected some of {sorted(self._outputs)}, received {unknown[0]!r}")
        work = _Work(self._runner, outputs, keep)
        found = work.read(batch)
        for group in elements.groups(found, self._runner.info, apart=not self._runner.row_independent):
            work.run(group)
        return Scored([work.answers[place] for place in range(len(batch))], work.calls, work.outside)


class _Work:
    """One batch on its way."""

    def __init__(self, runner: SignatureRunner, outputs: Sequence[str] | None, keep: bool) -> None:
        self._runner, self._outputs, self._keep = runner, outputs, keep
        self.answers: dict[int, Feeds | Refusal] = {}
        self.calls = self.outside = 0

    def read(self, batch: Sequence[Any]) -> dict[int, Feeds]:
        """The tensors of the elements that can be read, by place."""
        found = {}
        for place, element in enumerate(batch):
            try:
                found[place] = elements.read(element, self._runner.info, place)
            except ElementError as error:
                self._refused(place, error)
        return found

    def run(self, group: Group) -> None:
        """One call; where it fails, and refusals are kept, each element by itself: one must not cost its neighbours."""
        try:
            found = self._answered(group)
        except (ElementError, ScoringError) as error:
            if len(group.places) == 1 or not self._keep:
                self._refused(group.places[0], error)
                return
            for at, place in enumerate(group.places):
                self.run(Group((place,), {name: array[at : at + 1] for name, array in group.feeds.items()}))
            return
        self.answers.update(zip(group.places, found, strict=True))

    def _answered(self, group: Group) -> list[Feeds]:
        reasons: list[str] = []
        self.calls += 1
        try:
            made = self._runner.run(group.feeds, self._outputs, reasons.append)
        except EngineError as error:
            raise ScoringError(f"{self._runner.info.key}: {error}") from error
        self.outside += len(group.places) if reasons else 0
        return elements.answers(made, len(group.places), self._runner.info)

    def _refused(self, place: int, error: Refusal) -> None:
        if not self._keep:
            raise error
        self.answers[place] = error


__all__ = ["ElementError", "Scored", "Scorer", "ScoringError", "parse"]
