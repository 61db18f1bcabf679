"""What a worker needs from the rest of the server: the joint that tests fill with something small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tfopt_server.health import App
from tfopt_server.settings import Settings


class Backend(Protocol):
    """Everything behind the sockets. Methods are called from threads, one at a time, in the order given here."""

    app: App

    def start(self) -> None:
        """Begins to load the model in the background and opens the gRPC port. Raises when that port cannot be had."""

    def ready(self) -> bool:
        """Every configured model answers. Called on the event loop, often."""

    def failure(self) -> str:
        """Why the server should end (a configured model failed all its attempts), else ""."""

    def drain_rpc(self, timeout_s: float) -> None:
        """Takes no more gRPC calls and waits for those under way."""

    def drain(self, timeout_s: float) -> None:
        """Finishes what is queued, stops loading, ends children. No request arrives any more."""


# `run_dir` is a directory that all workers of this server share, or None when there is only one worker.
Build = Callable[[Settings, Path | None], Backend]
