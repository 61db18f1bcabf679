"""What a test in memory waits for: turns of the event loop instead of time, so that a busy machine changes nothing."""

from __future__ import annotations

import asyncio

TURNS = 50


async def settle() -> None:
    """Whatever can happen without time happens."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
