"""Runs the optimizer in a process of its own: its memory goes away with it, its death costs no server.

    plan = optimize_in_child(job, progress, timeout_s)

`python -m tfopt_optimizer.child PARENT` is the other end: a job on standard input, log lines and then the plan on
standard output.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from tfopt_optimizer import frames
from tfopt_optimizer.cache import optimize_cached
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.optimize import OptimizeJob, Progress, optimize
from tfopt_optimizer.plan import Plan
from tfopt_optimizer.worker import end_with_parent


def optimize_in_child(job: OptimizeJob, progress: Progress, timeout_s: float) -> Plan:
    """optimize() in a child. OptimizeError when it fails, crashes, or takes longer than `timeout_s`."""
    plan: Plan = _in_child(("optimize", job), progress, timeout_s)
    return plan


def optimize_cached_in_child(
    job: OptimizeJob, cache_dir: Path, progress: Progress, timeout_s: float
) -> tuple[Plan, Path]:
    """optimize_cached() in a child: the lock is held by the child and released with it."""
    found: tuple[Plan, Path] = _in_child(("optimize_cached", job, cache_dir), progress, timeout_s)
    return found


def _in_child(command: tuple[Any, ...], progress: Progress, timeout_s: float) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-m", "tfopt_optimizer.child", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        os.set_blocking(process.stdin.fileno(), False)
        frames.send(process.stdin.fileno(), command, timeout_s)
        return _follow(process, process.stdout, progress, time.monotonic() + timeout_s, timeout_s)
    except BrokenPipeError as error:
        raise OptimizeError(f"the optimizer died at its start with exit code {process.wait()}") from error
    except frames.Stalled as error:
        raise OptimizeError(f"the optimizer read nothing for {timeout_s:g} s and was stopped") from error
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _follow(process: Any, stream: IO[bytes], progress: Progress, end: float, timeout_s: float) -> Any:
    messages: queue.Queue[tuple[str, Any]] = queue.Queue()
    threading.Thread(target=_pump, args=(stream, messages), daemon=True).start()
    while True:
        try:
            kind, value = messages.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty as error:
            raise OptimizeError(f"the optimizer took longer than {timeout_s:g} s and was stopped") from error
        if kind == "line":
            progress(value)
        elif kind == "done":
            return value
        elif kind == "failed":
            raise OptimizeError(value)
        else:
            raise OptimizeError(f"the optimizer died with exit code {process.wait()}")


def _pump(stream: IO[bytes], messages: queue.Queue[tuple[str, Any]]) -> None:
    while True:
        try:
            messages.put(frames.read(stream))
        except (EOFError, ValueError):  # ValueError: the parent closed the stream after its timeout
            messages.put(("gone", None))
            return


def main(parent: int) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not end up between the messages
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()

    def progress(line: str) -> None:
        frames.write(answers, ("line", line))

    command, job, *rest = frames.read(sys.stdin.buffer)
    try:
        done: Any = optimize(job, progress) if command == "optimize" else optimize_cached(job, rest[0], progress)
    except (OptimizeError, OSError) as error:
        frames.write(answers, ("failed", str(error)))
    else:
        frames.write(answers, ("done", done))


if __name__ == "__main__":
    main(int(sys.argv[1]))
