"""gRPC connections over time, in memory: backpressure, and what only time brings about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import rpcwire
from h2wire import data, headers, ping, settings, window
from loopturns import settle
from rpcwire import Wire, fields, message
from tfopt_server.rpc.http2.frames import PREFACE
from tfopt_server.rpc.transport import LAST_CALL_S, LINGER_S


class Clock(asyncio.SelectorEventLoop):
    """A loop on which time stands still until a test moves it: a busy machine makes nobody late."""

    now = 0.0

    def time(self) -> float:
        return self.now


def run(story: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(story())


async def later(wire: Wire, seconds: float) -> list[str]:
    """What is said by then; the server calls tick() once a second."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clock)
    loop.now += seconds
    await settle()
    wire.transport.tick()
    return wire.frames()


def test_a_streaming_method_goes_at_its_clients_pace():
    async def story() -> None:
        wire = Wire()
        wire.say(settings({4: 10}), headers(1, fields(**{":path": "/s/Double"})))
        wire.say(*(data(1, message(b"abcdef")) for _ in range(30)))
        await settle()
        assert wire.heard()[1][1] == message(b"abcdefabcdef")[:10]
        talk = wire.transport.core.streams[1].owner
        assert len(talk._messages) == 29  # it waits for the client to read before it takes the next
        wire.say(window(1, 10_000), data(1, b"", end=True))
        await wire.until(lambda: not wire.transport.core.streams)
        assert wire.heard()[1][1] == message(b"abcdefabcdef")[10:] + message(b"abcdefabcdef") * 29

    rpcwire.run(story)


def test_while_the_socket_is_full_answers_wait():
    async def story() -> None:
        wire = Wire()
        wire.transport.pause_writing()
        wire.say(headers(1) + data(1, message(b"abc"), end=True))
        assert wire.heard() == {}
        wire.transport.resume_writing()
        assert wire.heard()[1][1] == message(b"cba")

    run(story)


def test_who_breaks_the_rules_and_reads_nothing_is_cut():
    async def story() -> None:
        wire = Wire()
        wire.say(ping() * 2000)
        assert wire.transport.core.failed is not None
        await later(wire, LINGER_S / 2)
        assert not wire.socket.closed
        await later(wire, LINGER_S)
        assert (wire.socket.closed, wire.socket.aborted) == (True, False)
        await later(wire, LINGER_S)
        assert wire.socket.aborted

    run(story)


def test_who_never_greets_is_cut():
    async def story() -> None:
        silent, client = Wire(greet=False, handshake_s=10), Wire(handshake_s=10)
        silent.say(PREFACE[:5])
        await later(silent, 9)
        assert not silent.socket.closed
        await later(silent, 2)
        await later(client, 0)
        assert (silent.socket.closed, client.socket.closed) == (True, False)

    run(story)


def test_a_client_that_is_silent_is_asked_and_cut_when_it_does_not_answer():
    async def story() -> None:
        wire = Wire(keepalive_s=20, keepalive_timeout_s=20)
        assert await later(wire, 21) == []  # no calls: nothing to keep it for
        wire.say(headers(1))
        assert await later(wire, 19) == []
        assert await later(wire, 2) == ["PING b'areyouup'"]
        wire.say(ping(b"areyouup", ack=True))
        assert await later(wire, 0) == []
        assert await later(wire, 21) == ["PING b'areyouup'"]
        assert await later(wire, 19) == []
        assert not wire.socket.closed
        assert await later(wire, 2) == []
        assert wire.socket.closed

    run(story)


def test_connections_that_are_idle_or_old_end_as_in_a_drain():
    async def story() -> None:
        goodbye = ["GOAWAY 2147483647 NO_ERROR", "PING b'lastcall'"]
        idle = Wire(idle_s=20)
        idle.say(headers(1))
        assert await later(idle, 21) == []  # a call is under way
        idle.say(data(1, message(b"abc"), end=True))
        idle.heard()
        assert await later(idle, 21) == goodbye
        assert await later(idle, 1.1 * LAST_CALL_S) == ["GOAWAY 1 NO_ERROR"]  # no echo came
        await later(idle, 1.1 * LINGER_S)
        assert idle.socket.closed
        old = Wire(age_s=20, age_grace_s=50)
        old.say(headers(1))
        assert await later(old, 23) == goodbye
        old.say(ping(b"lastcall", ack=True))
        assert old.frames() == ["GOAWAY 1 NO_ERROR"]
        await later(old, 49)
        assert not old.socket.closed  # the call may take its time,
        await later(old, 2)
        assert old.socket.closed  # but not for ever

    run(story)
