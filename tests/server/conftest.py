"""What runs requests, closed when the test ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.executing import Make, Plane
from tests.server.fakes import Runner


@pytest.fixture
def make() -> Iterator[Make]:
    planes: list[Plane] = []

    def build(runner: Runner | None = None, **options: object) -> Plane:
        planes.append(Plane(runner or Runner(), **options))  # type: ignore[arg-type]
        return planes[-1]

    yield build
    for plane in planes:
        plane.runner.engine.gate.set()
        plane.runner.reference.gate.set()
        plane.executor.finish(10)
