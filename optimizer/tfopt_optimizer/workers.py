"""The supervisor's side of a worker process: start it, ask it with a time budget, know why it died, start it again."""

from __future__ import annotations

import dataclasses
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from tfopt_optimizer import disk, frames
from tfopt_optimizer.engines.base import Arrays, Place, Prepared, Target
from tfopt_optimizer.errors import NoSpace

OPEN_TIMEOUT_S = 1800.0  # importing TensorFlow and loading a model of gigabytes from a slow disk
MAX_DEATHS = 3
HEARTBEAT_S = 15.0

Times = np.ndarray[Any, np.dtype[np.float64]]


def launch(engine_path: str, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    """In our process group: a signal that ends all of a server's processes must reach it too, whatever it compiles."""
    return subprocess.Popen(
        [sys.executable, "-m", "tfopt_optimizer.worker", engine_path, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


class WorkerFailed(Exception):
    """A command that gave no result; `reason` goes into the log. `died` when the process is gone (crash or timeout)."""

    def __init__(self, reason: str, died: bool = False, kind: str = "") -> None:
        super().__init__(reason)
        self.reason, self.died, self.kind = reason, died, kind


@dataclasses.dataclass
class Budget:
    """Seconds that one candidate may take. Only its own worker's time is spent: a candidate waits for others too."""

    seconds: float
    spent: float = 0.0

    def left(self) -> float:
        return max(0.0, self.seconds - self.spent)


class Worker:
    """One engine in a process. After a death the next command starts a fresh process and opens the engine again.

    `on_wait(seconds)` is called every HEARTBEAT_S while an answer is awaited: a compile of minutes shows progress.
    """

    def __init__(self, engine_path: str, place: Place, name: str, open_timeout_s: float = OPEN_TIMEOUT_S) -> None:
        self._path, self._place, self.name = engine_path, place, name
        self._open_timeout_s = open_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._fed: set[str] = set()
        self._prepared: dict[str, Prepared] = {}
        self._targets: dict[str, Target] = {}
        self.deaths = 0
        self.opening_s = 0.0  # how long it took to be ready: what killing it costs
        self.variants: Mapping[str, str] = {}
        self.on_wait: Callable[[float], None] = lambda _: None

    def start(self) -> None:
        """Starts the process and asks it to open its engine, without waiting: engines load side by side."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = launch(self._path, self._stderr)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
        self._fed.clear()
        self._prepared.clear()
        self._send(("open", self._place))

    def opened(self) -> Mapping[str, str]:
        """Waits for the engine: variant -> "" or the reason why it is not there."""
        if self._process is None:
            self.start()
        budget, began = Budget(self._open_timeout_s), time.monotonic()
        self.variants = self._receive(budget)
        self.opening_s = time.monotonic() - began
        return self.variants

    @property
    def started(self) -> bool:
        return self._process is not None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def given_up(self) -> bool:
        return self.deaths >= MAX_DEATHS

    def ask(self, budget: Budget, command: str, *arguments: Any) -> Any:
        """One command. WorkerFailed when it failed, the process died over it, or time was up (then it is killed).

        NoSpace, which ends the run, when a disk is full.
        """
        if self.given_up():
            raise WorkerFailed(f"the {self.name} worker died {self.deaths} times, no further try")
        if not self.alive():
            self.start()
            self.opened()
        started = time.monotonic()
        try:
            self._send((command, *arguments))
            return self._receive(budget)
        finally:
            budget.spent += time.monotonic() - started

    def lower(self, budget: Budget, target: Target) -> None:
        self.ask(budget, "lower", target)

    def prepare(self, budget: Budget, name: str, target: Target) -> Prepared:
        """Makes a runner called `name`; the process remembers it, and a fresh process makes it again when needed."""
        self._targets[name] = target
        return self._ensure(budget, name)

    def run(self, budget: Budget, name: str, key: str, feeds: Arrays) -> Arrays:
        """`key` names these feeds: they are sent once."""
        self._ensure(budget, name)
        self._feed(budget, key, feeds)
        outputs: Arrays = self.ask(budget, "run", name, key)
        return outputs

    def measure(self, budget: Budget, name: str, key: str, feeds: Arrays, *, round_s: float, max_calls: int) -> Times:
        """Microseconds of each call of one round."""
        self._ensure(budget, name)
        self._feed(budget, key, feeds)
        return np.asarray(self.ask(budget, "measure", name, key, round_s, max_calls))

    def saturate(self, budget: Budget, name: str, key: str, feeds: Arrays, *, callers: int, seconds: float) -> float:
        """Calls per second that so many callers at once get answered."""
        self._ensure(budget, name)
        self._feed(budget, key, feeds)
        return float(self.ask(budget, "saturate", name, key, callers, seconds))

    def forget_feeds(self, budget: Budget) -> None:
        self._fed.clear()
        self.ask(budget, "forget_feeds")

    def drop(self, budget: Budget, name: str) -> None:
        self._prepared.pop(name, None)
        self._targets.pop(name, None)
        self.ask(budget, "drop", name)

    def close(self) -> None:
        if self._process is not None:
            self._kill()

    def _ensure(self, budget: Budget, name: str) -> Prepared:
        if not self.alive() or name not in self._prepared:
            self._prepared[name] = self.ask(budget, "prepare", name, self._targets[name])
        return self._prepared[name]

    def _feed(self, budget: Budget, key: str, feeds: Arrays) -> None:
        if not self.alive() or key not in self._fed:
            self.ask(budget, "feed", key, feeds)
            self._fed.add(key)

    def _send(self, message: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            frames.send(self._process.stdin.fileno(), message, frames.STALL_S)
        except BrokenPipeError as error:
            raise self._died() from error
        except frames.Stalled as error:
            raise self._lost(f"it stopped while it read what it was to do ({error})") from error

    def _receive(self, budget: Budget) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        started = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not selector.select(min(started + budget.left() - time.monotonic(), HEARTBEAT_S)):
                if time.monotonic() >= started + budget.left():
                    raise self._lost(f"no answer within {budget.seconds:g} s")
                self.on_wait(time.monotonic() - started)
        try:
            answer = frames.receive(self._process.stdout.fileno(), frames.STALL_S)
        except EOFError as error:
            raise self._died() from error
        except frames.Stalled as error:
            raise self._lost(f"it stopped in the middle of its answer ({error})") from error
        if answer[0] == "ok":
            return answer[1]
        if answer[1] == NoSpace.__name__:
            raise NoSpace(answer[2])
        raise WorkerFailed(answer[2], kind=answer[1])

    def _lost(self, why: str) -> WorkerFailed:
        self._kill()
        self.deaths += 1
        return WorkerFailed(f"{why}, killed", died=True)

    def _died(self) -> WorkerFailed | NoSpace:
        assert self._process is not None
        try:
            code = self._process.wait(frames.STALL_S)
        except subprocess.TimeoutExpired:
            return self._lost(f"it closed its pipe and did not end within {frames.STALL_S:g} s")
        self.deaths += 1
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = self._last_words()
        self._release()
        if full := disk.refusal(None, self._place.plan_dir):  # to who writes into mapped memory a signal (SIGBUS)
            return NoSpace(full)
        return WorkerFailed(f"the {self.name} worker died ({how}){': ' + last if last else ''}", died=True)

    def _last_words(self) -> str:
        """The last line the process wrote to standard error: for a CHECK failure that is the reason."""
        if self._stderr is None:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 4096))
        lines = [line for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else ""

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._release()

    def _release(self) -> None:
        assert self._process is not None
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()
        self._process, self._stderr = None, None
