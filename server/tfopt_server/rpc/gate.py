"""Ends a gRPC server without losing calls, although grpcio has no lame-duck phase.

Once grpcio's server is told to stop, it cancels calls that the transport has read but Python has not seen, and those
that arrive before the client has seen the GOAWAY: measured, one call lost per stop with 8 clients under load. So
answers are held back for a moment first. A client that waits for an answer sends nothing new meanwhile; when no call
has arrived for QUIET_S, everything that was sent is in a handler, the server is told to stop (GOAWAY goes out), and
the answers follow. Clients that send without waiting never fall quiet: for them HOLD_S bounds the delay.
"""

from __future__ import annotations

import threading
import time

from tfopt_server.rpc.pool import Pool

QUIET_S = 0.05
HOLD_S = 0.5


class Gate:
    """Every handler passes `entered` first and `leave` last."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._last = 0.0
        self._open = threading.Event()
        self.closing = False

    def entered(self) -> None:
        self._last = time.monotonic()

    def leave(self) -> None:
        """Returns at once in normal life; while the gate closes, when `release` was called."""
        if self.closing:
            with self._pool.waiting():
                self._open.wait()

    def hold(self) -> None:
        """Keeps answers back from now on, and returns when no more calls come or HOLD_S has passed."""
        began = time.monotonic()
        self._last = max(self._last, began)
        self.closing = True
        while (now := time.monotonic()) < began + HOLD_S and now < self._last + QUIET_S:
            time.sleep(0.005)

    def release(self) -> None:
        self._open.set()
