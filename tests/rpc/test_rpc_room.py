"""What all calls of a server may hold together before they run."""

from __future__ import annotations

from h2wire import data, headers, rst
from rpcwire import Wire, fields, message, run
from tfopt_server.rpc.transport import Transport

TEXT = "The server holds 900 bytes of requests that wait to be read (max 1000)"


def half(number: int, size: int, path: str = "/s/M") -> bytes:
    """The first `size` bytes of a call's message of 5,000."""
    return headers(number, fields(**{":path": path})) + data(number, message(bytes(5000))[:size])


def test_half_messages_of_many_streams_have_one_limit():
    async def story() -> None:
        wire = Wire(arriving_limit=1000)
        room = wire.shared.room
        wire.say(half(1, 500), half(3, 400), half(5, 200))
        refused = wire.heard()
        assert list(refused) == [5]
        assert refused[5][0]["grpc-status"] == "8"
        assert refused[5][0]["grpc-message"] == TEXT
        assert refused[5][0]["grpc-retry-pushback-ms"] == "1000"
        wire.say(rst(3))  # its client gave up: there is room again
        assert room.held == 500
        wire.say(half(7, 400))
        assert (wire.heard(), room.held) == ({}, 900)
        wire.transport.connection_lost(None)
        assert room.held == 0

    run(story)


def test_the_limit_is_of_all_connections_and_of_streaming_calls_too():
    async def story() -> None:
        wire = Wire(arriving_limit=1000)
        wire.say(half(1, 900, "/s/Double"))
        other = Wire()
        other.shared = wire.shared
        other.transport = Transport(wire.shared)
        other.transport.connection_made(other.socket)
        other.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), half(1, 200))
        assert other.heard()[1][0]["grpc-message"] == TEXT
        wire.say(half(3, 200, "/s/Double"))
        await wire.until(lambda: 3 not in wire.transport.core.streams)
        assert wire.heard()[3][0]["grpc-message"] == TEXT
        wire.transport.connection_lost(None)
        assert wire.shared.room.held == 0

    run(story)


def test_one_call_alone_may_be_longer_and_nothing_stays_behind():
    async def story() -> None:
        wire = Wire(arriving_limit=1000)
        body = bytes(range(200)) * 1000
        parts = [message(body)[at : at + 10_000] for at in range(0, len(body) + 5, 10_000)]
        for number, path in ((1, "/s/M"), (3, "/s/Double"), (5, "/s/M")):
            wire.say(headers(number, fields(**{":path": path})), *(data(number, part) for part in parts))
            wire.say(data(number, b"", end=True))
            found: dict[int, tuple[dict[str, str], bytes]] = {}
            await wire.until(lambda found=found, number=number: found.update(wire.heard()) or number in found)
            assert found[number][0][":status"] == "200"
            assert "grpc-status" not in found[number][0]  # the answer waits for the client's window
            await wire.until(lambda: wire.shared.room.held == 0)

    run(story)
