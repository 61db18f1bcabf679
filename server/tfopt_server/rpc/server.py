"""The gRPC face: a grpcio server on raw bytes, messages from the private pool.

grpcio's synchronous server with two computing threads costs 138 us of CPU per echo; grpc.aio on uvloop 161-175
(docs/decisions/0031-the-grpc-face.md). Nothing here imports TensorFlow or the generated stubs.
"""

from __future__ import annotations

import time

import grpc

from tfopt_server.dataplane import Dataplane
from tfopt_server.metrics import Metrics
from tfopt_server.rpc.gate import Gate
from tfopt_server.rpc.pool import Pool
from tfopt_server.rpc.services import Services
from tfopt_server.settings import Settings

MESSAGE_LIMIT = 2**31 - 1
COMPUTING = 2  # handlers that compute at once; see pool.py
# Calls that may wait for the executor at once, however low --grpc_max_threads is: its default of 4 per CPU would keep a
# batch from ever holding more than that many requests.
MIN_THREADS = 256


class RpcServer:
    """A server that accepts calls. `port` is the bound one, 0 when it only listens on a UNIX socket."""

    def __init__(self, server: grpc.Server, gate: Gate, port: int) -> None:
        self._server = server
        self._gate = gate
        self.port = port

    def drain(self, timeout: float) -> None:
        """Takes no more calls and waits, at most `timeout` seconds, for those under way; what is left is cancelled."""
        began = time.monotonic()
        self._gate.hold()
        stopped = self._server.stop(max(0.0, timeout - (time.monotonic() - began)))
        self._gate.release()
        stopped.wait()


def start(dataplane: Dataplane, settings: Settings, metrics: Metrics) -> RpcServer:
    """Opens settings.port (0: none) and settings.grpc_socket_path. OSError names the address that cannot be had.

    With several workers every one listens on the same port and the kernel spreads the connections.
    """
    pool = Pool(COMPUTING, max(settings.grpc_max_threads, MIN_THREADS))
    gate = Gate(pool)
    content = settings.enable_serialization_as_tensor_content
    services = Services(dataplane, metrics, pool, gate, settings.model_name, content)
    options = {
        "grpc.max_receive_message_length": MESSAGE_LIMIT,
        "grpc.max_send_message_length": MESSAGE_LIMIT,
        "grpc.so_reuseport": int(settings.workers > 1),
        **settings.grpc_channel_arguments,
    }
    server = grpc.server(pool, options=tuple(options.items()))
    for service, methods in services.methods().items():
        # Registered handlers spare the per-call look-up of a generic one: 8 % of an echo. What is not registered is
        # UNIMPLEMENTED, said by grpcio.
        server.add_registered_method_handlers(
            service, {name: grpc.unary_unary_rpc_method_handler(work) for name, work in methods.items()}
        )
    port = _listen(server, f"[::]:{settings.port}") if settings.port else 0
    if settings.grpc_socket_path:
        _listen(server, f"unix:{settings.grpc_socket_path}")
    server.start()
    return RpcServer(server, gate, port)


def _listen(server: grpc.Server, address: str) -> int:
    try:
        return int(server.add_insecure_port(address))
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen on {address}: {error}") from error
