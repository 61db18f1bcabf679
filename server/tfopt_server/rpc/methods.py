"""The joint between the transport and the services: a method is a function of bytes.

    Method("/package.Service/Do", unary=do)            # do(request, deadline) -> answer, or a Pending one
    Method("/package.Service/Talk", streaming=talk)    # talk(conversation) is an async iterator of answers

Both raise ServingError for what the client shall read; anything else is INTERNAL. A unary function runs on the event
loop, or on a thread when its request is long, and must not block either: what takes longer is Pending.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol


class Pending(Protocol):
    """An answer that is being worked on elsewhere. The transport cancels `future` when nobody wants it any more."""

    future: Future[Any]

    def long(self) -> bool:
        """Whether `answer` takes so long that it should run on a thread; asked when the future is done."""

    def answer(self) -> bytes:
        """Called exactly once when the future is done, however it ended. Raises what the client shall hear."""


class Conversation(Protocol):
    """A call of a streaming method. `deadline` is on time.monotonic's clock."""

    deadline: float | None
    metadata: Sequence[tuple[bytes, bytes]]

    def requests(self) -> AsyncIterator[bytes]:
        """The client's messages, as they come, until it has said its last. UNAVAILABLE when the server ends."""

    async def until(self, event: asyncio.Event) -> bool:
        """Waits for the event; at once False when the server ends, which a method should follow soon."""


Unary = Callable[[bytes, float | None], bytes | Pending]
Streaming = Callable[[Conversation], AsyncIterator[bytes]]


class Method(NamedTuple):
    """`path`: /package.Service/Name. One of the two functions is given."""

    path: str
    unary: Unary | None = None
    streaming: Streaming | None = None
