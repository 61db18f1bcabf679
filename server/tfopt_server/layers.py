"""What flags put around every request: tracing, the response cache, recording. Without such a flag there is nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt_server.dataplane import Start
from tfopt_server.metrics import Metrics
from tfopt_server.settings import Settings

if TYPE_CHECKING:
    from tfopt_server.tracing import Tracing


@dataclass
class Layers:
    """`layers` for Layered, outermost first; `tracing` is where the faces begin and end traces. `reads_inputs`: as
    Dataplane's."""

    layers: list[Callable[[Start], Start]] = field(default_factory=list)
    tracing: Tracing | None = None
    reads_inputs: bool = False
    _closing: list[Callable[[], None]] = field(default_factory=list)

    def add(self, layer: Callable[[Start], Start], close: Callable[[], None] | None = None) -> None:
        self.layers.append(layer)
        if close is not None:
            self._closing.append(close)

    def close(self) -> None:
        for each in self._closing:
            each()


def build(settings: Settings, metrics: Metrics, run_dir: Path | None) -> Layers | None:
    """None where nothing is asked for. TracingError where traces are and cannot be made."""
    found = Layers()
    if settings.otlp_traces_endpoint:
        from tfopt_server.tracing import Tracing

        found.tracing = Tracing.open(settings.otlp_traces_endpoint, settings.trace_sample_ratio)
        found.add(found.tracing.around, found.tracing.close)
    if settings.response_cache_bytes:
        from tfopt_server.response_cache import ResponseCache

        cache = ResponseCache(
            metrics,
            settings.response_cache_bytes,
            settings.response_cache_ttl_s,
            models=settings.response_cache_models,
            tags=settings.saved_model_tags,
        )
        found.add(cache.around)
        found.reads_inputs = True
    if settings.record_warmup:
        from tfopt_server.recording import Recorder

        recorder = Recorder(
            settings.record_warmup, settings.record_warmup_every, settings.record_warmup_dir, partial(_first, run_dir)
        )
        found.add(recorder.around, recorder.close)
    return found if found.layers else None


def _first(run_dir: Path | None, what: str) -> bool:
    """Whether this worker is the first, of those that share `run_dir`, to ask for it: two must not write one file."""
    if run_dir is None:
        return True
    try:
        (run_dir / f"record-{hashlib.sha256(what.encode()).hexdigest()[:16]}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
