"""A request whose answer takes a wait or a thread: what all REST handlers that run a model share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from tfopt_server.errors import Code, ServingError
from tfopt_server.http import Response
from tfopt_server.registry import Handle
from tfopt_server.tasks import Result, is_long
from tfopt_server.threads import on_thread

# A body of this length holds the event loop for 1 ms, and for 0.1 s at worst (deep nesting, read token by token).
LONG_BODY = 64 * 1024


class Pending(NamedTuple):
    """`handle` is held and must be released; `write` makes the answer of the result."""

    handle: Handle
    result: Result | Future[Result]
    deadline: float
    write: Callable[[Result], Response]


async def through(begin: Callable[[], Response | Pending]) -> Response:
    """Begins a request with a long body on a thread, and ends it."""
    begun = await on_thread(begin, drop)
    return begun if isinstance(begun, Response) else await end(begun)


def drop(begun: Response | Pending) -> None:
    """Nobody waits for what was begun."""
    if isinstance(begun, Pending):
        begun.handle.release()
        if isinstance(begun.result, Future):
            begun.result.cancel()


async def end(pending: Pending) -> Response:
    try:
        result = pending.result
        if isinstance(result, Future):
            result = await wait(result, pending.deadline)
        if is_long(result):
            return await asyncio.to_thread(pending.write, result)
        return pending.write(result)
    finally:
        pending.handle.release()


async def wait(future: Future[Result], deadline: float) -> Result:
    """The result, or DEADLINE_EXCEEDED. What already runs cannot be stopped: it finishes unheard."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await asyncio.wrap_future(future)
    except TimeoutError as error:
        raise ServingError(Code.DEADLINE_EXCEEDED, "Run() timed out") from error
