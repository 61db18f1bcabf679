"""A server with a backend of a few lines, so that the process rules are tested in milliseconds and on purpose.

    python fake_server.py '{"ready_after_s": 0.5}' --rest_api_port=9000 ...

POST /predict?<seconds> answers {"pid": ..., "echo": <body>} after that many seconds; POST /crash kills the worker.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

from tfopt_server import logs
from tfopt_server.http import Request, Response
from tfopt_server.process.application import serve
from tfopt_server.process.backend import CannotStart, Shared
from tfopt_server.settings import Settings, parse


class FakeBackend:
    """`plan` holds: build_s, ready_after_s, failure, build_error, child, drain_s."""

    def __init__(self, plan: dict, settings: Settings, shared: Shared) -> None:
        self.plan, self.settings, self.run_dir = plan, settings, shared.run_dir
        time.sleep(plan.get("build_s", 0))
        if plan.get("crash_at_build"):
            os.kill(os.getpid(), signal.SIGKILL)
        if plan.get("build_error"):
            raise CannotStart(plan["build_error"])
        self.ready_at = time.monotonic() + self.plan.get("ready_after_s", 0)
        if self.plan.get("child"):
            self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path(self.plan["child"]).write_text(str(self.child.pid))

    def ready(self) -> bool:
        return time.monotonic() >= self.ready_at and not self.failure()

    def failure(self) -> str:
        return self.plan.get("failure", "")

    def leave(self) -> None:
        self.ready_at = float("inf")

    async def open_rpc(self) -> None:
        return

    async def drain_rpc(self, timeout_s: float) -> None:
        await asyncio.sleep(min(timeout_s, self.plan.get("drain_s", 0)))

    def drain(self, timeout_s: float) -> None:
        return

    def app(self, request: Request) -> Awaitable[Response]:
        return self.answer(request)

    async def answer(self, request: Request) -> Response:
        path, _, query = request.target.partition("?")
        if path == "/crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if path == "/segfault":
            ctypes.string_at(0)
        if path == "/native":
            os.write(2, request.body)
        if query:
            await asyncio.sleep(float(query))
        shared = str(self.run_dir) if self.run_dir else None
        echo = request.body.decode(errors="replace")
        return Response(json.dumps({"pid": os.getpid(), "run_dir": shared, "echo": echo}).encode())


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    settings, _ = parse(["--model_base_path=/nowhere", "--port=0", *sys.argv[2:]], {})
    logs.configure(settings.log_format, settings.log_level, logs.stream(settings.log_stream))
    serve(settings, lambda settings, shared: FakeBackend(wanted, settings, shared))
