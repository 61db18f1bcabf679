"""A server process with both real faces over the fake plane's numpy functions: starts in a second, without TensorFlow.

python plane_server.py --port=9000 --rest_api_port=9001
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faceplane
from tfopt_server import logs
from tfopt_server.errors import Code
from tfopt_server.process.application import serve
from tfopt_server.process.backend import Shared
from tfopt_server.process.listeners import turn_deaf
from tfopt_server.rest.app import App
from tfopt_server.rpc import server
from tfopt_server.settings import Settings

BUSY_S = 1.0  # Retry-After counts whole seconds


class Backend:
    def __init__(self, settings: Settings, shared: Shared) -> None:
        self.settings, self.plane = settings, faceplane.plane()
        self.plane.models["busy", 1] = faceplane.busy(BUSY_S)
        self.plane.models["exhausted", 1] = faceplane.busy(BUSY_S, Code.RESOURCE_EXHAUSTED)
        self.plane.models["bad", 1] = faceplane.bad()
        self.app = App(self.plane, settings, self.plane.metrics)

    async def open_rpc(self) -> None:
        self.rpc = await server.start(self.plane, self.settings, self.plane.metrics)

    def ready(self) -> bool:
        return self.plane.fit

    def failure(self) -> str:
        return ""

    def leave(self) -> None:
        self.plane.fit = False

    async def drain_rpc(self, timeout_s: float) -> None:
        turn_deaf(self.rpc.sockets)
        await self.rpc.drain(timeout_s)

    def drain(self, timeout_s: float) -> None:
        return


if __name__ == "__main__":
    settings = faceplane.configured(*sys.argv[1:])
    logs.configure(settings.log_format, settings.log_level, logs.stream(settings.log_stream))
    serve(settings, Backend)
