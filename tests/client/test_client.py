"""The client against real server processes: both protocols, what is refused, what is retried, and a restart."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from process.servers import Server, free_port, running, until
from tfopt_client import Client, PredictError, Retry
from tfopt_client.client import Target
from tfopt_server.__main__ import main

pytestmark = pytest.mark.process
SERVER = Path(__file__).with_name("plane_server.py")
MATRIX = "Matrix size-incompatible: In[0]: [1,3], In[1]: [2,1]"
ONE = np.float32([1, 2])
Ports = dict[str, int]


def started(folder: Path, ports: Ports) -> object:
    command = [sys.executable, str(SERVER), f"--port={ports['grpc']}", f"--rest_api_port={ports['http']}"]
    return running(command, ports["http"], folder / "log")


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    ports = {"grpc": free_port(), "http": free_port()}
    with started(tmp_path_factory.mktemp("server"), ports) as server:
        server.wait_for_health(200, 60)
        yield ports


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, ports: Ports) -> Iterator[Client]:
    with Client(f"{request.param}://127.0.0.1:{ports[request.param]}") as client:
        yield client


def test_calls_share_a_connection_and_answers_have_the_graphs_dtypes(client: Client) -> None:
    for _ in range(3):
        assert client.predict({"x": ONE}, model="m")["y"].tolist() == [2.5, 3.0]
    text = np.array([b"a", b"\xff"], object)
    found = client.predict({"a": np.float32([1, 2]), "b": text}, model="m", version=1, signature="two")
    assert (found["sum"].dtype, found["text"].tolist()) == (np.float32, [b"a!", b"\xff!"])
    halves = np.float16([0.5, np.inf])
    np.testing.assert_array_equal(client.predict({"x": halves}, model="m", signature="echo_half")["y"], halves)
    only = client.predict({"x": ONE}, model="m", label="stable", signature="several", outputs=["b"])
    assert list(only) == ["b"]
    assert client.connections_opened() == 1


def test_a_tensor_larger_than_any_window_goes_both_ways(client: Client) -> None:
    large = np.arange(3_000_000, dtype=np.float32)
    np.testing.assert_array_equal(client.predict({"x": large}, model="m", signature="echo_float")["y"], large)
    assert client.predict({"x": ONE}, model="m")["y"].tolist() == [2.5, 3.0]
    assert client.connections_opened() == 1


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        ({"model": "z"}, "NOT_FOUND", "Servable not found for request: Latest(z)"),
        ({"model": "m", "version": 9}, "NOT_FOUND", "Servable not found for request: Specific(m, 9)"),
        ({"model": "m", "label": "z"}, "INVALID_ARGUMENT", "Unrecognized servable version label: z"),
        ({"model": "m", "signature": "later_refuses"}, "INVALID_ARGUMENT", MATRIX),
    ],
)  # fmt: skip
def test_refusals_are_raised_at_once_and_leave_the_connection_usable(
    client: Client, call: dict, code: str, text: str
) -> None:
    with pytest.raises(PredictError) as caught:
        client.predict({"x": ONE}, **call)
    assert (caught.value.code, caught.value.message, caught.value.attempts) == (code, text, 1)
    assert client.predict({"x": ONE}, model="m")["y"].tolist() == [2.5, 3.0]
    assert client.connections_opened() == 1


@pytest.mark.parametrize("model", ["busy", "exhausted"])
def test_a_busy_server_is_asked_again_when_it_says(client: Client, model: str) -> None:
    client.retry = Retry(attempts=2, first_s=0, most_s=0)
    assert client.predict({"x": ONE}, model=model)["y"].tolist() == ONE.tolist()


def test_a_deadline_ends_a_call_that_takes_longer(client: Client) -> None:
    with pytest.raises(PredictError) as caught:
        client.predict({"x": np.float32([30])}, model="m", signature="slow", deadline_s=0.2)
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_threads_take_connections_of_their_own(client: Client) -> None:
    found: list[float] = []

    def many(value: float) -> None:
        for _ in range(20):
            found.append(float(client.predict({"x": np.float32([value])}, model="m")["y"][0]) - value / 2)

    threads = [threading.Thread(target=many, args=(float(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [2.0] * 80
    assert client.connections_opened() <= 4


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_listens(scheme: str) -> None:
    waits: list[float] = []
    with Client(f"{scheme}://127.0.0.1:{free_port()}", Retry(attempts=3, first_s=1, most_s=8)) as client:
        client._draw, client._sleep = (lambda: 0.5), waits.append
        with pytest.raises(PredictError) as caught:
            client.predict({"x": ONE}, model="m")
    assert (caught.value.code, caught.value.attempts, waits) == ("UNAVAILABLE", 3, [0.5, 1.0])


def scripted(*answers: bytes) -> int:
    """The port of a server that reads a request and answers with the next of these bytes, then closes; b"": nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for answer in answers:
            with listener.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(answer)
        listener.close()

    threading.Thread(target=run, daemon=True).start()
    return int(listener.getsockname()[1])


def reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def test_503_and_429_are_retried_after_what_the_server_asks_for() -> None:
    waits: list[float] = []
    port = scripted(reply("503 Unavailable", b"", "Retry-After: 7"), reply("429 Too Many"), reply("200 OK", b"{}"))
    with Client(f"http://127.0.0.1:{port}", Retry(first_s=1)) as client:
        client._draw, client._sleep = (lambda: 0.5), waits.append
        assert client.predict_json(b"{}", Target("m")) == b"{}"
    assert waits == [7.5, 1.0]


@pytest.mark.parametrize(("repeatable", "attempts"), [(False, 1), (True, 2)])
def test_an_answer_that_was_lost_is_asked_for_again_only_where_that_is_safe(repeatable: bool, attempts: int) -> None:
    port = scripted(b"", b"HTTP/1.1 500 No\r\nContent-Length: 14\r\n\r\n" + b'{"error": "x"}')
    client = Client(f"http://127.0.0.1:{port}", Retry(first_s=0, repeatable=repeatable))
    with client, pytest.raises(PredictError) as caught:
        client.predict({"x": ONE}, model="m")
    assert (caught.value.code, caught.value.attempts) == ("INTERNAL" if repeatable else "UNAVAILABLE", attempts)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_restart_in_mid_stream_loses_nothing(scheme: str, tmp_path: Path) -> None:
    """The server is told to end while calls stream, and another takes its ports a little later."""
    ports = {"grpc": free_port(), "http": free_port()}
    answers: list[float] = []
    errors: list[BaseException] = []
    stop = threading.Event()
    client = Client(f"{scheme}://127.0.0.1:{ports[scheme]}", Retry(attempts=1000, first_s=0.05, most_s=0.2))

    def stream() -> None:
        try:
            while not stop.is_set():
                found = client.predict({"x": np.float32([0.002])}, model="m", signature="slow", deadline_s=120)
                answers.append(float(found["y"][0]))
        except BaseException as error:
            errors.append(error)

    def beyond(count: int) -> bool:
        return bool(errors) or len(answers) > count

    threads = [threading.Thread(target=stream) for _ in range(3)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with started(tmp_path / "a", ports) as first:
        assert isinstance(first, Server)
        first.wait_for_health(200, 60)
        for thread in threads:
            thread.start()
        until(lambda: beyond(50), 60, lambda: "50 answers")
        assert first.stop(seconds=60) == 0
    before = len(answers)
    with started(tmp_path / "b", ports):
        until(lambda: beyond(before + 50), 60, lambda: "50 answers of the second server")
        stop.set()
        for thread in threads:
            thread.join(60)
    client.close()
    assert (errors, set(answers)) == ([], {float(np.float32(0.002))})


class TestCommand:
    def run(self, capsysbinary: pytest.CaptureFixture[bytes], *argv: str) -> tuple[int, bytes, str]:
        code = main(["predict", *argv])
        out, err = capsysbinary.readouterr()
        return code, out, err.decode()

    @pytest.mark.parametrize("scheme", ["grpc", "http"])
    def test_arrays_in_and_out(self, scheme: str, ports: Ports, tmp_path: Path, capsysbinary) -> None:
        np.savez(tmp_path / "in.npz", a=np.float32([1, 2]), b=np.array(["x", "é"]))
        server = f"--server={scheme}://127.0.0.1:{ports[scheme]}"
        files = [f"--input={tmp_path}/in.npz", f"--output={tmp_path}/out.npz"]
        code, _, err = self.run(capsysbinary, server, "--model=m", "--signature=two", *files)
        assert code == 0, err
        assert "1 request" in err
        with np.load(tmp_path / "out.npz") as found:
            assert found["sum"].tolist() == [2.0, 4.0]
            assert found["text"].tolist() == [b"x!", "é!".encode()]

    @pytest.mark.parametrize("scheme", ["grpc", "http"])
    def test_one_array(self, scheme: str, ports: Ports, tmp_path: Path, capsysbinary) -> None:
        np.save(tmp_path / "in.npy", ONE)
        server = f"--server={scheme}://127.0.0.1:{ports[scheme]}"
        files = [f"--input={tmp_path}/in.npy", "--input_name=x", f"--output={tmp_path}/out.npy"]
        code, _, err = self.run(capsysbinary, server, "--model=m", "--version=1", *files)
        assert code == 0, err
        assert np.load(tmp_path / "out.npy").tolist() == [2.5, 3.0]

    def test_a_body_and_lines_of_bodies(self, ports: Ports, tmp_path: Path, capsysbinary) -> None:
        (tmp_path / "one.json").write_text('{"instances": [1, 2]}')
        (tmp_path / "many.jsonl").write_text('{"inputs": [1]}\n\n{"inputs": [2]}\n')
        rest, rpc = (f"--server={scheme}://127.0.0.1:{ports[scheme]}" for scheme in ("http", "grpc"))
        code, out, _ = self.run(capsysbinary, rest, "--model=m", f"--input={tmp_path}/one.json")
        assert (code, json.loads(out)) == (0, {"predictions": [2.5, 3.0]})
        code, out, _ = self.run(capsysbinary, rpc, "--model=m", f"--input={tmp_path}/one.json")
        assert (code, json.loads(out)) == (0, {"outputs": {"y": [2.5, 3.0]}})
        code, out, err = self.run(capsysbinary, rpc, "--model=m", f"--input={tmp_path}/many.jsonl")
        assert (code, [json.loads(line) for line in out.splitlines()]) == (
            0, [{"outputs": {"y": [2.5]}}, {"outputs": {"y": [3.0]}}]
        )  # fmt: skip
        assert "2 requests" in err

    def test_refusals_and_mistakes(self, ports: Ports, tmp_path: Path, capsysbinary) -> None:
        (tmp_path / "one.json").write_text('{"instances": [1, 2]}')
        (tmp_path / "bad.json").write_text("{")
        server = f"--server=http://127.0.0.1:{ports['http']}"
        code, out, err = self.run(capsysbinary, server, "--model=z", f"--input={tmp_path}/one.json")
        assert (code, out) == (1, b"")
        assert "NOT_FOUND: Servable not found for request: Latest(z)" in err
        code, _, err = self.run(
            capsysbinary, f"--server=grpc://127.0.0.1:{ports['grpc']}", "--model=m", f"--input={tmp_path}/bad.json"
        )
        assert (code, "bad.json" in err) == (1, True)
        code, _, err = self.run(capsysbinary, "--server=ftp://x", "--modle=m", f"--input={tmp_path}/one.json")
        assert code == 2
        assert "did you mean --model?" in err
        for more, expected in (
            ([f"--input={tmp_path}/x.npy"], "expected --input_name with an .npy file over REST"),
            ([f"--input={tmp_path}/one.json", "--outputs=y"], "expected no --outputs with a JSON body over REST"),
        ):
            code, _, err = self.run(capsysbinary, server, "--model=m", *more)
            assert (code, expected in err) == (2, True)


def test_what_the_client_needs_is_light() -> None:
    import subprocess

    heavy = ("tensorflow", "grpc", "tfopt_server", "asyncio")
    code = f"import sys, tfopt_client; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
