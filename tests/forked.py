"""Workers of the optimizer that begin where TensorFlow is imported already: that costs 2 s of CPU each time.

A nursery is a process that has imported TensorFlow and nothing else of an engine, with no thread of TensorFlow's in
it. Asked for a worker, it forks; the child then does what `python -m tfopt_optimizer.worker` does. Processes of their
own start where a test tells Python another path, for all engines that do without TensorFlow, and in the rooms of
servers, of commands and of the demo.

    monkeypatch.setattr(workers, "launch", Nursery().launch)
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from typing import IO, Any, NoReturn

from tfopt_optimizer import worker, workers
from tfopt_optimizer.absent import absent
from tfopt_optimizer.engines.base import Place
from tfopt_optimizer.engines.tensorflow import UNNEEDED

ENGINES = "tfopt_optimizer.engines."
TENSORFLOW_FIRST = tuple(
    f"{ENGINES}{path}"
    for path in (
        *("tensorflow:Worker", "jit:Worker", "stablehlo:Lowerer", "split_convert:Converter"),
        *("litert_convert:Converter", "litert_compress:Converter", "onnxruntime_convert:Converter"),
        *("openvino_freeze:Converter", "openvino_compress:Converter"),
    )
)
LONGEST = 1 << 20


class Nursery:
    """Starts with the first worker that is asked for, and ends with this process."""

    def __init__(self) -> None:
        self._real, self._socket, self._lock = workers.launch, None, threading.Lock()
        self._python = _of_python()

    def launch(self, engine_path: str, stderr: IO[bytes]) -> Any:
        """Instead of workers.launch()."""
        if engine_path not in TENSORFLOW_FIRST or _of_python() != self._python:
            return self._real(engine_path, stderr)
        child_in, ours_in = os.pipe()
        ours_out, child_out = os.pipe()
        ours_end, child_end = os.pipe()
        given = [child_in, child_out, stderr.fileno(), child_end]
        pid = self._fork({"path": engine_path, "cwd": os.getcwd(), "environment": dict(os.environ)}, given)
        for end in (child_in, child_out, child_end):
            os.close(end)
        return Forked(pid, ours_in, ours_out, ours_end)

    def _fork(self, asked: dict[str, Any], given: list[int]) -> int:
        with self._lock:
            if self._socket is None:
                self._start()
            socket.send_fds(self._socket, [json.dumps(asked).encode()], given)
            return int(self._socket.recv(LONGEST))

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._process.wait()


class Forked:
    """What a Worker needs of a Popen."""

    def __init__(self, pid: int, stdin: int, stdout: int, end: int) -> None:
        self.pid, self.returncode = pid, None
        self.stdin, self.stdout, self._end = os.fdopen(stdin, "wb", 0), os.fdopen(stdout, "rb", 0), os.fdopen(end, "rb")

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._end, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("a forked worker", timeout or 0)
            with self._end:
                self.returncode = int(self._end.read() or -signal.SIGKILL)  # or the nursery is gone
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Surroundings:
    """An engine that says what its process is like, for the tests of this file."""

    def open(self, place: Place) -> dict[str, str]:
        return {"tensorflow": str("tensorflow" in sys.modules), "where": os.getcwd(), "said": os.environ["SAID"]}


def _of_python() -> dict[str, str]:
    """What Python reads when it starts."""
    return {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}


def tend(asking: socket.socket) -> None:
    """The nursery: forks a worker for each message, and tells each one's end on the pipe that came with it."""
    ended, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    ends: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(asking, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if ended in ready:
                os.read(ended, LONGEST)
                _tell(ends)
            if asking.fileno() in ready:
                message, given, _, _ = socket.recv_fds(asking, LONGEST, 4)
                if not message:
                    return
                *streams, end = given
                pid = os.fork()
                if not pid:
                    _be(json.loads(message), streams, (asking.fileno(), ended, woken, end, *ends.values()))
                ends[pid] = end
                asking.send(str(pid).encode())
                for stream in streams:
                    os.close(stream)


def _tell(ends: dict[int, int]) -> None:
    while ends:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        end = ends.pop(pid)
        os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(end)


def _be(asked: dict[str, Any], streams: Sequence[int], of_the_nursery: Sequence[int]) -> NoReturn:
    """A worker, as its own process would be."""
    code = 1
    try:
        for fd in of_the_nursery:
            os.close(fd)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        worker.main(asked["path"], os.getppid())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(asking: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its end is the socket's
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside numpy's thread, which expects them
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with absent(*UNNEEDED):
        import tensorflow  # noqa: F401
    tend(socket.socket(fileno=asking))


if __name__ == "__main__":
    main(int(sys.argv[1]))
