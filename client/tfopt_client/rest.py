"""REST: one HTTP/1.1 request and its answer on a connection that is kept."""

from __future__ import annotations

import email.utils
import http.client
import json
import select
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tfopt_client.deadline import Deadline, exceeded
from tfopt_client.errors import Failure, of_status, untrusted
from tfopt_client.pool import Pool

# Answers of a server, or of the proxy before it, that has not run the request.
_UNSEEN = (429, 503)
_PART = 1 << 20


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes


class _Connection:
    def __init__(self, http_connection: http.client.HTTPConnection) -> None:
        self.http, self.last = http_connection, False

    def usable(self) -> bool:
        """A server that closes an idle connection makes it readable; nothing else does between two answers."""
        sock = self.http.sock
        return not self.last and sock is not None and not select.select([sock], [], [], 0)[0]

    def close(self) -> None:
        self.http.close()


class Transport:
    """`secure`: the TLS context, None for plain HTTP."""

    def __init__(self, host: str, port: int, secure: ssl.SSLContext | None) -> None:
        self._host, self._port, self._secure = host, port, secure
        self.pool: Pool[_Connection] = Pool()

    def call(self, method: str, path: str, body: bytes, headers: Mapping[str, str], deadline: Deadline) -> Answer:
        """The answer with status 200. Failure for every other one, and for none."""
        with self.pool.taken(lambda: self._connect(deadline)) as connection:
            answer, retry_after = self._exchange(connection, method, path, body, headers, deadline)
        if answer.status == 200:
            return answer
        raise Failure(
            of_status(answer.status), _error_of(answer), unseen=answer.status in _UNSEEN,
            temporary=answer.status == 502, retry_after_s=retry_after,
        )  # fmt: skip

    def _connect(self, deadline: Deadline) -> _Connection:
        timeout = deadline.timeout()
        made = (
            http.client.HTTPConnection(self._host, self._port, timeout=timeout)
            if self._secure is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._secure)
        )
        try:
            made.connect()
        except TimeoutError as error:
            raise exceeded() from error
        except OSError as error:
            text = f"no connection to {self._host}:{self._port}: {error}"
            raise Failure("UNAVAILABLE", text, unseen=not untrusted(error)) from error
        return _Connection(made)

    def _exchange(  # noqa: PLR0917
        self, connection: _Connection, method: str, path: str, body: bytes, headers: Mapping[str, str],
        deadline: Deadline,
    ) -> tuple[Answer, float | None]:  # fmt: skip
        made = connection.http
        whole = False
        try:
            made.sock.settimeout(deadline.timeout())
            made.request(method, path, body, dict(headers))
            whole = True
            made.sock.settimeout(deadline.timeout())
            sock, response = made.sock, made.getresponse()
            parts = []
            while True:
                sock.settimeout(deadline.timeout())
                part = response.read1(_PART)
                if not part:
                    break
                parts.append(part)
            response.close()  # read to its end by read1, it does not notice that by itself
        except TimeoutError as error:
            raise exceeded() from error
        except (OSError, http.client.HTTPException) as error:
            # What was not written whole cannot have been run.
            text = f"the connection to {self._host}:{self._port} was lost: {error!r}"
            temporary = not untrusted(error)  # a server may say so only now (TLS 1.3)
            raise Failure("UNAVAILABLE", text, unseen=temporary and not whole, temporary=temporary) from error
        connection.last = response.will_close
        found = Answer(response.status, response.headers.get_content_type(), b"".join(parts))
        return found, retry_after(response.headers.get("retry-after"), time.time())

    def close(self) -> None:
        self.pool.close()


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its forms (RFC 9110, 10.2.3); None for no header."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None


def _error_of(answer: Answer) -> str:
    try:
        return str(json.loads(answer.body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {answer.status}: {answer.body[:200].decode(errors='replace')}"
