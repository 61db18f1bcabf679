"""The hand-written HTTP/1.1 and gRPC clients tell good answers from bad ones, and both from losses."""

from __future__ import annotations

import asyncio
import concurrent.futures

import grpc
import pytest

from benchmarks.load import client, http1, http2, job

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Heard:
    """An owner that writes down what the lanes report."""

    def __init__(self) -> None:
        self.events: list[tuple] = []

    def answered(self, lane, error="", reusable=True):
        self.events.append(("answered", error, reusable))

    def lost(self, lane, why, refused=False):
        self.events.append(("refused" if refused else "lost", why))


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def lane_on_a_wire() -> tuple[http1.HttpLane, Wire, Heard]:
    heard, wire = Heard(), Wire()
    lane = http1.HttpLane(heard, [http1.request("127.0.0.1", 80, "/p", b"{}")])
    lane.connection_made(wire)
    return lane, wire, heard


def test_a_request_is_written_whole_and_its_answer_is_read_in_any_pieces():
    lane, wire, heard = lane_on_a_wire()
    lane.send()
    assert wire.written == (
        b"POST /p HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    for i in range(len(OK)):
        lane.data_received(OK[i : i + 1])
    assert heard.events == [("answered", "", True)]


def test_another_status_is_an_error_and_connection_close_ends_the_lane():
    lane, _, heard = lane_on_a_wire()
    lane.send()
    lane.data_received(b"HTTP/1.1 503 Busy\r\nConnection: close\r\ncontent-length: 0\r\n\r\n")
    lane.send()
    assert heard.events == [
        ("answered", "HTTP/1.1 503 Busy\r\nConnection: close\r\ncontent-length: 0\r\n\r\n", False),
        ("refused", "the connection was closed before the request was written"),
    ]


def test_a_connection_that_ends_before_the_answer_is_a_loss_and_one_that_ends_when_idle_is_not():
    lane, _, heard = lane_on_a_wire()
    lane.send()
    lane.data_received(OK[:-1])
    lane.connection_lost(None)
    idle, _, quiet = lane_on_a_wire()
    idle.connection_lost(None)
    assert heard.events == [("lost", "the connection ended before the answer: closed by the server")]
    assert quiet.events == []


def test_an_answer_without_a_length_is_an_error_of_the_benchmark():
    with pytest.raises(ValueError, match="without Content-Length"):
        http1.content_length(b"http/1.1 200 ok\r\ntransfer-encoding: chunked")


@pytest.fixture(scope="module")
def grpc_port():
    """A real grpcio server: /t/Echo answers what it gets, /t/Fail a status, /t/Size the size of the request."""

    def fail(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(m)")

    methods = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Size": grpc.unary_unary_rpc_method_handler(lambda request, context: b"%d" % len(request)),
    }
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def grpc_job(port: int, method: str, body: bytes, **changes) -> job.Job:
    asked = {"lanes": 4, "warmup_s": 0.1, "seconds": 5.0, "limit": 40} | changes
    return job.Job("grpc", port, f"/t/{method}", (body,), **asked)


def measure(task: job.Job) -> job.Outcome:
    return asyncio.run(client.measure(task))


@pytest.mark.parametrize("size", [0, 250, 70_000, 1_000_000])
def test_grpc_calls_of_any_size_are_answered(grpc_port, size):
    """70 kB is more than HTTP/2's first window: the client must wait for the server's window updates."""
    found = measure(grpc_job(grpc_port, "Size", bytes(size), limit=12))
    assert (found.sent, found.answered, found.failed, found.lost, found.first_error) == (12, 12, 0, 0, "")


def test_a_grpc_status_other_than_ok_is_a_failure_with_its_text(grpc_port):
    found = measure(grpc_job(grpc_port, "Fail", b"x"))
    assert (found.answered, found.failed, found.lost) == (40, 40, 0)
    assert "Servable not found for request: Latest(m)" in found.first_error


def test_lanes_spread_over_connections_in_an_open_loop(grpc_port):
    found = measure(grpc_job(grpc_port, "Echo", b"x" * 100, rate=200.0, seconds=0.2, connections=2, limit=10_000))
    assert found.sent == found.answered > 0
    assert (found.failed, found.lost, found.unsent) == (0, 0, 0)


def test_a_server_that_goes_away_loses_what_was_in_flight():
    async def go() -> tuple[list, list]:
        heard = Heard()
        connection = http2.GrpcConnection(heard, "127.0.0.1:1", "/t/Echo", [b"x"])
        connection.connection_made(Wire())
        http2.StreamLane(connection).send()  # stream 1
        http2.StreamLane(connection).send()  # stream 3
        goaway = http2.frame(http2.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4))
        connection.data_received(goaway)
        after_goaway = list(heard.events)
        connection.connection_lost(None)
        await asyncio.gather(connection.ready, return_exceptions=True)
        return after_goaway, heard.events

    after_goaway, events = asyncio.run(go())
    assert after_goaway == [("refused", "sent after the server's last stream (GOAWAY)")]
    assert events[1:] == [("lost", "the connection ended before the answer: closed by the server")]


def test_a_job_survives_the_trip_to_its_process_and_names_only_this_machine():
    task = job.Job("rest", 8501, "/v1/models/m:predict", (b"{}", b"\x00\xff"), lanes=2)
    assert job.load(job.dump(task)) == task
    with pytest.raises(ValueError, match="loopback addresses only"):
        job.Job("rest", 80, "/", (b"",), lanes=1, host="192.0.2.1")


def test_the_load_process_measures_and_reports(grpc_port):
    found = client.run(grpc_job(grpc_port, "Echo", b"x" * 100, warmup_s=0.01, seconds=0.5))
    assert (found.sent, found.answered, found.failed, found.lost) == (40, 40, 0, 0)


def test_a_load_process_that_cannot_connect_says_why():
    with pytest.raises(RuntimeError, match="ConnectionRefusedError"):
        client.run(grpc_job(1, "Echo", b""))


def test_an_open_loop_that_asks_too_much_falls_behind_without_calling_it_a_loss():
    """A server that accepts and never answers."""

    async def go() -> job.Outcome:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        task = job.Job("rest", port, "/", (b"{}",), 2, rate=100.0, warmup_s=0.0, seconds=0.2, grace_s=0.1)
        try:
            return await client.measure(task)
        finally:
            server.close()

    found = asyncio.run(go())
    assert (found.sent, found.answered, found.late, found.lost, found.latency_us) == (2, 0, 2, 0, None)
    assert found.unsent > 5
