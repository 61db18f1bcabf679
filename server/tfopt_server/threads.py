"""Work on a thread for a coroutine that may be cancelled meanwhile, because its client left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def on_thread(work: Callable[[], T], unwanted: Callable[[T], object]) -> T:
    """What `work` gives. A cancelled caller does not stop the thread: what it still gives goes to `unwanted`, on the
    event loop, so that nothing that it holds stays held."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: done.cancelled() or done.exception() or unwanted(done.result()))
        raise
