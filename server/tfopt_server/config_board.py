"""The model config that a client sent last, and which worker has done what it says: memory that all workers share.

Made in the process that forks the workers, so that a replacement for one that died finds what its siblings serve.
A config has a number that rises. Its bytes go to one of two files in turn, and its number is set last: a reader sees a
whole config, or reads again. Each worker has a seat, from 1 on, and an eventfd that wakes it; nobody polls.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_HEAD = struct.Struct("<QQ")  # a config's number and length, before its bytes
_TEXT = 1024  # of an error; gRPC texts are cut there anyway
_PAGE = 2048  # of a seat: joined, the number that is done, its code, the length of its text, the text
_JOINED, _DONE, _CODE, _LENGTH = range(4)
_AT_TEXT = 4 * 8


@dataclass(frozen=True)
class Outcome:
    """How a worker fared with a config: a canonical code and its text, 0 and "" when all serves."""

    code: int = 0
    text: str = ""


class ConfigBoard:
    """For `seats` workers. `post` and `report` may be called from any thread of any of them."""

    def __init__(self, seats: int) -> None:
        self.seats = range(1, seats + 1)
        self._memory = mmap.mmap(-1, _PAGE * (seats + 1))  # the first page holds the number of the latest config
        self._cells = memoryview(self._memory).cast("Q")
        self._files = tuple(os.memfd_create(f"tfopt-config-{i}") for i in range(2))
        self._bells = {seat: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for seat in self.seats}
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """Of the latest config; 0 while there is none."""
        return self._cells[0]

    def post(self, config: bytes, after: int | None = None) -> int:
        """Makes this the latest config and wakes all workers; its number. With `after` only where that is the number of
        the latest one still, else 0: what was changed since then would be lost."""
        with self._writing():
            if after is not None and self.number != after:
                return 0
            number = self.number + 1
            file = self._files[number % 2]
            os.ftruncate(file, 0)
            os.pwrite(file, _HEAD.pack(number, len(config)) + config, 0)
            self._cells[0] = number
        self.wake()
        return number

    def latest(self) -> tuple[int, bytes]:
        """The latest config and its number; (0, b"") while there is none."""
        while number := self.number:
            file = self._files[number % 2]
            head = os.pread(file, _HEAD.size, 0)
            if len(head) < _HEAD.size:
                continue
            written, length = _HEAD.unpack(head)
            config = os.pread(file, length, _HEAD.size)
            if written == number and len(config) == length and number >= self.number - 1:
                return number, config
        return 0, b""

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One thread of one process at a time; a writer that dies lets go."""
        with self._lock:
            fcntl.lockf(self._files[0], fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._files[0], fcntl.LOCK_UN)

    # Seats.

    def join(self, seat: int) -> None:
        """This worker follows the board from now on: configs wait for it."""
        self._cells[self._cell(seat, _DONE)] = 0
        self._cells[self._cell(seat, _JOINED)] = 1

    def leave(self, seat: int) -> None:
        """The worker of this seat is gone; nobody waits for it."""
        self._cells[self._cell(seat, _JOINED)] = 0
        self.wake()

    def report(self, seat: int, number: int, outcome: Outcome) -> None:
        """The worker has done what the configs up to `number` say, or could not."""
        text = outcome.text.encode()[:_TEXT]
        begin = seat * _PAGE + _AT_TEXT
        self._memory[begin : begin + len(text)] = text
        self._cells[self._cell(seat, _LENGTH)] = len(text)
        self._cells[self._cell(seat, _CODE)] = outcome.code
        self._cells[self._cell(seat, _DONE)] = number
        self.wake()

    def outcome(self, number: int) -> Outcome | None:
        """How all workers fared with this config, the first failure if there was one; None while one has not said."""
        found = Outcome()
        for seat in self.seats:
            if not self._cells[self._cell(seat, _JOINED)]:
                continue
            if self._cells[self._cell(seat, _DONE)] < number:
                return None
            if not found.code and (code := self._cells[self._cell(seat, _CODE)]):
                begin = seat * _PAGE + _AT_TEXT
                text = self._memory[begin : begin + self._cells[self._cell(seat, _LENGTH)]]
                found = Outcome(code, text.decode(errors="replace"))
        return found

    @staticmethod
    def _cell(seat: int, which: int) -> int:
        return seat * _PAGE // 8 + which

    # Waking.

    def wake(self, seat: int | None = None) -> None:
        """Rings at one worker, or all."""
        for each in self.seats if seat is None else (seat,):
            with contextlib.suppress(BlockingIOError):  # rung 2**64 times and never heard: it is awake
                os.eventfd_write(self._bells[each], 1)

    def wait(self, seat: int) -> None:
        """Until somebody rang at this seat since the last time."""
        bell = self._bells[seat]
        select.select([bell], [], [])
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(bell)
