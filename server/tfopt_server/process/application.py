"""How gunicorn is set up, without its command line, its configuration files or its environment variables."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger as GunicornLogger

from tfopt_server.config_board import ConfigBoard
from tfopt_server.process import listeners
from tfopt_server.process.arbiter import Arbiter
from tfopt_server.process.backend import Build
from tfopt_server.process.exit_codes import CANNOT_START, DRAINED
from tfopt_server.process.readiness import Readiness
from tfopt_server.process.worker import Worker
from tfopt_server.settings import Settings

log = logging.getLogger(__name__)


class Logger(GunicornLogger):  # type: ignore[misc]
    """gunicorn's lines go where everybody's go (logs.configure). No access log: metrics count requests."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.propagate = True
        self._access_log_enabled = False


def _in_memory() -> str | None:
    """Where heartbeat files and what workers share can be written also where the root file system is not, or is full;
    None for the temporary folder."""
    shared_memory = "/dev/shm"
    return shared_memory if os.access(shared_memory, os.W_OK) else None


class Application(BaseApplication):  # type: ignore[misc]
    def __init__(
        self, settings: Settings, build: Build, sockets: Sequence[socket.socket], unix: socket.socket | None,
        run_dir: Path | None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.build = build
        self.run_dir = run_dir
        self.unix = unix
        self.readiness = Readiness(settings.workers)
        self.board = ConfigBoard(settings.workers)
        self._sockets = sockets
        super().__init__()

    def load_config(self) -> None:
        options = {
            "bind": [f"fd://{s.detach()}" for s in self._sockets],
            "workers": self.settings.workers,
            "worker_class": Worker,
            "worker_tmp_dir": _in_memory(),
            "logger_class": Logger,
            "proc_name": "tfopt",
            # No heartbeat limit: a worker that compiles or imports for minutes is not dead. Its health route tells.
            "timeout": 0,
            # Would start a thread, and open a door, in the process that forks.
            "control_socket_disable": True,
            "child_exit": lambda arbiter, worker: arbiter.child_exit(worker),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> None:
        """Nothing to load: the worker builds its own app."""

    def run(self) -> NoReturn:
        Arbiter(self).run()
        raise AssertionError("the arbiter ends the process itself")


def serve(settings: Settings, build: Build) -> NoReturn:
    """Runs the server until it is told to stop; the exit codes are arbiter.py's."""
    # Until the arbiter has its own handlers there is nothing to drain; as a container's first process, the default
    # would be to ignore the signal.
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: sys.exit(DRAINED))
    try:
        sockets = listeners.listen(settings.http_ports)
        # Held as long as this process lives, which never leaves this function.
        claimed = listeners.claim(settings.port, settings.workers > 1) if settings.port else None  # noqa: F841
        unix = listeners.listen_unix(settings.grpc_socket_path) if settings.grpc_socket_path else None
    except listeners.ListenError as error:
        log.critical("Failed to start server. Error: %s", error)
        sys.exit(CANNOT_START)
    where = ", ".join(str(s.getsockname()[1]) for s in sockets)
    log.info("listening on port %s", where, extra={"health_route": settings.health_route, "workers": settings.workers})
    if settings.workers == 1:
        Application(settings, build, sockets, unix, None).run()
    try:
        shared = tempfile.TemporaryDirectory(prefix="tfopt-", dir=_in_memory())
    except OSError as error:
        log.critical("Failed to start server. Error: no folder for what --workers share: %s", error)
        sys.exit(CANNOT_START)
    with shared as run_dir:
        Application(settings, build, sockets, unix, Path(run_dir)).run()
