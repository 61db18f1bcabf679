"""Where exactly a cut runs: what may run on either side, or in either of two device segments, goes where least crosses.

The levels of partition.py put everything on the device as early as they can. From there, two neighbouring levels at a
time, the cheapest arrangement of what may stand on either is a minimum cut: exact for the two, so no step makes the
whole worse. Pure policy.

The cost of an arrangement, in bytes: every tensor that a device segment is given, and every one that it gives away, by
its size for ROWS rows and TENSOR beside; SEGMENT for a device segment at all; OPERATION for what is on the host without
need. At 10 GB/s these are what a call, a tensor and a host operation were measured to take: about 25 us, 1 us and 3 us.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping

from tfopt_optimizer.split.flow import INFINITE, Network
from tfopt_optimizer.split.graph import Graph, crosses, node_of

ROWS = 8
UNKNOWN = 16  # for a dimension that nobody knows
SEGMENT, TENSOR, OPERATION = 256 << 10, 8 << 10, 32 << 10
SWEEPS = 3
_BYTES = {"double": 8, "int64": 8, "uint64": 8, "half": 2, "bfloat16": 2, "int16": 2, "uint16": 2, "bool": 1, "int8": 1,
          "uint8": 1, "complex64": 8, "complex128": 16, "string": 32}  # fmt: skip
_EARLY, _LATE = ("end", "early"), ("end", "late")  # of the network; its other nodes are operations and prices

Levels = dict[str, int]


def arranged(graph: Graph, levels: Mapping[str, int], either: Collection[str], device: Collection[str]) -> Levels:
    """The levels with less that crosses. `either`: nodes that may stand on host and device; `device`: those that may
    stand in any device segment. All others stay."""
    found = dict(levels)
    for _ in range(SWEEPS):
        before = dict(found)
        top = max(found.values(), default=0)
        for low in range(top):
            _settle(graph, found, low, low + 1, either)
            if low % 2 and low + 2 <= top:
                _settle(graph, found, low, low + 2, {*either, *device})
        if found == before:
            break
    return found


def weight(graph: Graph, tensor: str) -> int:
    """What it costs to hand a tensor over, in bytes."""
    shape = graph.shape(tensor)
    known = [UNKNOWN if d is None else d for d in (shape or (None,))]
    if shape and shape[0] is None:
        known[0] = ROWS
    return TENSOR + math.prod(known) * _BYTES.get(graph.tensor(tensor).dtype, 4)


def cost(graph: Graph, levels: Mapping[str, int], either: Collection[str] = ()) -> int:
    """Of a whole arrangement."""
    total = SEGMENT * len({level for level in levels.values() if level % 2})
    total += OPERATION * sum(1 for name in either if not levels[name] % 2)
    answers = set(graph.outputs.values())
    for tensor, takers in _takers(graph, levels).items():
        own, at = levels[node_of(tensor)], {levels[t] for t in takers}
        given_away = own % 2 and (at - {own} or tensor in answers)
        total += weight(graph, tensor) * (bool(given_away) + sum(level % 2 for level in at - {own}))
    return total


def _takers(graph: Graph, levels: Mapping[str, int]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {f"{n}:{p}": [] for n in levels for p in range(len(graph.nodes[n].outputs))}
    for name in levels:
        for tensor in graph.nodes[name].inputs:
            if tensor in found:
                found[tensor].append(name)
    return found


def _settle(graph: Graph, levels: Levels, low: int, high: int, movable: Collection[str]) -> None:
    """Moves what may stand on both of two levels to the better one."""
    moving = {n for n, level in levels.items() if level in (low, high) and n in movable and n not in graph.fed}
    if not moving:
        return
    network = _Pair(graph, levels, low, high, moving)
    for name in moving:
        network.place(name)
    for tensor, takers in _takers(graph, levels).items():
        if node_of(tensor) in moving or not moving.isdisjoint(takers):
            network.tensor(tensor, takers)
    early = network.edges.reached(_EARLY, _LATE)
    for name in moving:
        levels[name] = low if name in early else high


class _Pair:
    """The network for two levels: who stays on the source's side of its cheapest cut runs on the earlier level."""

    def __init__(self, graph: Graph, levels: Levels, low: int, high: int, moving: Collection[str]) -> None:
        self._graph, self._levels, self._low, self._high, self._moving = graph, levels, low, high, moving
        self._answers = set(graph.outputs.values())
        self.edges = Network()
        held = {level for name, level in levels.items() if name not in moving}
        if low % 2 and low not in held:
            self.edges.add(("segment", "low"), _LATE, SEGMENT)
        if high % 2 and high not in held:
            self.edges.add(_EARLY, ("segment", "high"), SEGMENT)

    def place(self, name: str) -> None:
        """What it costs that an operation stands where it does. A segment that others are in for sure is paid for."""
        if not self._low % 2:
            self.edges.add(name, _LATE, OPERATION)
        if not self._high % 2:
            self.edges.add(_EARLY, name, OPERATION)
        self.edges.add(name, ("segment", "low"), INFINITE)
        self.edges.add(("segment", "high"), name, INFINITE)

    def tensor(self, tensor: str, takers: Collection[str]) -> None:
        maker, price = node_of(tensor), weight(self._graph, tensor)
        own = self._levels[maker]
        inside = [t for t in takers if t in self._moving]
        outside = {self._levels[t] for t in takers if t not in self._moving}
        self._order(tensor, maker, inside, outside)
        start = maker if maker in self._moving else _EARLY
        if self._high % 2 and own <= self._high and not (maker not in self._moving and own == self._high):
            self._given(("in", tensor), start, inside, price, sure=self._high in outside)
        if self._low % 2 and maker not in self._moving and own < self._low and self._low not in outside:
            for taker in inside:
                self.edges.add(taker, ("first", tensor), INFINITE)
            self.edges.add(("first", tensor), _LATE, price)
        away = bool(outside - {self._low}) or tensor in self._answers
        if self._low % 2 and (maker in self._moving or (own == self._low and not away)):
            self._given(("out", tensor), start, inside, price, sure=away)
        if self._high % 2 and maker in self._moving and (outside - {self._high} or tensor in self._answers):
            self.edges.add(_EARLY, maker, price)

    def _given(
        self, name: tuple[str, str], start: Hashable, takers: Collection[str], price: int, *, sure: bool
    ) -> None:
        """The price of a tensor that is made early and taken late; `sure`: somebody takes it late in any case."""
        if sure:
            self.edges.add(start, _LATE, price)
            return
        self.edges.add(start, name, price)
        for taker in takers:
            self.edges.add(name, taker, INFINITE)

    def _order(self, tensor: str, maker: str, inside: Collection[str], outside: Collection[int]) -> None:
        """Nobody takes what is not made yet; handles stay where they are made."""
        together = not crosses(self._graph.tensor(tensor))
        if maker in self._moving:
            for taker in inside:
                self.edges.add(taker, maker, INFINITE)
                if together:
                    self.edges.add(maker, taker, INFINITE)
            if any(level < self._high for level in outside) or (together and self._low in outside):
                self.edges.add(_EARLY, maker, INFINITE)
            if together and self._high in outside:
                self.edges.add(maker, _LATE, INFINITE)
            return
        for taker in inside:
            if self._levels[maker] > self._low:
                self.edges.add(taker, _LATE, INFINITE)
            elif together:
                self.edges.add(_EARLY, taker, INFINITE)
