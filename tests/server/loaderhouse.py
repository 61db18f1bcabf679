"""A repository of fake models with a loader, one round at a time: no threads and no waiting."""

from __future__ import annotations

import shutil
from pathlib import Path

from tfopt_optimizer.flags import OptimizerFlags
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Latest, Policy
from tfopt_server.loading import Loader, ModelConfig, Schedule
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions, Source
from tfopt_server.registry import Loaded, Registry

from tests.server.fakes import Runner


class FakeServable:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class House:
    """A repository, a loader and what it did. `broken` maps a version to the error that its load raises."""

    def __init__(self, base: Path, policy: Policy | None = None, **schedule: object) -> None:
        self.base = base
        self.now = 1000.0
        self.broken: dict[int, Exception] = {}
        self.opened: list[int] = []
        self.servables: dict[int, FakeServable] = {}
        self.metrics = Metrics()
        self.registry = Registry(["m"])
        self.loader = Loader(
            [ModelConfig("m", base, policy or Latest())],
            self.registry,
            LoadOptions(OptimizerFlags(), base),
            Schedule(**schedule),  # type: ignore[arg-type]
            self.metrics,
            prepare=self.prepare,
            clock=lambda: self.now,
        )

    def prepare(self, source: Source, options: LoadOptions, metrics: Metrics) -> Loaded:
        self.opened.append(source.version)
        if source.version in self.broken:
            raise self.broken[source.version]
        servable = self.servables[source.version] = FakeServable()
        lane = Lane(source.model, Runner(), metrics, parameters=None)
        return Loaded(servable, {"serving_default": lane}, None, "a fake", {})  # type: ignore[arg-type]

    def put(self, *numbers: int) -> None:
        for number in numbers:
            (self.base / str(number)).mkdir(parents=True)
            (self.base / str(number) / "saved_model.pb").write_text(f"model {number}")

    def remove(self, number: int) -> None:
        shutil.rmtree(self.base / str(number))

    def round(self) -> dict[int, str]:
        self.loader.round()
        return {s.version: s.state.name for s in self.registry.history("m")}

    @property
    def serving(self) -> list[int]:
        return [v.number for v in self.registry.available()]
