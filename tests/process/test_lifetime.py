"""How the server starts, drains and ends, on real processes with a small backend."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from .servers import Client, alive, fake, fake_command, free_port, running, until

pytestmark = pytest.mark.process


def test_the_socket_is_open_before_anything_is_built_and_health_tells_the_phases(tmp_path):
    with fake(tmp_path, {"build_s": 0.8, "ready_after_s": 0.5}) as server:
        until(lambda: server.health() is not None, 5, server.text)
        assert server.get("/health") == (503, b'{"status": "starting"}')
        assert server.get("/predict", "POST", b"x") == (503, b'{"error": "The server is starting."}')
        server.wait_for_health(200)
        assert server.get("/health") == (200, b'{"status": "ready"}')
        assert server.stop() == 0
    assert [line["severity"] for line in server.lines()] == ["INFO"] * len(server.lines())


def test_the_process_that_forks_has_one_thread_and_no_engine(tmp_path):
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        assert len(os.listdir(f"/proc/{server.process.pid}/task")) == 1
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert [name for name in ("tensorflow", "jaxlib", "grpc", "openblas") if name in maps] == []


def test_sigterm_under_load_loses_nothing(tmp_path):
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        clients = [Client(server.port, keep_alive=i % 2 == 0) for i in range(16)]
        for client in clients:
            client.start()
        time.sleep(1.0)
        assert server.stop() == 0
        for client in clients:
            client.join(15)
    assert [c.lost for c in clients] == [[]] * 16
    assert all(c.refused and c.answered > 10 for c in clients)


def test_sigterm_with_several_workers_loses_nothing_either(tmp_path):
    with fake(tmp_path, {}, "--workers=2") as server:
        server.wait_for_health(200)
        clients = [Client(server.port, keep_alive=i % 2 == 0) for i in range(8)]
        for client in clients:
            client.start()
        time.sleep(0.7)
        assert server.stop() == 0
        for client in clients:
            client.join(15)
    assert [c.lost for c in clients] == [[]] * 8


def test_several_workers_need_no_temporary_folder(tmp_path):
    """A root file system that is read-only, or full."""
    port = free_port()
    command = fake_command(port, {}, "--workers=2")
    script = (
        "import runpy, sys, tempfile; tempfile._candidate_tempdir_list = list; "
        "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    with running([command[0], "-c", script, *command[1:]], port, tmp_path / "log") as server:
        server.wait_for_health(200)
        assert server.stop() == 0


def test_a_request_under_way_is_answered_and_told_to_close(tmp_path):
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", "/predict?0.6", b"late")
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        assert json.loads(answer.read())["echo"] == "late"
        assert server.process.wait(25) == 0


def test_an_idle_connection_may_bring_one_more_request_and_does_not_hold_the_server_up(tmp_path):
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        talking, silent = (http.client.HTTPConnection("127.0.0.1", server.port, timeout=10) for _ in range(2))
        for connection in (talking, silent):
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b'{"status": "ready"}'
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in server.messages(), 5, server.text)
        talking.request("GET", "/health")
        answer = talking.getresponse()
        assert (answer.status, answer.getheader("connection"), answer.read()) == (
            503, "close", b'{"status": "draining"}'
        )  # fmt: skip
        assert server.process.wait(25) == 0  # 30 s are the time to drain
        assert silent.sock.recv(1) == b""


def test_during_the_grace_period_new_connections_are_still_served(tmp_path):
    with fake(tmp_path, {}, "--drain_grace_s=1") as server:
        server.wait_for_health(200)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.health() == 503, 2, server.text)
        assert server.get("/predict", "POST", b"x")[0] == 200
        assert server.process.wait(25) == 0


def test_no_request_outlives_the_drain_timeout(tmp_path):
    with fake(tmp_path, {}, "--drain_timeout_s=1.5") as server:
        server.wait_for_health(200)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /predict?60 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            time.sleep(0.2)
            assert server.stop() == 0
    assert "1 connections cut: drain_timeout_s is over" in server.messages()


def test_a_second_signal_ends_it_at_once(tmp_path):
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /predict?60 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: "draining" in server.messages(), 5, server.text)
            assert server.stop(signal.SIGINT) == 128 + signal.SIGINT


def test_sigterm_before_the_server_is_ready(tmp_path):
    child = tmp_path / "child"
    with fake(tmp_path, {"ready_after_s": 600, "child": str(child)}) as server:
        until(child.exists, 5, server.text)
        assert server.stop(seconds=5) == 0
    until(lambda: not alive(int(child.read_text())), 5, lambda: "the optimizer's process is gone")


def test_a_worker_that_dies_is_replaced_and_the_log_says_so(tmp_path):
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        (first,) = server.workers()
        with pytest.raises((OSError, http.client.HTTPException)):
            server.get("/crash", "POST")
        until(lambda: server.workers() not in ([], [first]), 5, server.text)
        server.wait_for_health(200)
        assert server.stop() == 0
    assert f"worker {first} died and is replaced" in server.messages()


def test_what_native_code_prints_becomes_lines_of_the_log(tmp_path):
    raw = (
        b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        b"I0000 00:00:1795324857.445909   24209 port.cc:153] oneDNN custom operations are on.\n"
        b"E0000 00:00:1795324857.445909   24209 x.cc:1] it failed\nplain \xff words\n"
    )
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        assert server.get("/native", "POST", raw)[0] == 200
        until(lambda: "plain" in server.text(), 5, server.text)
    assert [(x["severity"], x["message"]) for x in server.lines() if x["logger"] == "native"] == [
        ("ERROR", "x.cc:1] it failed"), ("INFO", "plain \\xff words")
    ]  # fmt: skip


def test_a_log_on_stdout_leaves_nothing_on_stderr(tmp_path):
    port, stderr = free_port(), tmp_path / "stderr"
    command = ["sh", "-c", 'exec "$@" 2>"$0"', str(stderr), *fake_command(port, None, "--log_stream=stdout")]
    with running(command, port, tmp_path / "log") as server:
        server.wait_for_health(200)
        assert server.get("/native", "POST", b"plain words\n")[0] == 200
        until(lambda: "plain words" in server.messages(), 5, server.text)
    assert server.messages()[-1].startswith("stopped")
    assert stderr.read_text() == ""


def test_the_last_words_of_a_worker_that_crashed_are_in_the_log(tmp_path):
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        with pytest.raises((OSError, http.client.HTTPException)):
            server.get("/segfault", "POST")
        until(lambda: "died and is replaced" in server.text(), 5, server.text)
    said = [line["message"] for line in server.lines() if line["logger"] == "native"]
    assert said[0] == "Fatal Python error: Segmentation fault"
    assert any("string_at" in line for line in said)


def test_a_worker_that_is_replaced_gets_no_request_before_it_can_answer(tmp_path):
    """Two workers, one dies; its replacement takes 1.5 s to build: all requests meanwhile go to the other one."""
    with fake(tmp_path, {"build_s": 1.5}, "--workers=2") as server:
        until(lambda: server.health() == 503, 5, server.text)
        server.wait_for_health(200)
        with pytest.raises((OSError, http.client.HTTPException)):
            server.get("/crash", "POST")
        until(lambda: "died and is replaced" in server.text(), 5, server.text)
        end, answers = time.monotonic() + 1.0, []
        while time.monotonic() < end:
            answers.append((server.health(), server.get("/predict", "POST", b"x")[0]))
        assert set(answers) == {(200, 200)}
        until(lambda: server.text().count("ready after") == 3, 5, server.text)
        assert server.stop() == 0


def test_workers_that_die_before_they_are_ready_end_the_server(tmp_path):
    with fake(tmp_path, {"crash_at_build": True}) as server:
        assert server.process.wait(60) == 255
    assert server.messages()[-2:] == [
        "Failed to start server. Error: 3 workers in a row died before they were ready", "stopped"
    ]  # fmt: skip


@pytest.mark.parametrize("plan", [{"failure": "no model"}, {"build_error": "no model"}])
def test_what_can_never_serve_ends_with_255(tmp_path, plan):
    with fake(tmp_path, plan) as server:
        assert server.process.wait(10) == 255
    assert [(x["severity"], x["message"]) for x in server.lines() if x["logger"].startswith("tfopt")][1:] == [
        ("CRITICAL", "Failed to start server. Error: no model"), ("INFO", "stopped")
    ]  # fmt: skip


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path):
    with fake(tmp_path) as first:
        first.wait_for_health(200)
        with fake(tmp_path / "..", {}, f"--rest_api_port={first.port}") as second:
            assert second.process.wait(10) == 255
            assert second.messages() == [
                f"Failed to start server. Error: cannot listen on port {first.port}: Address already in use"
            ]


def test_signals_that_reconfigure_other_servers_change_nothing(tmp_path):
    with fake(tmp_path) as server:
        server.wait_for_health(200)
        before = server.workers()
        for sig in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2):
            server.process.send_signal(sig)
        until(lambda: server.text().count("signal ignored") == 4, 5, server.text)
        assert (server.workers(), server.health()) == (before, 200)


def test_ten_starts_and_stops_right_away_never_hang(tmp_path):
    """SIGTERM at any moment of the start, also while the worker is being forked, ends the server within seconds."""
    codes = []

    def once(delay: float) -> None:
        folder = tmp_path / str(delay)
        folder.mkdir()
        with fake(folder) as server:
            until(lambda: "listening" in server.text(), 10, server.text)
            time.sleep(delay)
            codes.append(server.stop(seconds=25))

    threads = [threading.Thread(target=once, args=(i * 0.03,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 10
