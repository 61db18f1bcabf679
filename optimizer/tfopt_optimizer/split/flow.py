"""The cheapest cut of a network: Dinic's algorithm (1970), a few milliseconds for the graphs that are cut here."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

INFINITE = 1 << 60


class Network:
    """Directed edges with whole capacities between nodes of any name."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._edges: list[list[int]] = []  # node -> its edges; an edge and its opposite stand side by side
        self._ends: list[int] = []
        self._left: list[int] = []

    def add(self, start: Hashable, end: Hashable, capacity: int) -> None:
        for here, there, room in ((start, end, capacity), (end, start, 0)):
            self._edges[self._number(here)].append(len(self._ends))
            self._ends.append(self._number(there))
            self._left.append(room)

    def _number(self, node: Hashable) -> int:
        if node not in self._numbers:
            self._numbers[node] = len(self._edges)
            self._edges.append([])
        return self._numbers[node]

    def reached(self, source: Hashable, sink: Hashable) -> set[Hashable]:
        """The source's side of the cheapest cut that leaves the most to the sink's."""
        first, last = self._number(source), self._number(sink)
        while (levels := self._levels(first))[last] >= 0:
            self._fill(first, last, levels)
        return {name for name, number in self._numbers.items() if levels[number] >= 0}

    def _levels(self, first: int) -> list[int]:
        found = [-1] * len(self._edges)
        found[first] = 0
        todo = deque([first])
        while todo:
            node = todo.popleft()
            for edge in self._edges[node]:
                if self._left[edge] and found[self._ends[edge]] < 0:
                    found[self._ends[edge]] = found[node] + 1
                    todo.append(self._ends[edge])
        return found

    def _fill(self, first: int, last: int, levels: list[int]) -> None:
        """Sends all that shortest ways can take. Without recursion: graphs are deeper than Python's stack."""
        tried = [0] * len(self._edges)
        path: list[int] = []
        while True:
            node = self._ends[path[-1]] if path else first
            if node == last:
                room = min(self._left[edge] for edge in path)
                for edge in path:
                    self._left[edge] -= room
                    self._left[edge ^ 1] += room
                path.clear()
            elif tried[node] < len(self._edges[node]):
                edge = self._edges[node][tried[node]]
                if self._left[edge] and levels[self._ends[edge]] == levels[node] + 1:
                    path.append(edge)
                else:
                    tried[node] += 1
            elif path:
                tried[self._ends[path.pop() ^ 1]] += 1
            else:
                return
