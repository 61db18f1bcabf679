"""HTTP/1.1 on one connection, in memory: bytes in, bytes out. The app of these tests echoes what it understood."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfopt_server.http import Answer, Request, Response, Streamed
from tfopt_server.process import connections
from tfopt_server.process.connections import HEAD_LIMIT, KEEP_ALIVE_S, STALLED_S, Connection

GET = b"GET /a?b=%20c HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nX-Name: Value\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrail: er\r\n\r\n"
)


def echo(request: Request) -> Response:
    headers = {k.decode(): v.decode() for k, v in request.headers}
    return Response(json.dumps([request.method, request.target, headers, request.body.decode()]).encode())


class Wire:
    """The transport and the worker: what a connection is between."""

    def __init__(self, app: Any = echo, limit: int = 0) -> None:
        self.loop = self
        self.now = 1000.0
        self.connections: set[Connection] = set()
        self.draining = False
        self.gate, self.max_body_bytes = app, limit
        self.sent, self.closed, self.cut, self.reading, self.tasks = b"", False, False, True, []
        self.connection = Connection(self)  # type: ignore[arg-type]
        self.connection.connection_made(self)

    def __call__(self, *parts: bytes) -> bytes:
        """What comes back for these bytes."""
        before = len(self.sent)
        for part in parts:
            self.connection.data_received(part)
        return self.sent[before:]

    # asyncio's loop
    def time(self) -> float:
        return self.now

    def create_task(self, coroutine: Any) -> Any:
        return asyncio.get_running_loop().create_task(coroutine)

    def call_soon(self, function: Any) -> None:
        asyncio.get_running_loop().call_soon(function)

    def call_later(self, _seconds: float, function: Any) -> None:
        function()

    # asyncio's transport
    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.cut = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.sent += b"<EOF>"

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers in a stretch of the wire, each with its headers and its body."""
    found = []
    while data and data != b"<EOF>":
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        headers = dict(each.decode().split(": ", 1) for each in lines)
        assert "date" in headers
        size = int(headers["content-length"])
        found.append((int(line.split()[1]), headers, rest[:size]))
        data = rest[size:]
    return found


def test_a_request_as_the_app_sees_it_and_its_answer():
    ((status, headers, body),) = answers(Wire()(POST))
    assert json.loads(body) == ["POST", "/p", {"host": "h", "x-name": "Value", "content-length": "5"}, "hello"]
    assert (status, headers["content-type"], "connection" in headers) == (200, "application/json", False)
    ((_, _, body),) = answers(Wire()(GET))
    assert json.loads(body)[:2] == ["GET", "/a?b=%20c"]
    ((_, _, body),) = answers(Wire()(CHUNKED))
    assert json.loads(body)[2:] == [{"host": "h", "transfer-encoding": "chunked"}, "hello"]


@given(st.lists(st.sampled_from([GET, POST, CHUNKED]), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_it_does_not_matter_where_the_bytes_are_cut(requests, data):
    whole = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    cut = [(status, body) for status, _, body in answers(Wire()(*parts))]
    assert cut == [(status, body) for each in requests for status, _, body in answers(Wire()(each))]


@pytest.mark.parametrize(
    ("request_", "closes", "header"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", False, None),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", True, "close"),
        (b"GET / HTTP/1.0\r\n\r\n", True, "close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False, "keep-alive"),
    ],
)
def test_who_keeps_the_connection(request_, closes, header):
    wire = Wire()
    ((_, headers, _),) = answers(wire(request_))
    assert (wire.closed, headers.get("connection")) == (closes, header)


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nName: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
def test_what_cannot_be_read_in_one_way_only_is_refused_and_ends_the_connection(bad):
    wire = Wire()
    ((status, headers, body),) = answers(wire(bad).removesuffix(b"<EOF>"))
    assert (status, headers["connection"], wire.closed) == (400, "close", True)
    assert json.loads(body)["error"].startswith("Bad Request: ")
    assert wire(GET) == b""


def test_probes_of_http_1_0_need_no_host_and_an_empty_one_is_one():
    assert answers(Wire()(b"GET /health HTTP/1.0\r\n\r\n"))[0][0] == 200
    assert answers(Wire()(b"GET /health HTTP/1.1\r\nHost:\r\n\r\n"))[0][0] == 200


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_bring_it_down(noise):
    wire = Wire()
    wire(POST[:-2], noise)
    assert len(wire.connection._waiting) == 0


def test_heads_without_end():
    wire = Wire()
    sent = wire(b"GET / HTTP/1.1\r\nHost: h\r\n", *[b"x: " + b"y" * 1000 + b"\r\n"] * (HEAD_LIMIT // 1000 + 1))
    ((status, _, _),) = answers(sent.removesuffix(b"<EOF>"))
    assert (status, wire.closed) == (431, True)
    in_one_piece = Wire()(b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"y" * (HEAD_LIMIT + 1) + b"\r\n\r\n")
    assert [status for status, _, _ in answers(in_one_piece.removesuffix(b"<EOF>"))] == [431]
    trailers = Wire()(CHUNKED.removesuffix(b"\r\n"), *[b"x: " + b"y" * 1000 + b"\r\n"] * (HEAD_LIMIT // 1000 + 3))
    assert [status for status, _, _ in answers(trailers.removesuffix(b"<EOF>"))] == [431]


@pytest.mark.parametrize(
    "parts",
    [
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n",),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", b"6\r\nsix...\r\n", b"6\r\nsix...\r\n"),
    ],
)
def test_bodies_beyond_the_operators_limit(parts):
    wire = Wire(limit=10)
    ((status, headers, body),) = answers(wire(*parts).removesuffix(b"<EOF>"))
    assert (status, headers["connection"], wire.closed) == (413, "close", True)
    assert json.loads(body)["error"] == "The request body is larger than 10 bytes (--max_body_bytes)."
    assert answers(Wire(limit=10)(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789"))[0][0] == 200


def test_who_asks_before_sending_is_told_to_go_on_unless_it_is_too_much():
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    wire = Wire()
    assert wire(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answers(wire(b"hello"))[0][0] == 200
    assert answers(Wire(limit=4)(head).removesuffix(b"<EOF>"))[0][0] == 413
    assert Wire()(head.replace(b"HTTP/1.1", b"HTTP/1.0")) == b""


def test_a_head_request_has_the_length_and_no_body():
    sent = Wire()(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert re.search(rb"content-length: [1-9]", sent)
    assert sent.endswith(b"\r\n\r\n")


def test_an_upgrade_is_not_taken_and_the_request_answered():
    """Java's HttpClient asks for h2c with its first request."""
    asking = POST.replace(b"X-Name: Value", b"Connection: Upgrade\r\nUpgrade: h2c")
    many = answers(Wire()(asking * 3000))  # no depth of calls that bytes can choose
    assert [status for status, _, _ in many] == [200] * 3000
    leaving = Wire()
    leaving(asking.replace(b"Connection: Upgrade", b"Connection: close, upgrade"))
    assert leaving.closed
    found = answers(Wire()(asking + POST))
    assert [json.loads(body)[3] for _, _, body in found] == ["hello", "hello"]
    assert [
        body for _, _, body in answers(Wire()(GET.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost")))
    ]


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
        await asyncio.sleep(0.01)
        assert wire.sent.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        gate.set()
        await asyncio.sleep(0.01)
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
        await asyncio.sleep(0.01)
        assert wire.cut
        assert not wire.sent.endswith(b"0\r\n\r\n")
        left = Wire(lambda _request: Streamed(endless()))
        left(GET)
        await asyncio.sleep(0.01)
        left.connection.connection_lost(None)
        await asyncio.sleep(0.01)
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
