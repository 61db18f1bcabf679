"""One unary gRPC call on a blocking socket, for probes: no event loop, no gRPC library, quick to import."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import hpack

from tfopt_server.errors import Code
from tfopt_server.rpc import tls
from tfopt_server.rpc.http2 import frames
from tfopt_server.rpc.http2.headers import encode
from tfopt_server.rpc.messages import PREFIX, prefix

_STREAM = 1


class ProbeError(Exception):
    """There is no answer; text for the operator."""


def call(port: int, path: str, request: bytes, timeout_s: float, ssl_config: Path | None = None) -> bytes:
    """The answer of the server on this machine's `port`. ProbeError also for a refusal; OSError when nobody listens."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as plain:
        sock = plain if ssl_config is None else _secured(plain, ssl_config)
        headers = [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"localhost"),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"),
        ]  # fmt: skip
        body = prefix(len(request)) + request
        sock.sendall(
            frames.PREFACE + frames.settings({}) + frames.headers(_STREAM, encode(headers), 2**14, ended=False)
            + frames.frame(frames.DATA, frames.END_STREAM, _STREAM, body)
        )  # fmt: skip
        return _answer(sock)


def _secured(plain: socket.socket, ssl_config: Path) -> ssl.SSLSocket:
    """To this very machine, whatever name its certificate is for; the server's own pair serves as the client's."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    tls.load_pair(context, tls.parse(ssl_config), ssl_config)
    return context.wrap_socket(plain)


def _answer(sock: socket.socket) -> bytes:
    body, decoder = b"", hpack.Decoder()
    while True:
        high, low, kind, flags, _ = frames.FRAME.unpack(_exactly(sock, frames.FRAME.size))
        payload = _exactly(sock, high << 16 | low)
        if kind in (frames.SETTINGS, frames.PING) and not flags & frames.ACK:
            sock.sendall(frames.frame(kind, frames.ACK, 0, payload if kind == frames.PING else b""))
        elif kind == frames.RST_STREAM or (kind == frames.GOAWAY and payload[4:8] != bytes(4)):
            raise ProbeError("the server ended the call")
        elif kind == frames.DATA:
            body += payload
        elif kind == frames.HEADERS:
            fields = {bytes(name): bytes(value) for name, value in decoder.decode(payload, raw=True)}
            if flags & frames.END_STREAM:
                return _checked(fields, body)


def _checked(fields: dict[bytes, bytes], body: bytes) -> bytes:
    code = fields.get(b"grpc-status", b"2")
    if code != b"0":
        raise ProbeError(f"{Code(int(code)).name} {fields.get(b'grpc-message', b'').decode()}")
    return body[PREFIX:]


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = sock.recv(size - len(found))
        if not part:
            raise ProbeError("the server closed the connection")
        found += part
    return found
