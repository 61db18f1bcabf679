"""A pool of things that serve one call at a time, made on demand up to a limit, such as interpreters."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

PATIENCE_S = 0.005
Item = TypeVar("Item")


class _Waiter(Generic[Item]):
    """A taker that is out of patience: the next item that comes back is put into its hands."""

    def __init__(self) -> None:
        self.item: Item | None = None
        self.ready = threading.Event()


class Pool(Generic[Item]):
    """Items are set up for a key (input shapes); the taker of one that was set up for another key sets it up anew.

    The usual case, an idle item of the right key, takes no lock: a model of 2 us would feel it. Who waits competes with
    who comes, which keeps the caches warm (served strictly in turn, four callers of a small MLP make a quarter of the
    calls), but for PATIENCE_S only: then it is served next.
    """

    def __init__(self, make: Callable[[], Item], limit: int) -> None:
        self._make, self._limit, self._made = make, limit, 0
        self._idle: dict[Hashable, list[Item]] = {}
        self._free = threading.Condition()
        self._waiting = 0
        self._next: deque[_Waiter[Item]] = deque()

    def take(self, key: Hashable) -> Item:
        """An idle item of this key, else a new one, else an idle one of another key, else the next that comes back."""
        try:
            return self._idle[key].pop()
        except (KeyError, IndexError):
            return self._take_slowly()

    def give(self, key: Hashable, item: Item) -> None:
        """Hands an item back that is set up for `key`."""
        try:
            self._idle[key].append(item)
        except KeyError:
            self._idle.setdefault(key, []).append(item)
        # Takers count themselves before they look for items, we add ours before we look for takers: one sees the other.
        if self._waiting:
            with self._free:
                while self._next and (found := self._pop()) is not None:
                    waiter = self._next.popleft()
                    waiter.item = found
                    waiter.ready.set()
                self._free.notify()

    def drop(self) -> None:
        """Hands back room for an item instead of the item, which has failed."""
        with self._free:
            self._made -= 1
            if self._next:
                self._made += 1
                self._next.popleft().ready.set()  # without an item: it makes one
            self._free.notify()

    def clear(self) -> None:
        """Lets go of all idle items."""
        with self._free:
            self._made -= sum(len(items) for items in self._idle.values())
            self._idle.clear()

    def _take_slowly(self) -> Item:
        with self._free:
            self._waiting += 1
            try:
                found = self._compete()
            finally:
                self._waiting -= 1
        if found is not None:
            return found
        try:
            return self._make()
        except BaseException:
            self.drop()
            raise

    def _compete(self) -> Item | None:
        """An item, or None where one is to be made. Holds the lock, and lets go of it while it waits."""
        end = time.monotonic() + PATIENCE_S
        while self._made >= self._limit:
            if (found := self._pop()) is not None:
                return found
            if time.monotonic() > end:
                waiter = _Waiter[Item]()
                self._next.append(waiter)
                self._free.release()
                try:
                    waiter.ready.wait()
                finally:
                    self._free.acquire()
                return waiter.item
            self._free.wait(PATIENCE_S)
        self._made += 1
        return None

    def _pop(self) -> Item | None:
        for idle in list(self._idle.values()):
            try:
                return idle.pop()
            except IndexError:  # empty, or a taker in a hurry was quicker
                continue
        return None
