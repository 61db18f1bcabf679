"""A pool of things that serve one call at a time, made on demand up to a limit, such as interpreters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Pool(Generic[Item]):
    """Items are set up for a key (input shapes); the taker of one that was set up for another key sets it up anew.

    The usual case, an idle item of the right key, takes no lock: a model of 2 us would feel it.
    """

    def __init__(self, make: Callable[[], Item], limit: int) -> None:
        self._make, self._limit = make, limit
        self._idle: dict[Hashable, list[Item]] = {}
        self._free = threading.Condition()
        self._made = self._waiting = 0

    def take(self, key: Hashable) -> Item:
        """An idle item of this key, else a new one, else an idle one of another key, else the next that comes back."""
        try:
            return self._idle[key].pop()
        except (KeyError, IndexError):
            return self._take_slowly(key)

    def give(self, key: Hashable, item: Item) -> None:
        """Hands an item back that is set up for `key`."""
        try:
            self._idle[key].append(item)
        except KeyError:
            self._idle.setdefault(key, []).append(item)
        if self._waiting:
            with self._free:
                self._free.notify()

    def drop(self) -> None:
        """Hands back room for an item instead of the item, which has failed."""
        with self._free:
            self._made -= 1
            self._free.notify()

    def clear(self) -> None:
        """Lets go of all idle items."""
        with self._free:
            self._made -= sum(len(items) for items in self._idle.values())
            self._idle.clear()

    def _take_slowly(self, key: Hashable) -> Item:
        with self._free:
            self._waiting += 1  # before looking: `give` looks at it after adding its item, so no item is overlooked
            try:
                while self._made >= self._limit:
                    for idle in (self._idle.get(key, []), *list(self._idle.values())):
                        try:
                            return idle.pop()
                        except IndexError:
                            continue
                    self._free.wait()
                self._made += 1
            finally:
                self._waiting -= 1
        try:
            return self._make()
        except BaseException:
            self.drop()
            raise
