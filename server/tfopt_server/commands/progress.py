"""How `tfopt optimize` shows that it works: lines with the time in front, and in a terminal a bar below them.

The log is the same in both, so that what is seen once can be read again in a file. The optimizer says where it is in
lines of the form `serving_default x 8 [2/6]: litert/t1, openvino`; nothing else is asked of it.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, TextIO

from tfopt_optimizer.wording import plain

_STEP = re.compile(r"(?P<place>.+) \[(?P<number>\d+)/(?P<total>\d+)\]: (?P<what>.*)")
_SHARED = re.compile(r"(?P<key>.+): computes the same as .+ and shares its plan")
_CLEAR = "\r\x1b[K"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
TICK_S = 0.2
BAR = 24  # cells


class Say(Protocol):
    def __call__(self, line: str) -> None: ...


class Steps:
    """Reads from the log how far the optimizer is. `signatures`: how many the model has."""

    def __init__(self, signatures: int) -> None:
        self._left = max(signatures, 1)
        self._done = 0
        self.share = 0.0
        self.what = "starting the engines"

    def read(self, line: str) -> None:
        if _SHARED.fullmatch(line):
            self._left = max(self._left - 1, self._done + 1)
            return
        found = _STEP.fullmatch(line)
        if found is None:
            return
        number, total = int(found["number"]), int(found["total"])
        if number == 1 and self.what != "starting the engines":
            self._done += 1
        share = (self._done + (number - 1) / max(total, 1)) / max(self._left, self._done + 1)
        self.share = max(self.share, min(share, 1.0))  # a bar that goes back tells nothing
        self.what = f"{found['place']}: {found['what']}"


def painted(share: float, elapsed_s: float, what: str, width: int) -> str:
    """The bar's line, at most `width` - 1 cells: ` 42 % ██████▌     0:12  serving_default x 8: litert/t1`."""
    eighths = round(share * BAR * 8)
    full, rest = divmod(eighths, 8)
    bar = ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(BAR)
    minutes, seconds = divmod(int(elapsed_s), 60)
    line = f"{share * 100:3.0f} % {bar} {minutes}:{seconds:02}  {plain(what)}"
    return line if len(line) < width else line[: max(width - 2, 0)] + "…"


class Lines:
    """Lines with the time since the start in front, written as they come."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock, self._began = stream, clock, clock()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is left on the screen but lines."""

    def __call__(self, line: str) -> None:
        self._stream.write(f"{self._clock() - self._began:7.1f} s  {plain(line)}\n")
        self._stream.flush()


class Bar(Lines):
    """The same lines, and below them a bar that moves while an engine compiles."""

    def __init__(self, stream: TextIO, signatures: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._steps, self._lock, self._over = Steps(signatures), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._tick, name="tfopt-progress", daemon=True)

    def __enter__(self) -> Bar:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        with self._lock:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def __call__(self, line: str) -> None:
        with self._lock:
            self._steps.read(line)
            self._stream.write(_CLEAR)
            super().__call__(line)
            self._paint()

    def _tick(self) -> None:
        while not self._over.wait(TICK_S):
            with self._lock:
                self._paint()

    def _paint(self) -> None:
        width = shutil.get_terminal_size().columns
        text = painted(self._steps.share, self._clock() - self._began, self._steps.what, width)
        self._stream.write(f"{_CLEAR}{text}")
        self._stream.flush()


def to(stream: TextIO, environ: Mapping[str, str], signatures: int) -> Lines:
    """A bar in a terminal that can move its cursor, else lines."""
    if stream.isatty() and environ.get("TERM", "dumb") != "dumb":
        return Bar(stream, signatures)
    return Lines(stream)
