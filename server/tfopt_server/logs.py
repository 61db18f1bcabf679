"""How a log line looks and where it goes: JSON for Cloud Logging, or one readable line for a terminal, to one stream.

Everything logs through the standard library (`logging.getLogger(__name__)`); `extra={"model": "m"}` becomes a field of
the JSON line. gunicorn, absl, TensorFlow and jax end up in the same place. JSON lines carry `severity`, `time` (RFC
3339) and `message`, the names that Cloud Logging lifts out of a line (Structured logging, "special payload fields"),
and `stack_trace`, which Error Reporting reads. What is logged `with naming(id)` has the field `request_id`.
"""

from __future__ import annotations

import contextlib
import contextvars
import faulthandler
import json
import logging
import math
import os
import sys
import threading
import time
import types
from collections.abc import Iterator, MutableMapping
from typing import Any, TextIO

# What a LogRecord has by itself; any other attribute came from `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# gunicorn reports each step of its own start and stop at INFO; process/ says the same in this project's words.
_QUIET = ("gunicorn.error", "absl", "tensorflow", "jax", "h5py", "asyncio")

LONGEST_ID = 256  # of a request, in bytes: longer ones are neither echoed nor logged
# The id that the client gave the request in hand; "" without one.
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("tfopt_request_id", default="")

log = logging.getLogger(__name__)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Every line that is logged inside names the request."""
    token = request_id.set(name)
    try:
        yield
    finally:
        request_id.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, whatever the message holds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "severity": record.levelname,
            "time": _rfc3339(record.created),
            "message": record.getMessage(),
            "logger": record.name,
            "pid": record.process,
        }
        line |= {k: _plain(v) for k, v in _fields(record).items() if k not in line}
        if trace := _trace(record):
            line["stack_trace"] = trace
        # ASCII only: a lone surrogate from a file name must not make the line unwritable.
        return json.dumps(line, default=str)


class HumanFormatter(logging.Formatter):
    """`12:00:00.123 INFO    message  key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f"  {k}={v}" for k, v in _fields(record).items())
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {record.getMessage()}{fields}"
        trace = _trace(record)
        return f"{line}\n{trace}" if trace else line


def stream(name: str) -> TextIO:
    """The one called `name`: "stdout", else stderr."""
    return sys.stdout if name == "stdout" else sys.stderr


def configure(format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Sends every logger of this process to `stream` (default stderr). Replaces an earlier set-up."""
    stream = stream or sys.stderr
    human = format == "human" or (format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    debugging = root.level <= logging.DEBUG
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if debugging else logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    faulthandler.enable()  # a crash in native code names the Python line it came from


def leave_stderr() -> None:
    """Before file descriptor 2 becomes something else: a log that goes there keeps a descriptor of its own."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.setStream(os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace"))


def quiet_native(environ: MutableMapping[str, str], level: str) -> None:
    """Keeps C++ libraries from writing below their ERROR level straight to stderr; an operator's own setting stays."""
    if level != "debug":
        environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        environ.setdefault("GRPC_VERBOSITY", "ERROR")


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: types.TracebackType | None) -> None:
    if error is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
        return
    log.critical("uncaught %s in thread %s", kind.__name__, threading.current_thread().name, exc_info=error)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    name = request_id.get()
    return ({"request_id": name} if name else {}) | {k: v for k, v in vars(record).items() if k not in _STANDARD}


def _trace(record: logging.LogRecord) -> str:
    parts = [logging.Formatter().formatException(record.exc_info)] if record.exc_info and record.exc_info[1] else []
    return "\n".join([*parts, record.stack_info] if record.stack_info else parts)


def _plain(value: Any) -> Any:
    """NaN and infinities as text: JSON has no word for them."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _rfc3339(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"
