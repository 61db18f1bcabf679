"""When a peer asks for too much work for too little: a bucket of tokens that worthless frames empty.

HTTP/2 lets a client make a server work without ever waiting for an answer: streams opened and reset at once
(CVE-2023-44487), pings, settings, empty frames. A request that is answered pays for a few such frames, so that clients
which cancel some of many calls (hedging, short deadlines) are not cut; time pays for the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from tfopt_server.rpc.http2.frames import ConnectionFailure, ErrorCode

# nghttp2 allows 1000 resets at once and 33 a second; here the same bucket also pays for pings and settings.
BURST = 1000.0
PER_SECOND = 100.0
PER_ANSWER = 2.0


class Bucket:
    """`clock`: seconds that never go back."""

    __slots__ = ("_at", "_clock", "_left")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = BURST
        self._at = clock()

    def earn(self) -> None:
        """A request was answered."""
        if self._left < BURST:
            self._left += PER_ANSWER

    def spend(self, what: str, price: float = 1.0) -> None:
        """A frame came that costs work and moves nothing on. ConnectionFailure when there were too many."""
        self._left -= price
        if self._left >= 0:
            return
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 0:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}")
