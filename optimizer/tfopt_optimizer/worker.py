"""A worker process of the optimizer: `python -m tfopt_optimizer.worker MODULE:CLASS PARENT` holds one engine.

It answers commands on its standard input, one after another: (name, *arguments) -> ("ok", value) or
("error", kind, text). Whatever the engine prints goes to standard error, which the supervisor keeps for its reasons.
The process ends when its parent is gone: a compile of minutes must not outlive the optimizer.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tfopt_optimizer import disk, frames
from tfopt_optimizer.engines.base import Arrays, Engine, Place, Prepared, Runner, Target
from tfopt_optimizer.errors import EngineError, NoSpace, NotLowerable, first_line
from tfopt_optimizer.saved_model import SavedModelError

PARENT_POLL_S = 1.0
ENOUGH_CALLS = 4
WRITING = ("prepare", "lower")


class Commands:
    """The commands of a worker, on one engine. Feeds and targets are sent once and then named."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._feeds: dict[str, Arrays] = {}
        self._runners: dict[str, tuple[Runner, Target]] = {}
        self.plan_dir: Path | None = None

    def open(self, place: Place) -> Any:
        self.plan_dir = place.plan_dir
        return self._engine.open(place)

    def feed(self, name: str, feeds: Arrays) -> None:
        self._feeds[name] = feeds

    def prepare(self, name: str, target: Target) -> Prepared:
        prepared = self._engine.prepare(target)
        if prepared.artifact and not prepared.artifact_bytes and self.plan_dir is not None:
            files = (self.plan_dir / prepared.artifact).rglob("*")
            prepared = dataclasses.replace(prepared, artifact_bytes=sum(f.stat().st_size for f in files))
        self._runners[name] = (self._engine.runner(target), target)
        return prepared

    def lower(self, target: Target) -> Prepared:
        return self._engine.prepare(target)

    def run(self, name: str, feed: str) -> Arrays:
        return self._runners[name][0](self._feeds[feed])

    def measure(self, name: str, feed: str, round_s: float, max_calls: int) -> list[float]:
        """Microseconds of each call, arrays in and arrays out, until the budget is used up; one call at least.

        The first call of a round pays for what the previous process left in the caches: with enough others it does not
        count (a BERT of 7 ms read 9 ms otherwise).
        """
        runner, feeds = self._runners[name][0], self._feeds[feed]
        times: list[float] = []
        end = time.perf_counter() + round_s
        while not times or (len(times) < max_calls and time.perf_counter() < end):
            started = time.perf_counter()
            runner(feeds)
            times.append((time.perf_counter() - started) * 1e6)
        return times[1:] if len(times) > ENOUGH_CALLS else times

    def saturate(self, name: str, feed: str, callers: int, seconds: float) -> float:
        """Calls per second that so many callers at once get answered, each as fast as it can; one call each or more."""
        runner, feeds = self._runners[name][0], self._feeds[feed]

        def calls() -> int:
            made = 0
            while not made or time.perf_counter() < end:
                runner(feeds)
                made += 1
            return made

        started = time.perf_counter()
        end = started + seconds
        with ThreadPoolExecutor(callers) as threads:
            made = [threads.submit(calls) for _ in range(callers)]
            total = sum(found.result() for found in made)
        return total / (time.perf_counter() - started)

    def forget_feeds(self) -> None:
        self._feeds.clear()

    def drop(self, name: str) -> None:
        if name in self._runners:
            runner, target = self._runners.pop(name)
            runner.close()
            self._engine.release(target)


def main(engine_path: str, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the supervisor's to hear
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # engines print to standard output; the answers' pipe is ours alone
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    module, _, name = engine_path.partition(":")
    commands = Commands(getattr(importlib.import_module(module), name)())
    while True:
        try:
            command, *arguments = frames.read(sys.stdin.buffer)
        except EOFError:
            return
        frames.write(answers, _answer(commands, command, arguments))


def _answer(commands: Commands, command: str, arguments: list[Any]) -> tuple[Any, ...]:
    answer, error = _tried(commands, command, arguments)
    if commands.plan_dir is not None and (error is not None or command in WRITING):
        full = disk.refusal(error, commands.plan_dir)
        if full:
            return ("error", NoSpace.__name__, full)
    return answer


def _tried(commands: Commands, command: str, arguments: list[Any]) -> tuple[tuple[Any, ...], Exception | None]:
    try:
        return ("ok", getattr(commands, command)(*arguments)), None
    except (EngineError, NotLowerable, SavedModelError) as error:
        return ("error", type(error).__name__, str(error)), error
    except Exception as error:  # the supervisor decides what a failure costs: here it becomes an answer with its name
        return ("error", type(error).__name__, f"{type(error).__name__}: {first_line(error)}"), error


def end_with_parent(parent: int) -> None:
    """Ends this process once its parent, whose id it said itself, is gone: it may be so before we get to ask for it.

    A poll, because Linux's death signal is tied to a thread's end.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # skips TensorFlow's teardown, which takes seconds and frees what the system frees anyway
