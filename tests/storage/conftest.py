"""A stub of all three clouds' bucket services, and what points the clients at it."""

from __future__ import annotations

from collections.abc import Iterator

import bucketstub
import pytest
from bucketstub import Bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    made = Bucket()
    with bucketstub.serving(made) as address:
        for name, value in bucketstub.environment(address).items():
            monkeypatch.setenv(name, value)
        yield made
