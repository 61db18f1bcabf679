"""HTTP/2 conversations without a socket: what is said, what it means, what comes back (RFC 9113)."""

from __future__ import annotations

import struct

import hpack
import pytest
from h2wire import (
    LEAD,
    REQUEST,
    TRAILERS,
    Talk,
    answer,
    continuation,
    data,
    encoded,
    headers,
    ping,
    raw,
    read,
    rst,
    settings,
    window,
)  # fmt: skip
from tfopt_server.rpc.http2 import connection, frames
from tfopt_server.rpc.http2.frames import PREFACE
from tfopt_server.rpc.http2.limits import MIB, Limits


def test_the_server_greets_first_and_says_its_limits():
    talk = Talk(greet=False)
    greeting, _ = read(talk.take())
    assert dict(greeting.settings) == {3: 1024, 4: 4 * MIB, 5: MIB, 6: 16384}
    assert talk.say(PREFACE, settings()) == []
    assert talk.heard() == ["SETTINGS ack"]


def test_a_call_and_its_answer():
    talk = Talk()
    assert talk.say(headers(1), data(1, b"hello", end=True)) == ["REQUEST 1", "BODY 1 'hello' end"]
    talk.answer(1)
    assert talk.heard() == answer(1)
    assert talk.core.streams == {}


@pytest.mark.parametrize("size", [1, 2, 7, 9, 10, 23, 24, 25])
def test_bytes_may_be_cut_anywhere(size: int):
    talk = Talk(greet=False)
    said = PREFACE + settings({4: 100}) + headers(1) + data(1, b"hello") + ping() + data(1, b"", end=True)
    events: list[str] = []
    for at in range(0, len(said), size):
        events += talk.say(said[at : at + size])
    assert events == ["REQUEST 1", "BODY 1 'hello'", "BODY 1 '' end"]
    assert talk.heard() == ["SETTINGS", "WINDOW_UPDATE 0 33488897", "SETTINGS ack", "PING ack b'12345678'"]


def test_padding_and_priority_are_stripped():
    talk = Talk()
    padded = headers(1, flags=["PADDED", "PRIORITY"], pad_length=5, depends_on=0, stream_weight=1)
    assert talk.say(padded, data(1, b"x", end=True, padding=200)) == ["REQUEST 1", "BODY 1 'x' end"]


def test_a_header_block_in_pieces():
    talk = Talk()
    block = encoded()
    said = headers(1, data=block[:3], whole=False) + continuation(1, block[3:9], False) + continuation(1, block[9:])
    assert talk.say(said) == ["REQUEST 1"]
    assert talk.core.streams[1].head.headers == [(n.encode(), v.encode()) for n, v in REQUEST]


def test_a_block_that_is_known_is_not_decoded_again_until_the_table_changes():
    talk, encoder = Talk(), hpack.Encoder()
    first, second = (encoder.encode(REQUEST) for _ in range(2))
    assert first != second
    talk.say(headers(1, data=first), headers(3, data=second), headers(5, data=second))
    heads = [talk.core.streams[n].head for n in (1, 3, 5)]
    assert heads[0] == heads[1] == heads[2]
    assert heads[1] is heads[2]
    # An entry that moves the others makes the same bytes mean something else.
    other = encoder.encode([*REQUEST[:2], (":path", "/s/Other"), *REQUEST[3:]])
    talk.say(headers(7, data=other), headers(9, data=second))
    assert dict(talk.core.streams[7].head.headers)[b":path"] == b"/s/Other"
    assert talk.heard() == ["RST_STREAM 9 PROTOCOL_ERROR"]  # now they name some headers twice


def test_what_is_remembered_of_headers_is_bounded():
    talk = Talk()
    for number in range(1, 601, 2):
        talk.say(headers(number, [*REQUEST, ("x", str(number))], end=True))
        talk.answer(number)
    talk.say(headers(601, [*REQUEST, ("x", "y" * 5000)]), headers(603, [*REQUEST, *[("x", "y")] * 100]))
    assert set(talk.core.streams) == {601, 603}
    assert 0 < len(talk.core._known) <= 128
    assert max(map(len, talk.core._known)) < 200


def test_trailers_end_a_request():
    talk = Talk()
    assert talk.say(headers(1), data(1, b"x"), headers(1, [("end", "yes")], end=True)) == [
        "REQUEST 1", "BODY 1 'x'", "BODY 1 '' end",
    ]  # fmt: skip


# What breaks the connection: what is said after the greeting, and the error code.
BROKEN: list[tuple[str, bytes, str]] = [
    ("DATA on stream 0", data(1).replace(b"\0\0\0\1", b"\0\0\0\0"), "PROTOCOL_ERROR"),
    ("DATA on an idle stream", data(1, b"x"), "PROTOCOL_ERROR"),
    ("DATA on an even stream", headers(3) + raw(0, 0, 2, b"x"), "PROTOCOL_ERROR"),
    ("HEADERS on stream 0", raw(1, 4, 0, encoded()), "PROTOCOL_ERROR"),
    ("HEADERS on an even stream", raw(1, 4, 2, encoded()), "PROTOCOL_ERROR"),
    ("HEADERS on a stream below the last", headers(3) + headers(1), "STREAM_CLOSED"),
    ("HEADERS after the end", headers(1, end=True) + headers(1, [("a", "b")], end=True), "STREAM_CLOSED"),
    ("HEADERS with nothing but padding", raw(1, 4 | 8, 1, b"\x05abc"), "PROTOCOL_ERROR"),
    ("HEADERS padded and empty", raw(1, 4 | 8, 1), "FRAME_SIZE_ERROR"),
    ("HEADERS too short for priority", raw(1, 4 | 0x20, 1, b"abc"), "FRAME_SIZE_ERROR"),
    ("a header block that is cut", headers(1, data=encoded()[:-3]), "COMPRESSION_ERROR"),
    ("an index beyond the table", headers(1, data=b"\xff\xff\x7f"), "COMPRESSION_ERROR"),
    ("a table larger than allowed", headers(1, data=b"\x3f\xff\xff\x03" + encoded()), "COMPRESSION_ERROR"),
    ("padding of DATA over its end", headers(1) + raw(0, 8, 1, b"\x02a"), "PROTOCOL_ERROR"),
    ("CONTINUATION without HEADERS", raw(9, 4, 1, b""), "PROTOCOL_ERROR"),
    ("a frame inside a header block", headers(1, whole=False) + ping(), "PROTOCOL_ERROR"),
    ("an unknown frame inside a header block", headers(1, whole=False) + raw(77, 0, 1), "PROTOCOL_ERROR"),
    ("CONTINUATION of another stream", headers(1, whole=False) + continuation(3, b""), "PROTOCOL_ERROR"),
    ("PRIORITY on stream 0", raw(2, 0, 0, bytes(5)), "PROTOCOL_ERROR"),
    ("RST_STREAM on stream 0", raw(3, 0, 0, bytes(4)), "PROTOCOL_ERROR"),
    ("RST_STREAM on an idle stream", rst(1), "PROTOCOL_ERROR"),
    ("RST_STREAM of 3 bytes", headers(1) + raw(3, 0, 1, bytes(3)), "FRAME_SIZE_ERROR"),
    ("SETTINGS on a stream", raw(4, 0, 1), "PROTOCOL_ERROR"),
    ("SETTINGS ack with content", raw(4, 1, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    ("SETTINGS of 5 bytes", raw(4, 0, 0, bytes(5)), "FRAME_SIZE_ERROR"),
    ("SETTINGS_ENABLE_PUSH 2", raw(4, 0, 0, struct.pack(">HI", 2, 2)), "PROTOCOL_ERROR"),
    ("SETTINGS_INITIAL_WINDOW_SIZE 2^31", raw(4, 0, 0, struct.pack(">HI", 4, 2**31)), "FLOW_CONTROL_ERROR"),
    ("SETTINGS_MAX_FRAME_SIZE 16383", raw(4, 0, 0, struct.pack(">HI", 5, 16383)), "PROTOCOL_ERROR"),
    ("SETTINGS_MAX_FRAME_SIZE 2^24", raw(4, 0, 0, struct.pack(">HI", 5, 2**24)), "PROTOCOL_ERROR"),
    ("a stream's window over its limit by SETTINGS",
     headers(1) + window(1, 2**30) + raw(4, 0, 0, struct.pack(">HI", 4, 2**31 - 1)), "FLOW_CONTROL_ERROR"),
    ("PUSH_PROMISE", raw(5, 4, 1, bytes(4)), "PROTOCOL_ERROR"),
    ("PING on a stream", raw(6, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    ("PING of 7 bytes", raw(6, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
    ("GOAWAY on a stream", raw(7, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    ("GOAWAY of 7 bytes", raw(7, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
    ("WINDOW_UPDATE by 0", raw(8, 0, 0, bytes(4)), "PROTOCOL_ERROR"),
    ("WINDOW_UPDATE of 5 bytes", raw(8, 0, 0, bytes(5)), "FRAME_SIZE_ERROR"),
    ("WINDOW_UPDATE on an idle stream", window(5, 1), "PROTOCOL_ERROR"),
    ("the connection's window over its limit", window(0, 2**31 - 1), "FLOW_CONTROL_ERROR"),
    ("a frame over our SETTINGS_MAX_FRAME_SIZE", (MIB + 1).to_bytes(3, "big") + bytes(6), "FRAME_SIZE_ERROR"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "code"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_what_breaks_the_connection(said: bytes, code: str):
    talk = Talk()
    events = talk.say(said)
    last = talk.core.last
    assert talk.heard()[-1] == f"GOAWAY {last} {code}"
    assert talk.core.failed is not None
    # Whoever works on a call hears that it is gone, and nothing is heard any more.
    assert [e for e in events if e.startswith("REQUEST")] == [
        e.replace("RESET", "REQUEST") for e in events if e.startswith("RESET")
    ] or "end" in events[0]
    assert talk.core.streams == {}
    assert talk.say(headers(99)) == []


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"x", PREFACE + ping(), PREFACE + settings(ack=True)]
)
def test_who_does_not_greet_is_no_client(said: bytes):
    talk = Talk(greet=False)
    assert talk.say(said) == []
    assert talk.heard()[-1] == "GOAWAY 0 PROTOCOL_ERROR"


OF_4_BYTES = [*REQUEST, ("content-length", "4")]
# What breaks one stream: what is said, and what comes back. Another stream goes on.
BROKEN_STREAMS: list[tuple[str, bytes, str]] = [
    ("no :path", headers(3, [f for f in REQUEST if f[0] != ":path"]), "PROTOCOL_ERROR"),
    ("a pseudo-header twice", headers(3, [*REQUEST[:1], *REQUEST]), "PROTOCOL_ERROR"),
    ("a late pseudo-header", headers(3, [*REQUEST, (":authority2", "x")]), "PROTOCOL_ERROR"),
    ("a response's pseudo-header", headers(3, [(":status", "200"), *REQUEST]), "PROTOCOL_ERROR"),
    ("an upper-case name", headers(3, [*REQUEST, ("Name", "x")]), "PROTOCOL_ERROR"),
    ("connection", headers(3, [*REQUEST, ("connection", "close")]), "PROTOCOL_ERROR"),
    ("te: gzip", headers(3, [*REQUEST, ("te", "gzip")]), "PROTOCOL_ERROR"),
    ("a line break in a value", headers(3, [*REQUEST, ("x", "a\r\nb")]), "PROTOCOL_ERROR"),
    ("trailers that do not end", headers(3) + headers(3, [("x", "y")]), "PROTOCOL_ERROR"),
    ("a pseudo-header in trailers", headers(3) + headers(3, [(":path", "y")], end=True), "PROTOCOL_ERROR"),
    ("content-length too long", headers(3, OF_4_BYTES) + data(3, b"abc", end=True), "PROTOCOL_ERROR"),
    ("content-length too short", headers(3, OF_4_BYTES) + data(3, b"abcde", end=True), "PROTOCOL_ERROR"),
    ("DATA after the end", headers(3, end=True) + data(3, b"x"), "STREAM_CLOSED"),
    ("WINDOW_UPDATE by 0", headers(3) + raw(8, 0, 3, bytes(4)), "PROTOCOL_ERROR"),
    ("the stream's window over its limit", headers(3) + window(3, 2**31 - 1), "FLOW_CONTROL_ERROR"),
    ("PRIORITY of 4 bytes", headers(3) + raw(2, 0, 3, bytes(4)), "FRAME_SIZE_ERROR"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "code"), [row[1:] for row in BROKEN_STREAMS], ids=[row[0] for row in BROKEN_STREAMS])
def test_what_breaks_one_stream(said: bytes, code: str):
    talk = Talk()
    events = talk.say(headers(1), said, data(1, b"x", end=True))
    assert [e for e in events if " 1" in e] == ["REQUEST 1", "BODY 1 'x' end"]
    if "REQUEST 3" in events:
        assert events[-2] == "RESET 3"
    assert talk.heard() == [f"RST_STREAM 3 {code}"]
    talk.answer(1)
    assert talk.heard() == answer(1)
    # What was on its way to the broken stream is no new mistake.
    assert talk.say(data(3, b"more"), headers(3, [("x", "y")], end=True), rst(3), window(3, 5)) == []
    assert talk.heard() == []
    assert talk.core.failed is None


def test_what_means_nothing_is_ignored():
    talk = Talk()
    assert talk.say(raw(77, 255, 1, b"x" * 100), raw(2, 0, 1, bytes(5)), raw(4, 0, 0, struct.pack(">HI", 99, 1))) == []
    assert talk.heard() == ["SETTINGS ack"]
    talk.say(headers(1, end=True))
    talk.answer(1)
    talk.heard()
    assert talk.say(window(1, 5), rst(1)) == []  # the peer had not seen the end
    assert talk.heard() == []


def test_a_call_that_is_reset_is_reported_once_and_never_answered():
    talk = Talk()
    events = talk.core.receive(headers(1) + data(1, b"x", end=True))
    stream = events[0].stream
    assert talk.say(rst(1), rst(1)) == ["RESET 1"]
    talk.core.respond(stream, LEAD, b"", b"ok", TRAILERS)
    assert talk.heard() == []


def test_an_answer_before_the_request_ends_asks_for_no_more():
    talk = Talk()
    talk.say(headers(1), data(1, b"part"))
    talk.answer(1)
    assert talk.heard() == [*answer(1), "RST_STREAM 1 NO_ERROR"]
    assert talk.say(data(1, b"rest", end=True)) == []
    assert talk.heard() == []


# Flow control.


def test_answers_wait_for_the_windows():
    talk = Talk(_4=10)
    talk.say(headers(1, end=True), headers(3, end=True))
    talk.answer(1, b"a" * 25)
    talk.answer(3, b"b" * 5)
    assert talk.heard() == [
        "HEADERS 1 :status=200", "DATA 1 b'aaaaaaaaaa'", "HEADERS 3 :status=200", "DATA 3 b'bbbbb'",
        "HEADERS 3 grpc-status=0 end",
    ]  # fmt: skip
    talk.say(window(1, 3))
    assert talk.heard() == ["DATA 1 b'aaa'"]
    talk.say(settings({4: 15}))  # changes the windows of open streams too
    assert talk.heard() == ["SETTINGS ack", "DATA 1 b'aaaaa'"]
    talk.say(settings({4: 0}), window(1, 15), window(1, 6))  # below zero, up to zero, and one more
    assert talk.heard() == ["SETTINGS ack", "DATA 1 b'aaaaaa'"]
    talk.say(window(1, 100))
    assert talk.heard() == ["DATA 1 b'a'", "HEADERS 1 grpc-status=0 end"]


def test_the_connections_window_is_shared_in_turn():
    talk = Talk(_4=2**31 - 1)
    talk.say(*(headers(n, end=True) for n in (1, 3)))
    talk.answer(1, bytes(60_000))
    talk.answer(3, bytes(60_000))
    first = talk.heard()
    assert sum(int(line.split()[2]) for line in first if line.startswith("DATA")) == 65_535
    assert {line.split()[1] for line in first if line.startswith("DATA")} == {"1", "3"}
    talk.say(window(0, 10**6))
    rest = talk.heard()
    assert sum(int(line.split()[2]) for line in first + rest if line.startswith("DATA")) == 120_000
    assert sum(line.endswith("grpc-status=0 end") for line in rest) == 2


def test_frames_are_no_longer_than_the_peer_allows():
    talk = Talk(_4=2**31 - 1, _5=20_000)
    talk.say(headers(1, end=True), window(0, 10**6))
    talk.answer(1, bytes(50_000))
    assert [line.split()[2] for line in talk.heard() if line.startswith("DATA")] == ["20000", "20000", "10000"]


def test_a_client_is_let_send_as_its_bytes_are_used():
    limits = Limits(stream_window=100_000, connection_window=300_000)
    talk = Talk(limits)
    (request, *_) = talk.core.receive(headers(1) + data(1, bytes(16_000)))
    talk.core.consume(request.stream, 16_000)
    assert talk.heard() == []
    for _ in range(3):
        talk.core.receive(data(1, bytes(16_000)))
        talk.core.consume(request.stream, 16_000)
    assert talk.heard() == ["WINDOW_UPDATE 1 64000"]
    for _ in range(6):
        talk.core.receive(data(1, bytes(16_000)))
    assert talk.heard() == ["WINDOW_UPDATE 0 160000"]
    assert talk.say(data(1, bytes(16_000))) == ["RESET 1"]  # more than was given back
    assert talk.heard() == ["RST_STREAM 1 FLOW_CONTROL_ERROR"]


def test_padding_counts_for_the_windows():
    talk = Talk(Limits(stream_window=1000, connection_window=100_000))
    talk.say(headers(1))
    for _ in range(3):
        assert talk.say(data(1, b"x", padding=250)) == ["BODY 1 'x'"]
    assert talk.say(data(1, b"x", padding=250)) == ["RESET 1"]


def test_a_peer_with_a_smaller_table_is_told_that_none_is_used():
    talk = Talk(_1=0)
    talk.decoder.max_allowed_table_size = 0
    for number in (1, 3):
        talk.say(headers(number, end=True))
        talk.answer(number)
    assert talk.heard() == [*answer(1), *answer(3)]


# The end.


def test_the_end_in_two_steps():
    talk = Talk()
    talk.say(headers(1, end=True))
    talk.core.leave()
    assert talk.heard() == ["GOAWAY 2147483647 NO_ERROR", "PING b'lastcall'"]
    assert talk.say(headers(3, end=True)) == ["REQUEST 3 end"]  # it was on its way
    assert talk.say(ping(b"lastcall", ack=True)) == []
    assert talk.heard() == ["GOAWAY 3 NO_ERROR"]
    assert talk.say(headers(5), data(5, b"late", end=True)) == []  # the client knows that nobody looked at it
    assert not talk.core.over
    talk.answer(1)
    talk.answer(3)
    assert talk.heard() == [*answer(1), *answer(3)]
    assert talk.core.over


def test_a_client_that_says_nothing_hears_the_last_call_all_the_same():
    talk = Talk()
    talk.core.leave()
    talk.core.leave()
    talk.core.last_call()
    talk.core.last_call()
    assert talk.heard() == ["GOAWAY 2147483647 NO_ERROR", "PING b'lastcall'", "GOAWAY 0 NO_ERROR"]
    assert talk.core.over


def test_resets_are_remembered_for_a_while(monkeypatch):
    monkeypatch.setattr(connection, "REMEMBERED_RESETS", 2)
    talk = Talk()
    for number in (1, 3, 5):
        talk.say(headers(number))
        talk.core.reset(talk.core.streams[number], frames.ErrorCode.CANCEL)
    assert len(talk.heard()) == 3
    talk.say(data(5, b"x"), data(1, b"x"))
    assert talk.heard() == ["RST_STREAM 1 STREAM_CLOSED"]
