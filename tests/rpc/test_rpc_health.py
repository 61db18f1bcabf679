"""Watchers of the health service, many at a time, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tfopt_server.errors import Code, ServingError
from tfopt_server.rpc import health

WATCH = b"/grpc.health.v1.Health/Watch"


class Ending:
    """A conversation that goes on until `leaving` is set."""

    def __init__(self, leaving: asyncio.Event) -> None:
        self.leaving = leaving

    async def requests(self) -> AsyncIterator[bytes]:
        yield b""

    async def until(self, event: asyncio.Event) -> bool:
        waits = [asyncio.ensure_future(each.wait()) for each in (event, self.leaving)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return not self.leaving.is_set()


async def heard(method: Any, conversation: Ending, into: list[bytes]) -> ServingError | None:
    try:
        async for message in method.streaming(conversation):
            into.append(message)
    except ServingError as error:
        return error
    return None


async def reached(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_all_who_watch_hear_every_change_of_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_S", 0.05)
    looks, fit = 0, True

    def looked() -> bool:
        nonlocal looks
        looks += 1
        return fit

    async def story() -> list[ServingError | None]:
        nonlocal fit, looks
        method, leaving = health.Health(looked, frozenset()).methods()[WATCH], asyncio.Event()
        told: list[list[bytes]] = [[] for _ in range(200)]
        tasks = [asyncio.create_task(heard(method, Ending(leaving), each)) for each in told]
        for count, state in enumerate((True, False, True), 1):
            fit = state
            await reached(lambda count=count: all(len(each) == count for each in told))
        looks, began = 0, asyncio.get_running_loop().time()
        await asyncio.sleep(0.5)
        # Not one for each of the 200.
        assert 0 < looks <= (asyncio.get_running_loop().time() - began) / health.LOOK_S + 1
        leaving.set()
        ended = await asyncio.gather(*tasks)
        assert {tuple(each) for each in told} == {(b"\x08\x01", b"\x08\x02", b"\x08\x01", b"\x08\x02")}
        looks = 0
        await asyncio.sleep(0.2)
        assert looks == 0  # nobody watches any more
        return ended

    assert {error.code for error in asyncio.run(story()) if error} == {Code.UNAVAILABLE}
