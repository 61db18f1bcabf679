"""A bare grpcio server that answers every unary call with the bytes it received: `python -m ... PORT THREADS`."""

from __future__ import annotations

import concurrent.futures
import signal
import sys

import grpc


class Echo(grpc.GenericRpcHandler):
    """One handler for every method, without (de)serializers: bytes in, the same bytes out."""

    def __init__(self) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    def service(self, handler_call_details):
        return self._handler


def main(port: int, threads: int) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(threads), handlers=[Echo()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    server.stop(2).wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
