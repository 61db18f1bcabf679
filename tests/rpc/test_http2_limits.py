"""How much of everything one HTTP/2 client can ask for: windows, streams, header blocks, floods, unread replies."""

from __future__ import annotations

import hpack
import pytest
from h2wire import (
    REQUEST,
    Talk,
    answer,
    continuation,
    data,
    encoded,
    headers,
    ping,
    raw,
    rst,
    settings,
)  # fmt: skip
from tfopt_server.rpc.http2 import flood, frames
from tfopt_server.rpc.http2.limits import Limits


def test_more_than_the_connections_window_breaks_it():
    talk = Talk(Limits(stream_window=2**20, connection_window=65_535))
    talk.core._window = 10
    assert talk.say(headers(1), data(1, bytes(11))) == ["REQUEST 1", "RESET 1"]
    assert talk.heard() == ["GOAWAY 1 FLOW_CONTROL_ERROR"]


def test_streams_beyond_the_limit_are_refused_and_may_be_tried_again():
    talk = Talk(Limits(streams=2))
    assert talk.say(headers(1), headers(3), headers(5, end=True)) == ["REQUEST 1", "REQUEST 3"]
    assert talk.heard() == ["RST_STREAM 5 REFUSED_STREAM"]
    talk.say(data(1, b"", end=True))
    talk.answer(1)
    assert talk.say(headers(7)) == ["REQUEST 7"]


FLOODS = {
    "pings": lambda i: ping(),
    "settings": lambda i: settings(),
    "rapid resets": lambda i: headers(2 * i + 1) + rst(2 * i + 1),
    "refused streams": lambda i: headers(2 * i + 1),
    "malformed requests": lambda i: headers(2 * i + 1, [("x", "y")]),
    "empty DATA": lambda i: (headers(1) if i == 0 else b"") + data(1),
    "priorities": lambda i: raw(2, 0, 1, bytes(5)),
    "empty frames of unknown types": lambda i: raw(99, 0, 0),
    "goaways": lambda i: raw(7, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_the_connection(name: str):
    talk = Talk(Limits(streams=5))
    for i in range(int(flood.BURST) + 50):
        talk.say(FLOODS[name](i))
        if talk.core.failed:
            break
    assert talk.heard()[-1].endswith("ENHANCE_YOUR_CALM")
    assert i >= 900
    assert talk.core.streams == {}


def test_time_and_answers_pay_for_resets():
    talk = Talk()
    number = 1
    for _ in range(4000):  # a client that gives up half of its calls
        talk.say(headers(number), rst(number), headers(number + 2, end=True))
        talk.answer(number + 2)
        number += 4
        talk.take()
    assert talk.core.failed is None
    for _ in range(2000):  # one ping each tenth of a second
        talk.now += 0.1
        talk.say(ping())
    assert talk.core.failed is None


def test_a_continuation_flood_ends_the_connection():
    for part, count in ((b"", 100), (b"\0" * 16000, 100)):
        talk = Talk()
        talk.say(headers(1, whole=False))
        for _ in range(count):
            talk.say(continuation(1, part, whole=False))
        assert talk.heard() == ["GOAWAY 0 ENHANCE_YOUR_CALM"]


def test_one_frame_holds_no_longer_block_than_many():
    talk = Talk()
    talk.say(headers(1, [*REQUEST, ("x", "y" * 64 * 1024)]))
    assert talk.heard() == ["GOAWAY 0 ENHANCE_YOUR_CALM"]


def test_the_table_is_resized_twice_in_a_block_at_most():
    talk = Talk()
    talk.say(headers(1, data=b"\x20\x3f\xe1\x1f" + encoded(), end=True))
    assert list(talk.core.streams) == [1]
    talk.say(headers(3, data=b"\x20" * 3 + encoded(), end=True))
    assert talk.heard() == ["GOAWAY 1 COMPRESSION_ERROR"]


def test_a_small_block_cannot_grow_into_a_large_list():
    encoder = hpack.Encoder()
    large = ("x", "y" * 4000)
    talk = Talk()
    talk.say(headers(1, data=encoder.encode([*REQUEST, large]), end=True))
    bomb = encoder.encode([*REQUEST, *[large] * 1000])
    assert len(bomb) < 5000
    talk.say(headers(3, data=bomb))
    assert talk.heard()[-1] == "GOAWAY 1 ENHANCE_YOUR_CALM"


def test_replies_that_nobody_reads_are_bounded():
    talk = Talk(Limits(unread=10_000))
    talk.core.held = True
    for _ in range(900):
        talk.say(ping())
    assert talk.core.failed.code is frames.ErrorCode.ENHANCE_YOUR_CALM


def test_while_nobody_reads_answers_keep_their_streams():
    talk = Talk(Limits(streams=3))
    talk.core.held = True
    for number in (1, 3, 5):
        assert talk.say(headers(number, end=True)) == [f"REQUEST {number} end"]
        talk.answer(number)
    assert talk.say(headers(7, end=True)) == []
    assert talk.heard() == ["RST_STREAM 7 REFUSED_STREAM"]
    talk.core.held = False
    assert sorted(talk.heard()) == sorted([*answer(1), *answer(3), *answer(5)])
