"""What one worker process does: answer from the first moment, load behind the open door, drain when told to.

start   accept connections (health says 503), then import and build the backend in a thread
serve   watch the arbiter, the backend and the signals
drain   SIGTERM: health 503 and `connection: close` on every answer from now on
        for drain_grace_s, go on accepting
        accept what the kernel has completed, close the listening sockets, stop taking gRPC calls
        answer what was accepted; idle connections close after IDLE_LINGER_S
        finish the queues, exit 0
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

import uvloop
from gunicorn.workers.base import Worker as GunicornWorker

from tfopt_server.health import Gate
from tfopt_server.process.arbiter import lead_group
from tfopt_server.process.backend import Backend, CannotStart, Shared
from tfopt_server.process.connections import Connection
from tfopt_server.process.native import Stderr
from tfopt_server.room import Room
from tfopt_server.settings import Settings
from tfopt_server.sockets import BACKLOG

log = logging.getLogger(__name__)

TICK_S = 0.2
SWEEP_S = 5.0  # how often connections are looked at that nobody uses any more
# After the sockets turned deaf: a handshake that had begun completes within a round trip.
HANDSHAKE_S = 0.1
# Of drain_timeout_s, kept for ending the process itself, so that the arbiter need not kill it.
EXIT_RESERVE_S = 0.5
GAVE_UP = 3  # gunicorn's WORKER_BOOT_ERROR: the arbiter ends the server instead of starting another worker


class Worker(GunicornWorker):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings: Settings = self.app.settings
        self.max_body_bytes = self.settings.max_body_bytes
        self.room = Room(self.settings.max_arriving_body_bytes or sys.maxsize, "--max_arriving_body_bytes")
        self.connections: set[Connection] = set()
        self.draining = False
        self._servers: list[asyncio.Server] = []
        self.backend: Backend | None = None
        self._rpc_open = False
        self._problem = ""
        self._swept = 0.0
        # Both are shared with the arbiter over the fork.
        self.stderr = Stderr()
        self.seat = self.app.readiness.take()

    def init_process(self) -> None:
        lead_group()
        self.stderr.capture()
        self.loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
        super().init_process()

    def load_wsgi(self) -> None:
        self.gate = Gate(self.settings.health_route)

    def init_signals(self) -> None:
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._told_to_stop = asyncio.Event()
        # The arbiter decides how fast to stop and kills the whole group when it must be at once.
        self.loop.add_signal_handler(signal.SIGTERM, self._told_to_stop.set)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH):
            signal.signal(ignored, signal.SIG_IGN)

    def run(self) -> None:
        try:
            self.loop.run_until_complete(self._serve())
        except Exception:
            log.exception("the worker failed")
            self._exit(1)
        self._exit(GAVE_UP if self._problem else 0)

    async def _serve(self) -> None:
        self._began = self.loop.time()
        threading.Thread(target=self._build, name="build", daemon=True).start()
        while not self._told_to_stop.is_set() and not self._problem:
            self._watch()
            if self.app.readiness.may_accept(self.seat):
                await self._open()
            await self._sleep_unless_stopped(TICK_S)
        if not self._problem:
            await self._drain()

    async def _open(self) -> None:
        """Opens what is not open yet."""
        if not self._servers:
            self._servers = [await self._accept(listener.sock) for listener in self.sockets]
        if self.backend is not None and not self._rpc_open:
            self._rpc_open = True
            try:
                await self.backend.open_rpc()
            except CannotStart as error:
                self._give_up(str(error))

    async def _accept(self, sock: socket.socket) -> asyncio.Server:
        server: asyncio.Server = await self.loop.create_server(lambda: Connection(self), sock=sock, backlog=BACKLOG)
        return server

    def _build(self) -> None:
        """On a thread of its own: imports alone take a second, and health must answer meanwhile."""
        try:
            backend = self.app.build(self.settings, Shared(self.app.run_dir, self.app.board, self.seat, self.app.unix))
            # A replacement for a worker that died takes no call, as it takes no connection, before it is ready.
            if first := self.app.readiness.may_accept(self.seat):
                asyncio.run_coroutine_threadsafe(backend.open_rpc(), self.loop).result()
        except CannotStart as error:
            self._give_up(str(error))
            return
        except Exception as error:
            log.exception("building the server failed")
            self._give_up(f"{type(error).__name__}: {error}")
            return
        self._rpc_open = first
        self.backend = backend
        self.loop.call_soon_threadsafe(self.gate.open, backend.app, self._ready)

    def _ready(self) -> bool:
        """What the gate asks for each health request: true from the moment on, not from the next tick."""
        ready = self.backend is not None and self.backend.ready()
        if ready and not self.app.readiness.is_set(self.seat):
            self.app.readiness.set(self.seat)
            log.info("ready after %.1f s", self.loop.time() - self._began, extra={"worker": self.pid})
        return ready and self.app.readiness.open

    def _watch(self) -> None:
        now = self.loop.time()
        if now >= self._swept + SWEEP_S:
            self._swept = now
            for connection in tuple(self.connections):
                connection.close_if_stale(now)
        if self.ppid != os.getppid():
            log.error("the arbiter is gone: draining")
            self._told_to_stop.set()
        if self.backend is None:
            return
        if problem := self.backend.failure():
            self._give_up(problem)
        self._ready()

    def _give_up(self, problem: str) -> None:
        log.critical("Failed to start server. Error: %s", problem)
        self._problem = problem

    async def _sleep_unless_stopped(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._told_to_stop.wait(), seconds)
        except TimeoutError:
            return

    async def _drain(self) -> None:
        began = self.loop.time()
        grace, deadline = self.settings.drain_grace_s, began + self.settings.drain_timeout_s - EXIT_RESERVE_S
        self.draining = True
        self.gate.drain()
        if self.backend is not None:
            self.backend.leave()
        log.info("draining", extra={"connections": len(self.connections), "grace_s": grace})
        await asyncio.sleep(grace)
        rpc = asyncio.create_task(self._drain_rpc(deadline))
        await asyncio.sleep(HANDSHAKE_S)
        for server in self._servers:
            server.close()
        await self._finish_connections(began + grace, deadline)
        await rpc
        await self._in_thread("drain", deadline)
        if self.connections:
            log.error("%d connections cut: drain_timeout_s is over", len(self.connections))
        log.info("drained in %.1f s", self.loop.time() - began)

    async def _finish_connections(self, began: float, deadline: float) -> None:
        while self.connections and (now := self.loop.time()) < deadline:
            for connection in tuple(self.connections):
                connection.close_if_idle_since(began, now)
            await asyncio.sleep(0.02)

    async def _drain_rpc(self, deadline: float) -> None:
        if self.backend is None:
            return
        try:
            await self.backend.drain_rpc(max(0.0, deadline - self.loop.time()))
        except Exception:
            log.exception("drain_rpc failed")

    async def _in_thread(self, step: str, deadline: float) -> None:
        """Runs one step of the backend's end, and goes on at the deadline whether it is done or not."""
        if self.backend is None:
            return
        left = max(0.0, deadline - self.loop.time())
        future = self.loop.run_in_executor(None, getattr(self.backend, step), left)
        done, _ = await asyncio.wait({future}, timeout=left + EXIT_RESERVE_S / 2)
        if not done:
            log.error("%s did not end within %.1f s", step, left)
        elif error := future.exception():
            log.error("%s failed", step, exc_info=error)

    def _exit(self, code: int) -> NoReturn:
        """Ends the process, and what it started, without unwinding.

        Native thread pools (TensorFlow, XLA, gRPC) crash or hang when the interpreter is taken down under them, and
        everything worth finishing is finished.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        logging.shutdown()
        os._exit(code)
