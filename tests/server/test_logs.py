"""What a log line looks like, for machines and for people."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings

import pytest
from tfopt_server import logs


@pytest.fixture
def stream():
    """A place to log to; what pytest had set up comes back afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)
    yield io.StringIO()
    root.handlers[:], _, sys.excepthook, threading.excepthook = before
    root.setLevel(before[1])
    logging.captureWarnings(False)


def read(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_the_names_that_cloud_logging_lifts_out(stream):
    logs.configure("json", "info", stream)
    logging.getLogger("tfopt_server.x").warning("loaded %s", "m", extra={"model": "m", "seconds": 1.5, "odd": object})
    (line,) = read(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("time"))
    assert isinstance(line.pop("pid"), int)
    assert line == {
        "severity": "WARNING", "message": "loaded m", "logger": "tfopt_server.x", "model": "m", "seconds": 1.5,
        "odd": "<class 'object'>",
    }  # fmt: skip


def test_whatever_is_logged_stays_one_line_of_json(stream):
    logs.configure("json", "info", stream)
    log = logging.getLogger("t")
    log.info("line one\nline two \udcff \x00")
    log.info("not a number", extra={"loss": float("nan"), "severity": "fake"})
    log.critical("gone")
    first, second, third = read(stream)
    assert first["message"] == "line one\nline two \udcff \x00"
    assert (second["loss"], second["severity"]) == ("nan", "INFO")
    assert third["severity"] == "CRITICAL"


def test_an_exception_is_a_field_not_more_lines(stream):
    logs.configure("json", "info", stream)
    try:
        int("why")
    except ValueError:
        logging.getLogger("t").exception("it failed")
    (line,) = read(stream)
    assert line["message"] == "it failed"
    assert line["stack_trace"].splitlines()[-1] == "ValueError: invalid literal for int() with base 10: 'why'"


def test_people_get_a_line_they_can_read(stream):
    logs.configure("human", "info", stream)
    logging.getLogger("t").info("listening", extra={"port": 8501})
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} INFO    listening  port=8501\n", stream.getvalue())


def test_auto_is_json_where_no_terminal_reads(stream):
    logs.configure("auto", "info", stream)
    logging.getLogger("t").info("x")
    assert read(stream)[0]["message"] == "x"


def test_gunicorn_and_the_engines_speak_up_only_when_it_matters(stream):
    logs.configure("json", "info", stream)
    for name in ("gunicorn.error", "absl", "tensorflow", "jax"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("%s warns", name)
    assert [line["message"] for line in read(stream)] == [
        "gunicorn.error warns", "absl warns", "tensorflow warns", "jax warns"
    ]  # fmt: skip


def test_debug_opens_everything(stream):
    logs.configure("json", "debug", stream)
    logging.getLogger("gunicorn.error").debug("detail")
    assert read(stream)[0]["severity"] == "DEBUG"


def test_what_nobody_caught_and_warnings_are_lines_too(stream):
    logs.configure("json", "info", stream)
    thread = threading.Thread(target=lambda: 1 / 0, name="worker-1")
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", UserWarning, stacklevel=1)
    crash, warned = read(stream)
    assert (crash["severity"], crash["message"]) == ("CRITICAL", "uncaught ZeroDivisionError in thread worker-1")
    assert warned["severity"] == "WARNING"
    assert "UserWarning: old" in warned["message"]


def test_native_libraries_are_kept_down_but_an_operators_word_counts():
    environ = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    logs.quiet_native(environ, "info")
    assert environ == {"TF_CPP_MIN_LOG_LEVEL": "0", "GRPC_VERBOSITY": "ERROR"}
    untouched: dict[str, str] = {}
    logs.quiet_native(untouched, "debug")
    assert untouched == {}
