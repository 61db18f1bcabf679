"""One HTTP/1.1 connection over time: answers in order, backpressure, leaving, streams, draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from h1wire import GET, POST, Wire, answers
from loopturns import settle
from tfopt_server.http import Answer, Request, Response, Streamed
from tfopt_server.process import connections
from tfopt_server.process.connections import KEEP_ALIVE_S, STALLED_S


class Slow:
    """An app whose answers come when the test says so, in the order it says."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Request, asyncio.Future[Answer]]] = []

    def __call__(self, request: Request) -> Awaitable[Answer]:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((request, future))
        return future

    async def release(self, answer: Answer) -> None:
        self.waiting.pop(0)[1].set_result(answer)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def run(story: Any) -> None:
    asyncio.run(story())


def test_pipelined_requests_are_answered_in_their_order():
    async def story() -> None:
        app = Slow()
        wire = Wire(app)
        assert wire(POST + GET) == b""
        assert len(app.waiting) == 1  # one after the other: an answer may depend on what came before
        await asyncio.sleep(0)
        await app.release(Response(b"one"))
        await app.release(Response(b"two"))
        assert [body for _, _, body in answers(wire.sent)] == [b"one", b"two"]
        assert wire.connection.idle

    run(story)


def test_a_client_that_sends_without_end_is_not_read_without_end():
    async def story() -> None:
        app = Slow()
        wire = Wire(app)
        wire(*[GET] * (connections.QUEUE_LIMIT + 1))
        assert not wire.reading
        await asyncio.sleep(0)
        await app.release(Response(b""))
        assert wire.reading

    run(story)


def test_a_client_that_does_not_read_is_not_read_either():
    wire = Wire()
    wire.connection.pause_writing()
    assert not wire.reading
    assert wire(GET) == b""
    wire.connection.resume_writing()
    assert wire.reading
    assert len(answers(wire.sent)) == 1


def test_a_bad_request_waits_until_those_before_it_are_answered():
    async def story() -> None:
        app = Slow()
        wire = Wire(app)
        assert wire(GET + GET + b"nonsense\r\n\r\n") == b""
        await asyncio.sleep(0)
        await app.release(Response(b"one"))
        await app.release(Response(b"two"))
        assert [(status, body) for status, _, body in answers(wire.sent)][:2] == [(200, b"one"), (200, b"two")]
        assert [status for status, _, _ in answers(wire.sent)] == [200, 200, 400]
        assert wire.closed

    run(story)


def test_whoever_leaves_cancels_what_he_waited_for():
    async def story() -> None:
        app = Slow()
        wire = Wire(app)
        wire(GET)
        await asyncio.sleep(0)
        wire.connection.connection_lost(None)
        await asyncio.sleep(0)
        assert app.waiting[0][1].cancelled()
        assert wire.connections == set()

    run(story)


def test_whoever_leaves_at_once_leaves_nothing_held():
    held = []

    async def answer() -> Response:
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            held.clear()

    def app(_request: Request) -> Awaitable[Answer]:
        held.append("a version")
        return answer()

    async def story() -> None:
        wire = Wire(app)
        wire(GET)
        wire.connection.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        assert held == []

    run(story)


def test_a_half_closed_connection_is_answered_before_it_ends():
    async def story() -> None:
        app = Slow()
        wire = Wire(app)
        wire(GET)
        await asyncio.sleep(0)
        assert wire.connection.eof_received()
        await app.release(Response(b"late"))
        assert [body for _, _, body in answers(wire.sent)] == [b"late"]
        assert wire.closed
        assert not Wire().connection.eof_received()

    run(story)


def test_streamed_answers_leave_part_by_part():
    gate = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        await gate.wait()
        yield b"second"

    async def story() -> None:
        wire = Wire(lambda _request: Streamed(parts(), content_type=b"text/event-stream"))
        wire(GET)
        await settle()
        assert wire.sent.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        gate.set()
        await settle()
        assert wire.sent.endswith(b"6\r\nsecond\r\n0\r\n\r\n")
        assert not wire.closed

    run(story)


def test_a_streamed_answer_that_fails_is_cut_and_one_that_is_left_is_closed():
    ended: list[str] = []

    async def failing() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("no more")

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            ended.append("closed")

    async def story() -> None:
        wire = Wire(lambda _request: Streamed(failing()))
        wire(GET)
        await settle()
        assert wire.cut
        assert not wire.sent.endswith(b"0\r\n\r\n")
        left = Wire(lambda _request: Streamed(endless()))
        left(GET)
        await settle()
        left.connection.connection_lost(None)
        await settle()
        assert ended == ["closed"]

    run(story)


def test_while_draining_every_answer_says_close():
    wire = Wire()
    wire.draining = True
    ((_, headers, _),) = answers(wire(GET))
    assert (headers["connection"], wire.closed) == ("close", True)


def test_who_is_idle_and_who_is_stale():
    wire = Wire()
    assert wire.connection.idle
    wire(POST[:-1])
    assert not wire.connection.idle
    wire.now += STALLED_S + 1
    wire.connection.close_if_stale(wire.now)
    assert answers(wire.sent.removesuffix(b"<EOF>"))[0][0] == 408
    deaf = Wire()
    deaf(GET)
    deaf.connection.pause_writing()
    deaf.connection.close_if_stale(deaf.now + STALLED_S + 1)
    assert deaf.cut
    quiet = Wire()
    quiet(GET)
    quiet.connection.close_if_stale(quiet.now + KEEP_ALIVE_S - 1)
    assert not quiet.closed
    quiet.connection.close_if_stale(quiet.now + KEEP_ALIVE_S + 1)
    assert quiet.closed
