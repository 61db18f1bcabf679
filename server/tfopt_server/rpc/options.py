"""What --grpc_channel_arguments means here: gRPC core's names for what this server has too.

Source: include/grpc/impl/channel_arg_names.h of gRPC. Times are milliseconds there and seconds here; -1 means "no
limit" for sizes, INT_MAX "never" for times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tfopt_server.rpc.http2 import frames
from tfopt_server.rpc.http2.limits import Limits

MESSAGE_LIMIT = 2**31 - 1
ARRIVING_LIMIT = 2**30
_NEVER_MS = 2**31 - 1


@dataclass(frozen=True)
class Options:
    """Sizes in bytes, times in seconds; defaults are gRPC core's for servers, for messages TensorFlow Serving's."""

    limits: Limits
    receive_limit: int = MESSAGE_LIMIT
    send_limit: int = MESSAGE_LIMIT
    arriving_limit: int = ARRIVING_LIMIT  # of all calls together, tfopt_server/room.py
    keepalive_s: float = 7200.0  # without a byte from the client, before it is asked whether it lives
    keepalive_timeout_s: float = 20.0
    keepalive_without_calls: bool = False
    idle_s: float = math.inf
    age_s: float = math.inf
    age_grace_s: float = math.inf
    handshake_s: float = 120.0


def _size(value: int) -> int:
    if value == -1:
        return MESSAGE_LIMIT
    return _within(0, MESSAGE_LIMIT)(value)


def _time(value: int) -> float:
    return math.inf if value == _NEVER_MS else _within(1, _NEVER_MS)(value) / 1000


def _within(least: int, most: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not least <= value <= most:
            raise ValueError(f"expected {least} to {most}, received {value}")
        return value

    return check


# Argument -> field of Options, or of Limits after a dot, and what its number means.
_KNOWN: dict[str, tuple[str, Callable[[int], int | float]]] = {
    "grpc.max_receive_message_length": ("receive_limit", _size),
    "grpc.max_message_length": ("receive_limit", _size),
    "grpc.max_send_message_length": ("send_limit", _size),
    "tfopt.max_arriving_bytes": ("arriving_limit", _size),
    "grpc.keepalive_time_ms": ("keepalive_s", _time),
    "grpc.keepalive_timeout_ms": ("keepalive_timeout_s", _time),
    "grpc.keepalive_permit_without_calls": ("keepalive_without_calls", _within(0, 1)),
    "grpc.max_connection_idle_ms": ("idle_s", _time),
    "grpc.max_connection_age_ms": ("age_s", _time),
    "grpc.max_connection_age_grace_ms": ("age_grace_s", _time),
    "grpc.server_handshake_timeout_ms": ("handshake_s", _time),
    "grpc.max_concurrent_streams": (".streams", _within(1, frames.LARGEST)),
    "grpc.max_metadata_size": (".headers", _within(1, 128 * 1024)),
    "grpc.absolute_max_metadata_size": (".headers", _within(1, 128 * 1024)),
    "grpc.http2.max_frame_size": (".frame", _within(frames.DEFAULT_FRAME, frames.LARGEST_FRAME)),
    "grpc.http2.lookahead_bytes": (".stream_window", _within(frames.DEFAULT_WINDOW, frames.LARGEST)),
}


def read(arguments: Mapping[str, int | str]) -> tuple[Options, tuple[str, ...]]:
    """The options, and a line for the operator per argument that is not followed."""
    fields: dict[str, int | float] = {}
    lines: list[str] = []
    for name, value in arguments.items():
        known = _KNOWN.get(name)
        if known is None:
            lines.append(f"--grpc_channel_arguments: {name} has no counterpart in this server")
        elif not isinstance(value, int):
            lines.append(f"--grpc_channel_arguments: {name}: expected a whole number, received {value!r}; ignored")
        else:
            try:
                fields[known[0]] = known[1](value)
            except ValueError as error:
                lines.append(f"--grpc_channel_arguments: {name}: {error}; ignored")
    limits = Limits(**{name[1:]: value for name, value in fields.items() if name[0] == "."})  # type: ignore[arg-type]
    own = {name: value for name, value in fields.items() if name[0] != "."}
    if "keepalive_without_calls" in own:
        own["keepalive_without_calls"] = bool(own["keepalive_without_calls"])
    return Options(limits, **own), tuple(lines)  # type: ignore[arg-type]
