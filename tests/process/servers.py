"""Starting real server processes in tests, and the clients that load them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ports import free_port

FAKE = Path(__file__).with_name("fake_server.py")
PATIENCE_S = 60.0


def tfopt(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    command = [sys.executable, "-m", "tfopt_server", *args]
    clean = {"PATH": os.environ["PATH"]} | environ
    return subprocess.run(command, capture_output=True, text=True, env=clean, timeout=60, check=False)


class Server:
    """One process. `lines()` is its log so far, parsed; a line that is not JSON fails the test."""

    def __init__(self, command: list[str], port: int, log: Path, environ: dict[str, str] | None = None) -> None:
        self.port, self._log = port, log
        clean = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, stdout=stderr, env=clean | (environ or {}))

    def get(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def health(self) -> int | None:
        """The status of the health route, None when nobody listens."""
        try:
            return self.get("/health")[0]
        except OSError:
            return None

    def wait_for_health(self, wanted: int, seconds: float = 20.0) -> None:
        until(lambda: self.health() == wanted, seconds, lambda: f"health {wanted}; log: {self.text()}")

    def workers(self) -> list[int]:
        """The arbiter's children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def text(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.text().splitlines()]

    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines()]

    def stop(self, sig: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Sends the signal and waits for the end; the exit code."""
        self.process.send_signal(sig)
        return self.process.wait(seconds)


def until(condition, seconds: float, what) -> None:
    """Polls; a timeout says `what()`, because a bare timeout tells nobody anything. On a busy machine things take
    longer than `seconds`, which say what is usual."""
    seconds = max(seconds, PATIENCE_S)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what()}")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether it still runs; a zombie that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes_of(pid: int) -> list[int]:
    """A process and all that descend from it, whichever of its threads started them."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [p for child in children.read_text().split() for p in processes_of(int(child))]
    return found


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path, environ: dict[str, str] | None = None) -> Iterator[Server]:
    server = Server(command, port, log, environ)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGQUIT)
            server.process.wait(20)


def fake(tmp_path: Path, plan: dict | None = None, *flags: str) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    return running(fake_command(port, plan, *flags), port, tmp_path / "log")


def fake_command(port: int, plan: dict | None = None, *flags: str) -> list[str]:
    return [sys.executable, str(FAKE), json.dumps(plan or {}), f"--rest_api_port={port}", *flags]


class Client(threading.Thread):
    """A closed loop: sends a request, waits for its answer, sends the next, until the server takes no connection.

    `answered` counts answers; `lost` names each request that was sent on a connection that the server had accepted, and
    not announced to close, and that got no answer or a wrong one. `body` None: each request is another, and is echoed.
    """

    def __init__(
        self, port: int, keep_alive: bool, path: str = "/predict?0.005", body: bytes | None = None, wanted: bytes = b""
    ) -> None:
        super().__init__(daemon=True)
        self.port, self.keep_alive, self.path = port, keep_alive, path
        self.body, self.wanted = body, wanted
        self.answered = 0
        self.lost: list[str] = []
        self.refused = False

    def run(self) -> None:
        connection = None
        while True:
            if connection is None:
                try:
                    connection = self._connect()
                except OSError:  # refused, or not answered because the socket is closing: nothing was accepted
                    self.refused = True
                    return
            try:
                closing = self._request(connection)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"after {self.answered} answers: {error!r}")
                return
            self.answered += 1
            if closing or not self.keep_alive:
                connection.close()
                connection = None

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.connect()
        return connection

    def _request(self, connection: http.client.HTTPConnection) -> bool:
        own = f"{id(self)}-{self.answered}"
        connection.request("POST", self.path, own if self.body is None else self.body)
        answer = connection.getresponse()
        content = answer.read()
        right = content == self.wanted if self.body is not None else json.loads(content)["echo"] == own
        if answer.status != 200 or not right:
            raise http.client.HTTPException(f"{answer.status} {content!r}")
        return (answer.getheader("connection") or "").lower() == "close"
