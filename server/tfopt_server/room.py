"""How many bytes of requests all connections of a server may hold before their calls run; gRPC and REST have one each.

Every stream may bring a whole message, every connection may have a thousand streams, and there may be a thousand
connections: the messages' own limit bounds none of it. What does not fit is refused at once, and its client told when
to come again.
"""

from __future__ import annotations

from tfopt_server.errors import RETRY_AFTER_S, Code, ServingError


class Room:
    """`limit`: bytes of messages that have not come whole, or wait for a thread to parse them. One that nobody is
    beside may be larger: its own limit is another. `flag` sets it. On the event loop alone."""

    __slots__ = ("_limit", "_told", "held")

    def __init__(self, limit: int, flag: str = "") -> None:
        self._limit, self._told = limit, f"{limit}, {flag}" if flag else f"{limit}"
        self.held = 0

    def take(self, size: int, own: int) -> None:
        """Room for `size` more bytes of a call that holds `own`; RESOURCE_EXHAUSTED where there is none."""
        if self.held + size > self._limit and self.held > own:
            text = f"The server holds {self.held} bytes of requests that wait to be read (max {self._told})"
            raise ServingError(Code.RESOURCE_EXHAUSTED, text, RETRY_AFTER_S)
        self.held += size

    def give(self, size: int) -> None:
        self.held -= size
