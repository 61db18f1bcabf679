"""How a connection behaves when the server drains: gunicorn's HTTP/1 protocol, plus what a lossless end needs.

gunicorn closes a kept-alive connection at its own convenience once the worker stops. A client that was told nothing
may be sending its next request at that moment and loses it. Here every answer written after the signal announces
`connection: close` (RFC 9112, 9.6), only announced connections are closed after their answer, and idle ones are left
open a little longer for the request that may already be on its way.

Rules for changing it: this is the only file that touches gunicorn's private names; gunicorn is pinned below 28.
"""

from __future__ import annotations

from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol

# How long an idle connection may still bring a request after the drain began. Longer than a client on the same
# continent needs to see an answer and send the next request; short enough to fit every platform's grace period.
IDLE_LINGER_S = 1.0


class Connection(ASGIProtocol):  # type: ignore[misc]
    """`worker` is a worker.Worker: it holds the open connections and knows whether it is draining."""

    def connection_made(self, transport: Any) -> None:
        self.opened = self.worker.loop.time()
        self.worker.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.worker.connections.discard(self)
        super().connection_lost(exc)

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        return bool(self.worker.draining or super()._will_close(request, response_requires_close))

    @property
    def idle(self) -> bool:
        """No request is being read or answered."""
        parser = self._callback_parser
        reading = getattr(parser, "_buffer", b"") or getattr(parser, "_state", "request_line") != "request_line"
        return bool(self._awaiting_request) and not reading

    def close_if_idle_since(self, drain_began: float, now: float) -> None:
        """Closes the connection when it had its time to bring one more request; times are the event loop's."""
        if self.idle and now - max(drain_began, self.opened) >= IDLE_LINGER_S:
            self._close_transport()
