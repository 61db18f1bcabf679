"""Which workers are ready: a few bytes that the arbiter and all workers share.

Workers share their listening sockets, so the kernel may hand any of them a request. Two rules keep requests away from a
worker that cannot answer yet: the server is not ready before every worker was (`open`), and a replacement for a worker
that died accepts nothing while others are ready (`may_accept`).
"""

from __future__ import annotations

import mmap

_OPEN = 0  # this byte, then one per worker


class Readiness:
    """Made in the arbiter before the first fork. `take` and `give_back` are the arbiter's, `set` the worker's."""

    def __init__(self, workers: int) -> None:
        self._bytes = mmap.mmap(-1, 1 + workers)
        self._free = set(range(1, 1 + workers))

    def take(self) -> int:
        """A seat for a worker that is about to be forked."""
        return self._free.pop()

    def give_back(self, seat: int) -> bool:
        """The worker of this seat is dead; whether it had been ready."""
        was_ready = self.is_set(seat)
        self._bytes[seat] = 0
        self._free.add(seat)
        return was_ready

    def set(self, seat: int) -> None:
        self._bytes[seat] = 1
        if all(self._bytes[1:]):
            self._bytes[_OPEN] = 1

    def is_set(self, seat: int) -> bool:
        return bool(self._bytes[seat])

    @property
    def open(self) -> bool:
        """Every worker was ready at one time."""
        return bool(self._bytes[_OPEN])

    def may_accept(self, seat: int) -> bool:
        """Whether the worker of this seat should take connections: when it is ready, or when nobody else is.

        Somebody must: health answers 503 to the platform's probes from the first second on.
        """
        others = any(self.is_set(other) for other in range(1, len(self._bytes)) if other != seat)
        return self.is_set(seat) or not (self.open and others)
