"""Batch scoring: an Apache Beam ModelHandler that runs the server's plans without the server (deploy/beam/README.md).

    from tfopt_server.beam import TfoptModelHandler

    rows | RunInference(TfoptModelHandler("gs://bucket/model"))

Needs the extra "beam". `scorer` and `elements` need no Beam: they load a model and turn elements into tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfopt_server.beam.handler import TfoptModelHandler

__all__ = ["TfoptModelHandler"]


def __getattr__(name: str) -> Any:
    """Beam is imported with the handler, not with this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tfopt_server.beam import handler

    return getattr(handler, name)
