"""`tfopt serve`: settings, log, then the server."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping, Sequence

from tfopt_server import argv as arguments
from tfopt_server import flags, logs
from tfopt_server.commands import COMMANDS, HELP, version
from tfopt_server.process.exit_codes import CANNOT_START
from tfopt_server.settings import Notice, Settings, SettingsErrors, parse

log = logging.getLogger(__name__)


def usage() -> str:
    others = ", ".join(name for name in COMMANDS if name != "serve")
    return (
        "usage: tfopt [serve] --model_base_path=DIR [flags]\n\n"
        "Serves a TensorFlow SavedModel over REST and gRPC, optimized where that was proven right and faster.\n"
        "--name=value, --name value, --flag, --noflag; $(VAR) is expanded; every tensorflow_model_server flag is\n"
        f"accepted. Other commands: {others}.\n{flags.usage()}"
    )


def main(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Never returns once the server runs: it ends the process with one of process/exit_codes.py."""
    if any(a in HELP for a in argv):
        sys.stdout.write(usage())
        return 0
    if "--version" in argv:
        return version.main([], environ)
    settings = prepare(argv, environ)
    if settings is None:
        return CANNOT_START
    if settings.version:
        return version.main([], environ)
    from tfopt_server.process.application import serve
    from tfopt_server.process.assembly import build

    return serve(settings, build)


def prepare(argv: Sequence[str], environ: MutableMapping[str, str]) -> Settings | None:
    """Settings, with the log set up by them; None when there were mistakes, which are then in the log."""
    try:
        settings, notices = parse(argv, environ)
    except SettingsErrors as errors:
        complain(errors, argv, environ)
        return None
    logs.configure(settings.log_format, settings.log_level, logs.stream(settings.log_stream))
    logs.quiet_native(environ, settings.log_level)
    announce(notices)
    return settings


def complain(errors: SettingsErrors, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """All of them, in the format and to the stream that were asked for as far as that can be told."""
    given = arguments.parse(argv, flags.ALL, environ).values
    stream = logs.stream(str(given.get("log_stream") or environ.get("TFOPT_LOG_STREAM")))
    logs.configure(str(given.get("log_format", "auto")), stream=stream)
    for error in errors.errors:
        log.error("%s", error)
    log.critical("cannot start: %d mistakes in flags or environment; see tfopt serve --help", len(errors.errors))


def announce(notices: Sequence[Notice]) -> None:
    for notice in notices:
        log.log(logging.getLevelName(notice.severity), "%s", notice.text)
