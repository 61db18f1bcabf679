"""Connections that are kept between calls. Any number of threads may take one each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

KEPT = 32


class Connection(Protocol):
    def usable(self) -> bool:
        """Whether the next request may go over it: the server has not closed it."""

    def close(self) -> None: ...


Kind = TypeVar("Kind", bound=Connection)


class Pool(Generic[Kind]):
    """`connect` makes a new connection where none is free."""

    def __init__(self) -> None:
        self._free: list[Kind] = []
        self._lock = threading.Lock()
        self.opened = 0

    @contextmanager
    def taken(self, connect: Callable[[], Kind]) -> Iterator[Kind]:
        """A connection for one call. It is kept when the call went through, and closed when it raised."""
        connection = self._idle() or self._new(connect)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            keep = len(self._free) < KEPT
            if keep:
                self._free.append(connection)
        if not keep:
            connection.close()

    def _idle(self) -> Kind | None:
        while True:
            with self._lock:
                if not self._free:
                    return None
                found = self._free.pop()
            if found.usable():
                return found
            found.close()

    def _new(self, connect: Callable[[], Kind]) -> Kind:
        made = connect()
        with self._lock:
            self.opened += 1
        return made

    def close(self) -> None:
        with self._lock:
            free, self._free = self._free, []
        for connection in free:
            connection.close()
