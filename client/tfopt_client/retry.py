"""Whether, and after how long, a failed attempt is made again: policy without a clock, a socket or a sleep.

Exponential backoff with full jitter: the wait is drawn evenly from nothing up to the doubled ceiling, so that clients
that failed together do not come back together (Brooker, "Exponential Backoff and Jitter", AWS, 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tfopt_client.errors import Failure


@dataclass(frozen=True)
class Retry:
    """`attempts` in all; `first_s` and `most_s`: the ceiling of the first wait, and of any.

    `repeatable`: a request whose answer was lost may be sent again, although the server may have run it. Right for
    models that keep no state; off, because the client cannot know.
    """

    attempts: int = 6
    first_s: float = 0.1
    most_s: float = 5.0
    repeatable: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_s < 0 or self.most_s < self.first_s:
            raise ValueError(f"expected attempts >= 1 and 0 <= first_s <= most_s, received {self}")

    def wait_s(self, made: int, failure: Failure, left_s: float, draw: Callable[[], float]) -> float | None:
        """Seconds until the next attempt after `made` of them; None: give up. `draw`: evenly from [0, 1).

        A Retry-After is the least wait, jitter on top of it. A wait that would outlive the deadline is not begun.
        """
        again = failure.temporary and (failure.unseen or self.repeatable)
        if not again or made >= self.attempts:
            return None
        ceiling = min(self.most_s, self.first_s * 2 ** (made - 1))
        wait = draw() * ceiling + (failure.retry_after_s or 0.0)
        return wait if wait < left_s else None
