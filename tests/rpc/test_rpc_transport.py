"""gRPC over the HTTP/2 core, in memory: calls, refusals, messages cut anywhere, junk."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence

import pytest
from h2wire import data, headers, rst, settings, window
from hypothesis import given
from hypothesis import strategies as st
from rpcwire import Wire, fields, message, run
from tfopt_server.rpc import messages
from tfopt_server.rpc.messages import Message


def test_a_unary_call_and_its_refusals():
    async def story() -> None:
        wire = Wire()
        for number, body in ((1, b"abc"), (3, b"refuse"), (5, b"fail"), (7, b"")):
            wire.say(headers(number) + data(number, message(body), end=True))
        heard = wire.heard()
        assert heard[1] == ({":status": "200", "content-type": "application/grpc", "grpc-status": "0"}, message(b"cba"))
        assert heard[7][1] == message(b"")
        assert heard[3][0]["grpc-status"] == "5"
        assert heard[3][0]["grpc-message"] == "no 100 %25 match: %C3%A4%0A"
        assert heard[5][0]["grpc-status"] == "13"
        assert "secret" not in heard[5][0]["grpc-message"]
        assert wire.transport.core.streams == {}

    run(story)


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({"content_type": "application/json"}, {":status": "415"}),
        ({"content_type": None}, {":status": "415"}),
        ({"content_type": "application/grpc-web"}, {":status": "415"}),
        ({":method": "GET"}, {":status": "405", "allow": "POST"}),
        ({":path": "/s/Nope"}, {"grpc-status": "12", "grpc-message": "/s/Nope is not served."}),
        ({"grpc_encoding": "br"}, {"grpc-status": "12", "grpc-accept-encoding": "identity, deflate, gzip"}),
        ({"grpc_timeout": "10"}, {"grpc-status": "13", "grpc-message": "malformed grpc-timeout: 10"}),
        ({"grpc_timeout": "123456789S"}, {"grpc-status": "13"}),
        ({"x": "y" * 17_000}, {"grpc-status": "8"}),
    ],
)
def test_what_is_refused_by_its_headers(changed: dict[str, str | None], seen: dict[str, str]):
    async def story() -> None:
        wire = Wire()
        wire.say(headers(1, fields(**changed)), data(1, message(b"abc"), end=True))
        found, body = wire.heard()[1]
        assert {name: found[name] for name in seen} == seen
        assert body == b""
        wire.say(headers(3) + data(3, message(b"abc"), end=True))
        assert wire.heard()[3][1] == message(b"cba")

    run(story)


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc;x=y"])
def test_content_types_that_are_grpc(content_type: str):
    async def story() -> None:
        wire = Wire()
        wire.say(headers(1, fields(content_type=content_type, te=None)) + data(1, message(b"abc"), end=True))
        assert wire.heard()[1][1] == message(b"cba")

    run(story)


@pytest.mark.parametrize(
    ("parts", "status", "text"),
    [
        ([], "12", "A unary call takes one message; received none"),
        ([message(b"a") + message(b"b")], "12", "A unary call takes one message; received more"),
        ([message(b"a")[:3]], "13", "a message was cut off"),
        ([message(b"abc")[:7]], "13", "a message was cut off"),
        ([b"\x02\0\0\0\0"], "13", "a message begins with the flag 2; expected 0 or 1"),
        ([message(b"abc", compressed=True)], "13", "a message is compressed, but the call has no grpc-encoding"),
        ([b"\0\x7f\xff\xff\xff"], "8", "Received message larger than max (2147483647 vs. 1000)"),
    ],
)
def test_what_is_no_message(parts: Sequence[bytes], status: str, text: str):
    async def story() -> None:
        wire = Wire(receive_limit=1000)
        wire.say(headers(1), *(data(1, part) for part in parts), data(1, b"", end=True))
        await wire.until(lambda: not wire.transport.core.streams)
        found, _ = wire.heard()[1]
        assert (found["grpc-status"], found["grpc-message"]) == (status, text)

    run(story)


def test_a_frame_of_many_messages_is_not_cut_up_where_one_is_expected(monkeypatch: pytest.MonkeyPatch):
    """A megabyte of empty messages would hold the event loop for seconds."""
    cut: list[bytes] = []
    monkeypatch.setattr(messages, "Message", lambda *parts: cut.append(parts) or Message(*parts))

    async def story() -> None:
        wire = Wire()
        wire.say(headers(1), data(1, message(b"") * 200_000))
        assert wire.heard()[1][0]["grpc-message"] == "A unary call takes one message; received more"
        assert len(cut) == 2

    run(story)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.data())
def test_messages_may_be_cut_anywhere(bodies: list[bytes], drawn: st.DataObject):
    """Into frames, and the frames into reads; a unary and a streaming call mixed."""

    async def story() -> None:
        wire = Wire()
        said = headers(1) + headers(3, fields(**{":path": "/s/Double"}))
        for number, whole in ((1, message(bodies[0])), (3, b"".join(map(message, bodies)))):
            cuts = sorted(drawn.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
            for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
                said += data(number, whole[start:stop])
            said += data(number, b"", end=True)
        cuts = sorted(drawn.draw(st.lists(st.integers(0, len(said)), max_size=8)))
        wire.say(*(said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)))
        await wire.until(lambda: not wire.transport.core.streams)
        heard = wire.heard()
        assert heard[1][1] == (message(bodies[0][::-1]) if bodies[0] not in (b"refuse", b"fail") else b"")
        assert heard[3][1] == b"".join(message(body * 2) for body in bodies)
        assert heard[3][0]["grpc-status"] == "0"

    run(story)


@given(st.binary(max_size=300), st.integers(0, 3))
def test_any_bytes_end_in_an_answer_or_a_goaway(junk: bytes, where: int):
    async def story() -> None:
        wire = Wire()
        wire.say(*[headers(1) + data(1, message(b"abc"), end=True)] * (where > 0))
        wire.say(headers(3)) if where > 1 else None
        wire.say(junk)
        core = wire.transport.core
        assert core.failed is not None or len(core.streams) <= 1 + len(junk) // 9
        if core.failed is not None:
            assert core.streams == {}
        else:  # it is not out of step: what is said now is understood once the frame under way is whole
            wire.transport.connection_lost(None)
        assert wire.shared.connections <= {wire.transport}

    run(story)


FRAMES = st.builds(
    lambda kind, flags, stream, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    ),
    st.integers(0, 10), st.integers(0, 63), st.integers(0, 9), st.binary(max_size=24),
)  # fmt: skip


GOOD = st.integers(0, 4).flatmap(
    lambda n: st.sampled_from(
        [
            headers(2 * n + 1),
            headers(2 * n + 1, end=True),
            data(2 * n + 1, message(b"ab"), end=True),
            data(2 * n + 1, message(b"ab")[:4]),
            rst(2 * n + 1),
            window(2 * n + 1, 5),
            settings({4: n * 10}),
            window(0, 9),
            headers(2 * n + 1, fields(**{":path": "/s/Double"})),
        ]
    )
)


@given(st.lists(st.one_of(GOOD, GOOD, GOOD, FRAMES), max_size=25))
def test_any_frames_leave_nothing_behind(said: list[bytes]):
    async def story() -> None:
        wire = Wire()
        wire.say(*said)
        await asyncio.sleep(0)
        wire.heard()  # whatever was answered can be read
        wire.transport.connection_lost(None)
        await asyncio.sleep(0)
        assert wire.transport.core.streams == {}
        assert wire.shared.connections == set()
        async with asyncio.timeout(2):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)

    run(story)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress(b"abc")), ("deflate", zlib.compress(b"abc"))],
    ids=["gzip", "deflate"],
)
def test_compressed_messages(encoding: str, packed: bytes):
    async def story() -> None:
        wire = Wire()
        for number, body in ((1, packed), (3, packed[:-3]), (5, packed + b"x"), (7, b"junk")):
            wire.say(headers(number, fields(grpc_encoding=encoding)), data(number, message(body, True), end=True))
        wire.say(headers(9, fields(grpc_encoding=encoding)), data(9, message(b"plain"), end=True))
        await wire.until(lambda: not wire.transport.core.streams)
        heard = wire.heard()
        assert heard[1][1] == message(b"cba")
        assert heard[9][1] == message(b"nialp")
        assert [heard[number][0]["grpc-status"] for number in (3, 5, 7)] == ["13"] * 3

    run(story)


def test_answers_over_the_limit_are_not_sent():
    async def story() -> None:
        wire = Wire(send_limit=5)
        wire.say(headers(1) + data(1, message(b"123456"), end=True))
        wire.say(headers(3, fields(**{":path": "/s/Double"})) + data(3, message(b"ab") + message(b"abc"), end=True))
        await wire.until(lambda: not wire.transport.core.streams)
        heard = wire.heard()
        assert heard[1][0]["grpc-message"] == "Sent message larger than max (6 vs. 5)"
        assert heard[3][0]["grpc-status"] == "8"
        assert heard[3][1] == message(b"abab")

    run(story)
