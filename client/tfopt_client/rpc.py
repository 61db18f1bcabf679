"""gRPC: one unary call on a connection that is kept (gRPC over HTTP/2; grpc-timeout carries what is left)."""

from __future__ import annotations

import math
import socket
import ssl
import urllib.parse
from collections.abc import Mapping

from tfopt_client.deadline import Deadline, exceeded
from tfopt_client.errors import CODES, Failure, untrusted
from tfopt_client.http2 import Connection
from tfopt_client.pool import Pool

_MOST_DIGITS = 99_999_999


class Transport:
    """`secure`: the TLS context, None for plain text."""

    def __init__(self, host: str, port: int, secure: ssl.SSLContext | None) -> None:
        self._host, self._port, self._secure = host, port, secure
        self.pool: Pool[Connection] = Pool()
        if secure is not None:
            secure.set_alpn_protocols(["h2"])

    def call(self, method: str, message: bytes, deadline: Deadline, metadata: Mapping[str, str]) -> bytes:
        """The answer's message. Failure for every status but OK."""
        headers = [
            (b":method", b"POST"), (b":scheme", b"http" if self._secure is None else b"https"),
            (b":path", method.encode()), (b":authority", f"{self._host}:{self._port}".encode()),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"user-agent", b"tfopt-client"),
            *((name.lower().encode(), value.encode()) for name, value in metadata.items()),
        ]  # fmt: skip
        left = deadline.timeout()
        if left is not None:
            headers.append((b"grpc-timeout", timeout(left)))
        body = b"\0" + len(message).to_bytes(4, "big") + message
        with self.pool.taken(lambda: self._connect(deadline)) as connection:
            fields, answer = connection.call(headers, body, deadline)
        return _checked(fields, answer)

    def _connect(self, deadline: Deadline) -> Connection:
        try:
            sock = socket.create_connection((self._host, self._port), deadline.timeout())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure is not None:
                sock = self._secure.wrap_socket(sock, server_hostname=self._host)
        except TimeoutError as error:
            raise exceeded() from error
        except OSError as error:
            text = f"no connection to {self._host}:{self._port}: {error}"
            raise Failure("UNAVAILABLE", text, unseen=not untrusted(error)) from error
        return Connection(sock, deadline)

    def close(self) -> None:
        self.pool.close()


def timeout(seconds: float) -> bytes:
    """The header grpc-timeout: at most eight digits and a unit, never less than what is meant."""
    for unit, scale in ((b"u", 1e6), (b"m", 1e3), (b"S", 1.0)):
        count = math.ceil(seconds * scale)
        if count <= _MOST_DIGITS:
            return b"%d%s" % (max(1, count), unit)
    return b"%dS" % _MOST_DIGITS


def _checked(fields: Mapping[bytes, bytes], body: bytes) -> bytes:
    number = fields.get(b"grpc-status", b"")
    if not number.isdigit():
        status = fields.get(b":status", b"no").decode(errors="replace")
        unseen = status in ("429", "503")
        code = "UNAVAILABLE" if status in ("429", "502", "503", "504") else "UNKNOWN"
        raise Failure(code, f"no gRPC answer: HTTP status {status}", unseen=unseen)
    code = CODES[int(number)] if int(number) < len(CODES) else "UNKNOWN"
    if code != "OK":
        text = urllib.parse.unquote(fields.get(b"grpc-message", b"").decode("latin-1"))
        pushback = fields.get(b"grpc-retry-pushback-ms", b"")
        wait = int(pushback) / 1000 if pushback.isdigit() else None
        # A server that says when says whether: whatever the code, and a negative number means never (gRFC A6).
        unseen = wait is not None or (code == "UNAVAILABLE" and not pushback)
        raise Failure(code, text, unseen=unseen, retry_after_s=wait)
    if len(body) < 5 or len(body) != 5 + int.from_bytes(body[1:5], "big"):
        raise Failure("INTERNAL", "the answer is no whole gRPC message")
    if body[0]:
        raise Failure("UNIMPLEMENTED", "the answer is compressed, which this client did not offer")
    return body[5:]
