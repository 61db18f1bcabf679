"""The gRPC face of a worker: sockets, the services behind them, and their end. Lives on the worker's event loop.

Nothing here imports TensorFlow, grpcio or generated stubs.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfopt_server import sockets
from tfopt_server.dataplane import Dataplane
from tfopt_server.metrics import Metrics
from tfopt_server.oip.repository import Repository
from tfopt_server.rpc import tls, traced
from tfopt_server.rpc.health import Health
from tfopt_server.rpc.inferences import Inferences
from tfopt_server.rpc.open_inference import OpenInference
from tfopt_server.rpc.options import read as read_options
from tfopt_server.rpc.reflection import Reflection
from tfopt_server.rpc.reload import Reload
from tfopt_server.rpc.services import NAMES, Services
from tfopt_server.rpc.transport import Shared, Transport
from tfopt_server.settings import Settings

log = logging.getLogger(__name__)

# After the sockets turned deaf: a handshake that had begun completes within a round trip.
HANDSHAKE_S = 0.1
TICK_S = 1.0


class RpcServer:
    """A server that accepts calls. `port` is the bound one, 0 when it only listens on a UNIX socket."""

    def __init__(self, shared: Shared, context: ssl.SSLContext | None) -> None:
        self.shared = shared
        self._tls: dict[str, Any] = (
            {} if context is None else {"ssl": context, "ssl_handshake_timeout": shared.options.handshake_s}
        )
        self._servers: list[asyncio.Server] = []
        self._ticking = shared.loop.create_task(self._tick())
        self.sockets: list[socket.socket] = []
        self._paths: list[Path] = []
        self.port = 0

    async def listen(self, sock: socket.socket) -> None:
        make = self.shared.loop.create_server
        server = await make(lambda: Transport(self.shared), sock=sock, backlog=sockets.BACKLOG, **self._tls)
        self._servers.append(server)
        self.sockets.append(sock)
        if sock.family == socket.AF_UNIX:
            self._paths.append(Path(sock.getsockname()))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._each_tick()

    def _each_tick(self) -> None:
        for transport in tuple(self.shared.connections):
            transport.tick()

    async def drain(self, timeout: float) -> None:
        """Takes no more connections, tells clients to go elsewhere, and waits, at most `timeout` seconds, for every
        call that they had sent; what is left is cut."""
        shared, loop = self.shared, self.shared.loop
        end = loop.time() + timeout
        shared.leaving = True
        for path in self._paths:  # nobody can find it any more; who has found it is still accepted
            path.unlink(missing_ok=True)
        for transport in tuple(shared.connections):
            transport.leave()
        await asyncio.sleep(min(HANDSHAKE_S, timeout))
        for server in self._servers:
            server.close()
        while shared.connections and loop.time() < end:
            for transport in tuple(shared.connections):
                transport.end_talks()
                transport.tick()
            await asyncio.sleep(0.02)
        if shared.connections:
            log.error("%d gRPC connections cut: the time to drain is over", len(shared.connections))
        for transport in tuple(shared.connections):
            transport.cut()
        self._ticking.cancel()


async def start(
    dataplane: Dataplane, settings: Settings, metrics: Metrics, unix: socket.socket | None = None
) -> RpcServer:
    """Opens settings.port (0: none), and listens on `unix`, the socket of settings.grpc_socket_path that all workers
    share (made here where there is none yet). OSError names the address that cannot be had,
    TlsError what is wrong with settings.ssl_config_file.

    With several workers every one listens on the same port and the kernel spreads the connections. TLS is for both
    addresses, as in TensorFlow Serving.
    """
    options, lines = read_options(settings.grpc_channel_arguments)
    for line in lines:
        log.warning(line)
    context = None if settings.ssl_config_file is None else tls.read(settings.ssl_config_file)
    services = Services(dataplane, metrics, settings.model_name, settings.enable_serialization_as_tensor_content)
    inferences = Inferences(dataplane, metrics, settings.model_name, settings.enable_signature_method_name_check)
    health = Health(dataplane.ready, NAMES)
    reload = Reload(dataplane, metrics)
    methods = {**services.methods(), **inferences.methods(), **reload.methods(), **health.methods()}
    repository = Repository(dataplane, settings.enable_model_repository)
    methods |= OpenInference(dataplane, metrics, settings.model_name, repository).methods()
    reflection = Reflection(path.split(b"/")[1].decode() for path in methods)
    shared = Shared({**methods, **reflection.methods()}, options, asyncio.get_running_loop())
    if dataplane.tracing is not None:
        shared.read = traced.reader(shared.read, dataplane.tracing)
    server = RpcServer(shared, context)
    if settings.port:
        sock = _opened(f"[::]:{settings.port}", lambda: sockets.tcp(settings.port, settings.workers > 1))
        server.port = sock.getsockname()[1]
        await server.listen(sock)
    if settings.grpc_socket_path:
        path = settings.grpc_socket_path
        own = unix.dup() if unix is not None else _opened(f"unix:{path}", lambda: sockets.unix(path))
        await server.listen(own)
    return server


def _opened(where: str, make: Callable[[], socket.socket]) -> socket.socket:
    try:
        return make()
    except OSError as error:
        raise OSError(f"gRPC cannot listen on {where}: {sockets.reason(error)}") from error
