"""Messages between the optimizer and its own child processes: a length, then a pickle. Never read from anyone else.

The child reads and writes streams, and waits for its parent as long as it takes. The parent sends and receives: between
messages it decides how long it waits, within one a child that stopped is known by the bytes that do not come.
"""

from __future__ import annotations

import math
import os
import pickle
import selectors
import struct
from typing import IO, Any

_LENGTH = struct.Struct("<Q")
STALL_S = 60.0  # without a byte of a message that has begun; a pickle is whole before its first byte is written
STEP_S = 1.0
CHUNK = 1 << 20


class Stalled(Exception):
    """The other process neither took nor gave a byte of a message for so long."""


def write(stream: IO[bytes], message: Any) -> None:
    payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def read(stream: IO[bytes]) -> Any:
    """The next message; EOFError when the other side is gone."""
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return pickle.loads(_exactly(stream, length))


def send(pipe: int, message: Any, stall_s: float) -> None:
    """Writes to a descriptor that does not block. Stalled; BrokenPipeError when the other side is gone."""
    payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    with selectors.PollSelector() as selector:
        selector.register(pipe, selectors.EVENT_WRITE)
        for part in (_LENGTH.pack(len(payload)), payload):
            left = memoryview(part)
            while left:
                try:
                    left = left[os.write(pipe, left) :]
                except BlockingIOError:
                    _await(selector, stall_s)


def receive(pipe: int, stall_s: float) -> Any:
    """The next message from a descriptor that does not block. Stalled; EOFError when the other side is gone."""
    with selectors.PollSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        (length,) = _LENGTH.unpack(_filled(pipe, _LENGTH.size, selector, stall_s))
        return pickle.loads(_filled(pipe, length, selector, stall_s))


def _filled(pipe: int, count: int, selector: selectors.BaseSelector, stall_s: float) -> bytearray:
    whole, filled = bytearray(count), 0
    while filled < count:
        try:
            part = os.read(pipe, min(count - filled, CHUNK))
        except BlockingIOError:
            _await(selector, stall_s)
            continue
        if not part:
            raise EOFError("the other process closed its pipe")
        whole[filled : filled + len(part)] = part
        filled += len(part)
    return whole


def _await(selector: selectors.BaseSelector, stall_s: float) -> None:
    """In steps: one that ends late, because this process was stopped as well (Ctrl-Z), counts no more than another."""
    for _ in range(math.ceil(stall_s / STEP_S)):
        if selector.select(min(STEP_S, stall_s)):
            return
    raise Stalled(f"no byte for {stall_s:g} s")


def _exactly(stream: IO[bytes], count: int) -> bytes:
    parts, missing = [], count
    while missing:
        part = stream.read(missing)
        if not part:
            raise EOFError("the other process closed its pipe")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
