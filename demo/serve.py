"""`make serve`: runs `tfopt serve` on a model in the foreground and prints a curl line that works, once it is ready.

    python -m demo.serve --model demo/models/digits --port 8501 [any flag of tfopt serve]

This process becomes the server (exec), so Ctrl-C, SIGTERM and the exit code are the server's own. The line is printed
by a small process that waits for the health route and then ends.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from demo import held_out

HEALTH_ROUTE = "/health"
POLL_S = 0.2
# An optimization of a large model takes minutes; nobody waits longer than this for a demo.
PATIENCE_S = 1800


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.serve", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, required=True, help="a folder of numbered versions, or a SavedModel")
    parser.add_argument("--port", type=int, default=8501, help="REST port; gRPC listens one below")
    args, flags = parser.parse_known_args(argv)
    if not args.model.is_dir():
        parser.error(f"--model: there is no folder {args.model}; `make setup` builds the demo models")
    model = args.model.resolve()
    say_when_ready(args.port, hint(model, args.port))
    command = server_command(model, args.port, flags)
    os.execv(command[0], command)
    return 1  # execv does not come back


def server_command(model: Path, port: int, flags: list[str]) -> list[str]:
    return [
        str(Path(sys.executable).with_name("tfopt")),
        "serve",
        f"--model_name={model.name}",
        f"--model_base_path={model}",
        f"--rest_api_port={port}",
        f"--port={port - 1}",
        f"--health_route={HEALTH_ROUTE}",
        *flags,
    ]


def hint(model: Path, port: int) -> str:
    """What is printed once the server is ready: a request with a real row where one is at hand."""
    url = f"http://localhost:{port}/v1/models/{model.name}"
    try:
        data = held_out.read(model)
    except FileNotFoundError:
        return f"Ready. What the model takes:\n\n{shlex.join(['curl', '-s', url + '/metadata'])}\n"
    answer = plain(data.answer[0])
    line = curl(f"{url}:predict", data.rows(0, 1))
    return f"Ready. Try a row the model never saw in training (the true answer is {answer!r}):\n\n{line}\n"


def curl(url: str, row: Mapping[str, np.ndarray]) -> str:
    """A command for any POSIX shell that posts one row. `row`: arrays whose first dimension is 1."""
    return shlex.join(["curl", "-s", url, "-d", json.dumps({"instances": [instance(row)]}, separators=(",", ":"))])


def instance(row: Mapping[str, np.ndarray]):
    """The row as TensorFlow Serving's row format has it: the bare value of a single input, else an object by name."""
    values = {name: plain(array[0]) for name, array in row.items()}
    return next(iter(values.values())) if len(values) == 1 else values


def plain(value):
    """A numpy value as JSON has it. float32 numbers get the fewest digits that still name them; bytes become text,
    and base64 when they are no text."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.floating):
        short = float(np.format_float_positional(value, unique=True))
        return int(short) if short == int(short) else short
    return value.item()


def say_when_ready(port: int, text: str) -> None:
    """Prints `text` as soon as the health route answers 200, from a process the server does not know.

    Forked twice: the process in between ends at once, so the server never has a child that it did not start.
    """
    server = os.getpid()
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    if os.fork():
        os._exit(0)
    try:
        if wait_until_ready(port, server):
            print(f"\n{text}", flush=True)
    except KeyboardInterrupt:
        pass  # Ctrl-C reaches the whole terminal group; the server says goodbye for both
    finally:
        os._exit(0)


def wait_until_ready(port: int, server: int) -> bool:
    """False when the server process is gone, or after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and alive(server):
        if healthy(port):
            return True
        time.sleep(POLL_S)
    return False


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", HEALTH_ROUTE)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False  # not listening yet
    finally:
        connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
