"""Who keeps the workers alive and ends them: gunicorn's arbiter with this server's rules for signals and exit codes.

| event | what happens | exit code |
|---|---|---|
| SIGTERM, SIGINT | drain: see worker.py | 0 |
| a second one, or SIGQUIT | workers are killed at once | 128 + signal |
| drain_timeout_s is over | workers are killed | 0 (the cut requests are logged) |
| a worker gives up loading its model | the server ends, as TensorFlow Serving does | 255 |
| a worker dies | it is replaced | |
| BOOT_ATTEMPTS die in a row before they were ready | the server ends: the platform should see it | 255 |

Rules for changing it: nothing imported here may start a thread (TensorFlow, jax, gRPC, numpy's BLAS), because workers
are forked from this process. gunicorn's methods are overridden only where the table above differs from gunicorn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from typing import Any

from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer

from tfopt_server.process.exit_codes import CANNOT_START, DRAINED, cut_short
from tfopt_server.process.listeners import turn_deaf

log = logging.getLogger(__name__)

BOOT_ATTEMPTS = 3
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Arbiter(GunicornArbiter):  # type: ignore[misc]
    """`app` is an application.Application: it carries the settings."""

    LISTENERS: list[Any]
    WORKERS: dict[int, Any]

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._stopping = False
        self._cut_by = 0
        self._early_deaths = 0

    # Signals. Reloading and resizing are gunicorn's way to change a running server; here a new configuration is a new
    # container, and both would drain workers that share their sockets with the ones that stay.

    def handle_int(self) -> None:
        self.handle_term()

    def _ignore(self) -> None:
        log.warning("signal ignored: this server is not reconfigured by signals")

    handle_hup = handle_ttin = handle_ttou = handle_usr1 = handle_usr2 = handle_winch = _ignore

    def handle_quit(self) -> None:
        self._cut_by = signal.SIGQUIT
        raise StopIteration

    # Deaths, and what workers say. gunicorn calls the first of these once a second and after a signal, the second after
    # a death.

    def murder_workers(self) -> None:
        """No worker is ever too slow (see application.py); this is the moment to hear them."""
        for pid, worker in self.WORKERS.items():
            worker.stderr.relay(pid)

    def reap_workers(self) -> None:
        self.murder_workers()
        super().reap_workers()

    def child_exit(self, worker: Any) -> None:
        """Called for each worker that was reaped; the arbiter replaces it afterwards."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)  # its children; the worker's own number may be someone else's by now
        worker.stderr.bury(worker.pid)
        was_ready = self.app.readiness.give_back(worker.seat)
        self.app.board.leave(worker.seat)
        if self._stopping:
            return
        self._early_deaths = 0 if was_ready else self._early_deaths + 1
        log.error("worker %d died and is replaced", worker.pid, extra={"was_ready": was_ready})
        if self._early_deaths >= BOOT_ATTEMPTS:
            raise HaltServer(f"{BOOT_ATTEMPTS} workers in a row died before they were ready", CANNOT_START)

    # The end.

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """Ends the process. A worker that gave up (exit code WORKER_BOOT_ERROR) has logged why."""
        if exit_status == CANNOT_START:
            log.critical("Failed to start server. Error: %s", reason)
        self.stop(graceful=not exit_status and not self._cut_by)
        log.info("stopped")
        sys.exit(CANNOT_START if exit_status else cut_short(self._cut_by) if self._cut_by else DRAINED)

    def stop(self, graceful: bool = True) -> None:
        """Ends the workers, gracefully within drain_timeout_s or at once."""
        settings = self.app.settings
        deadline = time.monotonic() + (settings.drain_timeout_s if graceful else 0.0)
        self._stopping = True
        if graceful and settings.drain_grace_s:
            self.kill_workers(signal.SIGTERM)
            self._wait(time.monotonic() + settings.drain_grace_s)
        turn_deaf(listener.sock for listener in self.LISTENERS)
        for listener in self.LISTENERS:
            listener.close()
        self.LISTENERS = []
        while self.WORKERS and time.monotonic() < deadline and not self._cut_by:
            # Sent again each second: a worker that was just being forked had nobody to hear the first one.
            self.kill_workers(signal.SIGTERM)
            self._wait(min(deadline, time.monotonic() + 1.0))
        for pid in list(self.WORKERS):
            if graceful and not self._cut_by:
                log.error("worker %d did not finish in time and is killed", pid)
            kill_group(pid)
        while self.WORKERS:
            self._reap()
            time.sleep(0.01)

    def _wait(self, until: float) -> None:
        """Reaps workers until `until` (monotonic), all are gone, or a second signal says to hurry."""
        while self.WORKERS and not self._cut_by and (left := until - time.monotonic()) > 0:
            for sig in self.wait_for_signals(timeout=min(left, 0.1)):
                if sig in _STOPPING:
                    log.warning("second signal: stopping at once")
                    self._cut_by = sig
            self._reap()

    def _reap(self) -> None:
        try:
            self.reap_workers()
        except HaltServer as halt:
            # Another worker gave up as well. The server is already ending.
            log.info("while stopping: %s", halt.reason)


def kill_group(pid: int) -> None:
    """Kills a worker, if it still lives, and what it had started (the optimizer)."""
    for kill in (os.killpg, os.kill):  # a worker that was just forked leads no group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
            kill(pid, signal.SIGKILL)


def lead_group() -> None:
    """Makes the calling worker the head of a process group of its own, so that nothing it starts outlives it.

    It also keeps the terminal's Ctrl-C away from workers: the arbiter hears it and drains them.
    """
    os.setpgid(0, 0)
