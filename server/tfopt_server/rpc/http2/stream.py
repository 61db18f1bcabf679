"""One HTTP/2 stream: what may still come, what may still go, and what waits to go."""

from __future__ import annotations

from collections import deque
from typing import Any

from tfopt_server.rpc.http2.headers import Block


class Stream:
    """`head`: what the request's headers mean. `owner`: kept for the layer above.

    A stream is open until both ends have said their last. `queue` holds back bytes until the windows and the socket
    have room for them; `lead` and `trailers` are the header blocks before and after them.
    """

    __slots__ = (
        "done", "ended", "expected", "head", "id", "lead", "left", "owner", "queue", "queued", "receive_window",
        "taken", "trailers",
    )  # fmt: skip

    def __init__(self, number: int, head: Any, receive_window: int, left: int) -> None:
        self.id = number
        self.head = head
        self.owner: Any = None
        # Incoming.
        self.ended = False  # the peer has said its last
        self.receive_window = receive_window
        self.taken = 0  # bytes that were used and not yet given back to the peer's window
        self.expected: int | None = head.content_length  # bytes still to come, where the headers said how many
        # Outgoing.
        self.left = left  # what the peer's window allows
        self.lead: Block | None = None
        self.queue: deque[memoryview] = deque()
        self.queued = 0
        self.trailers: Block | None = None
        self.done = False  # our last word was sent, or nothing may be sent any more
