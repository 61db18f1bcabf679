"""The model repository extension: models are loaded and unloaded by name, where --enable_model_repository allows it.

The repository holds every model that was configured since the server began, loaded or not. `base_path` among a load's
parameters adds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from tfopt_server.dataplane import Dataplane
from tfopt_server.errors import Code, ServingError, invalid

_BASE_PATH = "base_path"
# Triton's way to say that models which depend on this one go too; there are none here.
_WITHOUT_MEANING = frozenset({"unload_dependents"})


class Repository:
    def __init__(self, plane: Dataplane, enabled: bool) -> None:
        self._plane, self._enabled = plane, enabled

    def load(self, name: str, parameters: Mapping[str, Any]) -> Future[None]:
        """A future that is done when the model serves. FAILED_PRECONDITION without the flag."""
        self._check(parameters, {_BASE_PATH})
        path = parameters.get(_BASE_PATH, "")
        if type(path) is not str:
            raise invalid(f"parameters.{_BASE_PATH}: expected a string, received {path!r}")
        return self._plane.load(name, path)

    def unload(self, name: str, parameters: Mapping[str, Any]) -> Future[None]:
        """A future that is done when the model takes no requests any more. FAILED_PRECONDITION without the flag."""
        self._check(parameters, _WITHOUT_MEANING)
        return self._plane.unload(name)

    def _check(self, parameters: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
        if not self._enabled:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Models are loaded and unloaded by clients only where the server runs with --enable_model_repository",
            )
        for name in parameters:
            if name not in known:
                raise invalid(f"parameters: expected {', '.join(sorted(known))} at most, received {name!r}")
