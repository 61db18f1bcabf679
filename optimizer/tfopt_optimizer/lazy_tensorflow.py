"""Plain TensorFlow that is loaded when a request first needs it: importing it costs seconds and hundreds of MB."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Runner
from tfopt_optimizer.errors import EngineError
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.saved_model import SavedModelError


def installed() -> bool:
    """Whether there is a TensorFlow to fall back to and to make plans with; looking for it does not import it."""
    return importlib.util.find_spec("tensorflow") is not None


class TensorFlowMissing(SavedModelError):
    """TensorFlow would be needed and is not installed; the text says for what (for the operator)."""


class LazyTensorFlow:
    """One model by one loader (None: whichever takes it). Thread-safe; all runners share one copy of the weights."""

    def __init__(self, place: Place, loader: str | None) -> None:
        self._place, self._loader = place, loader
        self._lock = threading.Lock()
        self._model: Any = None
        self._runners: dict[tuple[str, str], Runner] = {}

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def load(self) -> Any:
        """The model, loaded by the first caller. SavedModelError when TensorFlow does not take it or is not there."""
        with self._lock:
            if self._model is None:
                if not installed():
                    raise TensorFlowMissing(f"{self._place.model_dir} needs TensorFlow, which is not installed here")
                from tfopt_optimizer.engines import tensorflow

                self._model = (
                    tensorflow.open_model(self._place, self._loader)
                    if self._loader
                    else tensorflow.open_any(self._place)
                )
            return self._model

    def loader(self) -> str:
        loader: str = self.load().loader
        return loader

    def run(self, signature: SignatureInfo, variant: str) -> Callable[[Feeds, Sequence[str] | None], Arrays]:
        """A function that runs the signature, loading the model on its first call. It raises EngineError."""
        runner: Runner | None = None

        def run(feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
            nonlocal runner
            if runner is None:
                runner = self._runner(signature, variant)
            return runner(feeds, outputs)

        return run

    def _runner(self, signature: SignatureInfo, variant: str) -> Runner:
        try:
            model = self.load()
        except SavedModelError as error:
            raise EngineError("INTERNAL", f"plain TensorFlow cannot load the model: {error}") from error
        with self._lock:
            if (signature.key, variant) not in self._runners:
                self._runners[signature.key, variant] = model.runner(signature, variant)
            return self._runners[signature.key, variant]

    def close(self) -> None:
        with self._lock:
            for runner in self._runners.values():
                runner.close()
            self._runners.clear()
            if self._model is not None:
                self._model.close()
                self._model = None
