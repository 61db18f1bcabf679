"""What native code writes straight to stderr, made into log lines: it must not break a log of JSON lines.

TensorFlow prints "oneDNN custom operations are on" at INFO whatever its log level (2.21, port.cc: before absl's log is
initialized), and Cloud Logging takes every plain line on stderr for an ERROR. So a worker's stderr is a pipe, and the
arbiter reads it: about once a second, and when it buries the worker, for the last words of a crash (a failed check,
Python's fault handler).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re

from tfopt_server import logs

log = logging.getLogger("native")

# Writers never wait for the reader: what does not fit into the pipe is dropped.
PIPE_BYTES = 1 << 20
_GLOG = re.compile(r"([IWEF])\d{4} [\d:.]+\s+\d+ (.*)")
# Libraries use INFO and WARNING for what a developer of them wants to know.
_LEVELS = {"I": logging.DEBUG, "W": logging.DEBUG, "E": logging.ERROR, "F": logging.CRITICAL}
_BOILERPLATE = "WARNING: All log messages before absl::InitializeLog()"


def classify(line: str) -> tuple[int, str]:
    """Severity and text of one raw line."""
    if match := _GLOG.fullmatch(line):
        return _LEVELS[match[1]], match[2]
    return (logging.DEBUG if line.startswith(_BOILERPLATE) else logging.INFO), line


class Stderr:
    """One worker's stderr. Made in the arbiter before the fork, so that both sides have it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        with contextlib.suppress(OSError):  # more than this user may have: the default of 64 KiB stays
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._begun = b""

    def capture(self) -> None:
        """In the worker: from now on file descriptor 2 is the pipe, and our own log goes where it went before."""
        logs.leave_stderr()
        os.dup2(self._write, 2)

    def relay(self, pid: int) -> None:
        """In the arbiter: logs the lines that are complete."""
        with contextlib.suppress(BlockingIOError):  # nothing there
            *lines, self._begun = (self._begun + os.read(self._read, PIPE_BYTES)).split(b"\n")
            for line in lines:
                _say(line, pid)

    def bury(self, pid: int) -> None:
        """In the arbiter, once the worker is dead: logs its last words and closes the pipe."""
        self.relay(pid)
        _say(self._begun, pid)
        os.close(self._read)
        os.close(self._write)


def _say(line: bytes, pid: int) -> None:
    if text := line.decode(errors="backslashreplace").rstrip():
        level, message = classify(text)
        log.log(level, "%s", message, extra={"worker": pid})
