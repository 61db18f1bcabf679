"""Counters, gauges and histograms with labels, and the Prometheus page they make. `metrics.py` says which there are.

Written without a client library: TensorFlow Serving's names start with a colon and carry no `_total`, which the usual
library would rewrite. Rules for changing it: the page follows util/prometheus_exporter.cc (`# TYPE` but no `# HELP`, a
metric without points keeps its TYPE line, `{}` where there are no labels); `inc` and `observe` stay cheap enough for a
dozen calls per request (0.1 us each); whoever chooses label values keeps them few.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

Join = Literal["sum", "max", "min"]
# The value of one child: [number], or [count per bucket ..., sum] for a histogram.
Point = list[float]
# metric name -> [(label values, point)]; plain data, so that it can travel between workers as JSON.
Snapshot = dict[str, list[tuple[list[str], Point]]]

# 10 * 1.8^i microseconds, 33 of them: the buckets of every latency in TensorFlow Serving (tfs-api.md f).
LATENCY_US = tuple(10 * 1.8**i for i in range(33))
# Steps of a request last from a microsecond (padding) to seconds (a large model): 1, 2.5, 5 in every decade.
STEP_SECONDS = (*(m * 10.0**e for e in range(-6, 1) for m in (1, 2.5, 5)), 10.0)
POWERS_OF_2 = tuple(float(2**i) for i in range(15))

# Observations wait in a list and are sorted into buckets this many at a time: 0.1 us on the hot path instead of 0.5.
FOLD_AT = 512


class Instrument(Protocol):
    def point(self) -> Point: ...


T = TypeVar("T", bound=Instrument)


class Counter:
    """A number that only grows."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        with self._lock:
            self._value += amount

    @property
    def value(self) -> float:
        return self._value

    def point(self) -> Point:
        return [self._value]


class Gauge:
    """A number that goes up and down: set by its owner, or read from a function whenever somebody looks."""

    __slots__ = ("_read", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._read: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        self._value = float(value)

    def follow(self, read: Callable[[], float]) -> None:
        """From now on the value is what `read` returns at the time of the scrape."""
        self._read = read

    @property
    def value(self) -> float:
        return self._value if self._read is None else float(self._read())

    def point(self) -> Point:
        return [self.value]


class Histogram:
    """Counts per bucket and a sum. `bounds` are inclusive upper ends in rising order; +Inf is implied."""

    __slots__ = ("_bounds", "_counts", "_lock", "_pending", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._pending: list[float] = []
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        pending = self._pending
        pending.append(value)
        if len(pending) >= FOLD_AT:
            self._fold()

    def _fold(self) -> None:
        """Sorts the waiting observations into buckets.

        `observe` never takes the lock: only the values seen at the start are folded and then cut off the front. Both
        list operations are atomic, so a value appended meanwhile waits for the next fold.
        """
        with self._lock:
            size = len(self._pending)
            chunk = self._pending[:size]
            del self._pending[:size]
            for value in chunk:
                self._counts[bisect.bisect_left(self._bounds, value)] += 1
            self._sum += sum(chunk)

    @property
    def count(self) -> int:
        return int(sum(self.point()[:-1]))

    @property
    def sum(self) -> float:
        return self.point()[-1]

    def point(self) -> Point:
        self._fold()
        with self._lock:
            return [*self._counts, self._sum]


@dataclass(frozen=True)
class Description:
    """A metric as the page names it. `join` says how the values of several workers become one."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    join: Join
    bounds: tuple[float, ...] = ()


class Family(Generic[T]):
    """All children of one metric, by label values. `labels(...)` is a dict look-up; keep the child on hot paths."""

    def __init__(self, description: Description, make: Callable[[], T]) -> None:
        self.description = description
        self._make = make
        self._children: dict[tuple[str, ...], T] = {}
        self._lock = threading.Lock()

    def labels(self, *values: object) -> T:
        """The child for these label values, in the order of the description. ValueError for a wrong number of them."""
        key = tuple(map(str, values))
        child = self._children.get(key)
        return child if child is not None else self._add(key)

    def _add(self, key: tuple[str, ...]) -> T:
        if len(key) != len(self.description.labels):
            raise ValueError(f"{self.description.name}: expected labels {self.description.labels}, received {key}")
        with self._lock:
            return self._children.setdefault(key, self._make())

    def remove(self, **labels: str) -> None:
        """Forgets every child whose labels have these values (a version that is gone)."""
        at = {self.description.labels.index(name): value for name, value in labels.items()}
        with self._lock:
            self._children = {
                key: child for key, child in self._children.items() if any(key[i] != v for i, v in at.items())
            }

    def children(self) -> Mapping[tuple[str, ...], T]:
        return dict(self._children)


class Book:
    """Every family of a process: makes them, takes snapshots of them and writes the page."""

    def __init__(self) -> None:
        self._families: dict[str, Family[Any]] = {}

    def counter(self, name: str, *labels: str) -> Family[Counter]:
        return self._keep(Family(Description(name, "counter", labels, "sum"), Counter))

    def gauge(self, name: str, *labels: str, join: Join = "sum") -> Family[Gauge]:
        return self._keep(Family(Description(name, "gauge", labels, join), Gauge))

    def derived(self, name: str, read: Callable[[], float]) -> None:
        """A counter without labels that costs nothing until somebody looks: `read` works it out; it may not fall."""
        self._keep(Family(Description(name, "counter", (), "sum"), Gauge)).labels().follow(read)

    def histogram(self, name: str, *labels: str, bounds: Sequence[float]) -> Family[Histogram]:
        ends = tuple(bounds)
        return self._keep(Family(Description(name, "histogram", labels, "sum", ends), lambda: Histogram(ends)))

    def _keep(self, family: Family[T]) -> Family[T]:
        if family.description.name in self._families:
            raise ValueError(f"{family.description.name}: there is a metric of this name already")
        self._families[family.description.name] = family
        return family

    def snapshot(self, kinds: Iterable[str] = ("counter", "gauge", "histogram")) -> Snapshot:
        return {
            name: [(list(key), child.point()) for key, child in family.children().items()]
            for name, family in self._families.items()
            if family.description.kind in kinds
        }

    def counted(self, name: str) -> float:
        """The sum of a counter's children; 0 where there is no such counter."""
        family = self._families.get(name)
        if family is None or family.description.kind != "counter":
            return 0.0
        return float(sum(child.value for child in family.children().values()))

    def page(self, snapshots: Iterable[Snapshot]) -> bytes:
        """The Prometheus text of several workers together, metrics in the order of their names."""
        every = list(snapshots)
        lines: list[str] = []
        for name in sorted(self._families):
            description = self._families[name].description
            lines.append(f"# TYPE {name} {description.kind}")
            for key, point in sorted(joined(description.join, (s.get(name, []) for s in every)).items()):
                lines += _lines(description, key, point)
        return ("\n".join(lines) + "\n").encode()


def joined(how: Join, several: Iterable[Iterable[tuple[list[str], Point]]]) -> dict[tuple[str, ...], Point]:
    """Points of several workers, by label values: added, or the largest or smallest of them."""
    combine: dict[Join, Callable[[float, float], float]] = {"sum": lambda a, b: a + b, "max": max, "min": min}
    found: dict[tuple[str, ...], Point] = {}
    for points in several:
        for labels, point in points:
            before = found.get(tuple(labels))
            found[tuple(labels)] = point if before is None else list(map(combine[how], before, point))
    return found


def merged(first: Snapshot, second: Snapshot) -> Snapshot:
    """Two snapshots of counters and histograms added up."""
    return {
        name: [(list(k), p) for k, p in joined("sum", (first.get(name, []), second.get(name, []))).items()]
        for name in {**first, **second}
    }


def _lines(description: Description, key: tuple[str, ...], point: Point) -> list[str]:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(description.labels, key, strict=True))
    name = description.name
    if description.kind != "histogram":
        return [f"{name}{{{labels}}} {_number(point[0])}"]
    before = f"{name}_bucket{{{labels}," if labels else f"{name}_bucket{{"
    ends = [f"{bound:g}" for bound in description.bounds] + ["+Inf"]
    cumulative = list(itertools.accumulate(int(count) for count in point[:-1]))
    lines = [f'{before}le="{end}"}} {count}' for end, count in zip(ends, cumulative, strict=True)]
    return [*lines, f"{name}_sum{{{labels}}} {_number(point[-1])}", f"{name}_count{{{labels}}} {cumulative[-1]}"]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(value: str) -> str:
    """Backslash and quote as TensorFlow Serving escapes them; a line break too, which would end the sample."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
