"""What a worker needs from the rest of the server: the joint that tests fill with something small."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tfopt_server.config_board import ConfigBoard
from tfopt_server.http import App
from tfopt_server.settings import Settings


class CannotStart(Exception):
    """Why the server cannot be built; text for the operator. Anything else that is raised is a defect of ours."""


@dataclass(frozen=True)
class Shared:
    """What the workers of one server share: a directory (None where there is only one), the board on which this one
    has `seat`, and the listening socket of --grpc_socket_path."""

    run_dir: Path | None
    board: ConfigBoard
    seat: int
    unix: socket.socket | None = None


class Backend(Protocol):
    """Everything behind the sockets, started. Methods are called one at a time, in the order given here."""

    @property
    def app(self) -> App:
        """What answers HTTP, behind the gate. Called on the event loop."""

    async def open_rpc(self) -> None:
        """Opens the gRPC ports, on the event loop. CannotStart when one cannot be had."""

    def ready(self) -> bool:
        """Every configured model answers. Called on the event loop, often."""

    def failure(self) -> str:
        """Why the server should end (a configured model failed all its attempts), else ""."""

    def leave(self) -> None:
        """Is not ready any more, for gRPC's health too; requests are still served. Called on the event loop."""

    async def drain_rpc(self, timeout_s: float) -> None:
        """Takes no more gRPC calls and waits, so long, for those under way. On the event loop."""

    def drain(self, timeout_s: float) -> None:
        """Finishes what is queued and stops loading. No request arrives any more. Called on a thread."""


# Builds and starts a backend: loading goes on in the background. Called on a thread; CannotStart when it cannot be.
Build = Callable[[Settings, Shared], Backend]
