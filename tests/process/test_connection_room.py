"""What all connections may hold together of bodies that have not come whole."""

from __future__ import annotations

import asyncio
import json

from h1wire import Wire, answers
from tfopt_server.http import Response
from tfopt_server.room import Room

FLAG = "--max_arriving_body_bytes"


def head(size: int) -> bytes:
    return b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size


def test_half_bodies_of_many_connections_have_one_limit():
    room = Room(1000, FLAG)
    one, two, three = (Wire(room=room) for _ in range(3))
    assert one(head(5000), bytes(500)) == two(head(5000) + bytes(400)) == b""
    ((status, headers, body),) = answers(three(head(5000), bytes(200)).removesuffix(b"<EOF>"))
    assert (status, headers["retry-after"], headers["connection"], three.closed) == (429, "1", "close", True)
    text = f"The server holds 900 bytes of requests that wait to be read (max 1000, {FLAG})"
    assert json.loads(body)["error"] == text
    assert three(bytes(4800)) == b""
    assert room.held == 900
    two.connection.connection_lost(None)  # its client gave up: there is room again
    four = Wire(room=room)
    assert four(head(500), bytes(400)) == b""
    assert answers(four(b" " * 100))[0][0] == 200
    assert room.held == 500
    one.connection.connection_lost(None)
    assert room.held == 0


def test_chunks_count_as_they_come():
    room = Room(1000)
    other = Wire(room=room)
    other(head(5000), bytes(900))
    chunk = b"64\r\n" + b" " * 100 + b"\r\n"
    wire = Wire(room=room)
    assert wire(b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", chunk) == b""
    assert answers(wire(chunk).removesuffix(b"<EOF>"))[0][0] == 429
    assert room.held == 900


def test_one_body_alone_may_be_longer_and_nothing_stays_behind():
    room = Room(1000)
    wire = Wire(room=room)
    assert wire(head(9000), *[b" " * 900] * 9) == b""
    assert room.held == 8100
    assert answers(wire(b" " * 900))[0][0] == 200
    assert room.held == 0


def test_short_requests_that_come_whole_need_no_room():
    room = Room(10)
    other = Wire(room=room)
    other(head(5000), bytes(10))
    assert answers(Wire(room=room)(head(50) + b" " * 50))[0][0] == 200


def test_a_body_that_waits_for_an_earlier_answer_counts_until_its_turn():
    async def story() -> None:
        first: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        turns = iter([first, Response(b"{}")])
        room = Room(1000)
        wire = Wire(lambda request: next(turns), room=room)
        wire(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", head(900), bytes(600), bytes(300))
        assert room.held == 600  # the last piece makes it whole, and is one read long at most
        other = Wire(room=room)
        assert answers(other(head(5000), bytes(500)).removesuffix(b"<EOF>"))[0][0] == 429
        first.set_result(Response(b"{}"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert [status for status, _, _ in answers(wire.sent)] == [200, 200]
        assert room.held == 0

    asyncio.run(story())
