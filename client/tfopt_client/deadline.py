"""The one deadline of a call, over all its attempts and waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from tfopt_client.errors import Failure


class Deadline:
    """`seconds` from now on; None: none."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        if seconds is not None and not seconds > 0:
            raise ValueError(f"expected a deadline above 0 s, received {seconds}")
        self._clock = clock
        self._end = float("inf") if seconds is None else clock() + seconds

    def left_s(self) -> float:
        return self._end - self._clock()

    def timeout(self) -> float | None:
        """What a socket may wait. Failure DEADLINE_EXCEEDED when there is no time left."""
        left = self.left_s()
        if left <= 0:
            raise exceeded()
        return None if left == float("inf") else left


def exceeded() -> Failure:
    return Failure("DEADLINE_EXCEEDED", "the deadline passed without an answer")
