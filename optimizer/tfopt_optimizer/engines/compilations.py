"""Who wants to know that this process compiles something.

    compilations.listeners.append(lambda what: ...)

The server promises that no request waits for a compiler, and counts every compilation that happens outside of a load.
Engines call `tell` before they compile; a listener runs on the thread that compiles.
"""

from __future__ import annotations

from collections.abc import Callable

listeners: list[Callable[[str], None]] = []


def tell(what: str) -> None:
    for listener in listeners:
        listener(what)
