"""A signature whose engine is a numpy function: y = 2x, with what tests need to see and to hold back."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from tfopt_optimizer.errors import Declined, EngineError
from tfopt_optimizer.pieces import pieces
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_server import logs

Arrays = dict[str, np.ndarray]
POISON = 666.0
ODD = 777.0


@dataclasses.dataclass(frozen=True)
class Route:
    rows: int | None
    group: Hashable | None
    reference: bool
    reason: str = ""
    bucket: Bucket | None = None


@dataclasses.dataclass(frozen=True)
class Bucket:
    batch: int | None
    engine: str
    static: bool
    cost_us: float
    run: Callable[..., Arrays]


class Engine:
    """Records the rows of every run. `gate` closed: runs wait. A row that is POISON fails the whole run; one that is
    ODD is declined where the engine is `picky`."""

    def __init__(self, picky: bool = False) -> None:
        self.picky = picky
        self.runs: list[list[float]] = []
        self.names: list[str] = []  # what a line that is logged meanwhile would name
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> Arrays:
        x = feeds["x"]
        self.runs.append(x[:, 0].tolist())
        self.names.append(logs.request_id.get())
        self.threads.append(threading.current_thread().name)
        self.entered.release()
        assert self.gate.wait(10)
        if self.picky and (x == ODD).any():
            raise Declined("INVALID_ARGUMENT", "777 is outside the table")
        if (x == POISON).any():
            raise EngineError("INVALID_ARGUMENT", f"poisoned: {int((x[:, 0] == POISON).sum())} of {len(x)} rows")
        found = {"y": 2 * x, "n": np.arange(len(x))}
        return found if outputs is None else {name: found[name] for name in outputs}


class Runner:
    """Buckets of 1, 4 and 8 rows of two floats, at the given cost, `per_row` or the same for all; everything else goes
    to plain TensorFlow."""

    def __init__(
        self,
        cost_us: float = 1000.0,
        *,
        merge: bool = True,
        row_independent: bool = True,
        static: bool = True,
        sizes: tuple[int, ...] = (1, 4, 8),
        key: str = "serving_default",
        per_row: bool = False,
    ) -> None:
        self.engine = Engine(picky=True)
        self.reference = Engine()
        self.info = SignatureInfo(
            key, "predict", (TensorInfo("x", "float", (None, 2)),), (TensorInfo("y", "float", (None, 2)),)
        )
        self.row_independent = row_independent
        self.has_reference = True
        self.merge = merge
        self.inner = None
        self.shortened = None
        self.buckets = sizes if row_independent else ()
        self._buckets = {n: Bucket(n, "fake", static, cost_us * (n if per_row else 1), self.engine.run) for n in sizes}
        self._exact = Bucket(None, "fake", True, cost_us, self.engine.run)

    def route(self, feeds: Mapping[str, np.ndarray]) -> Route:
        shape = feeds["x"].shape
        if len(shape) != 2 or shape[1] != 2 or shape[0] == 0:
            return Route(None, None, True, f"input 'x' is float32{list(shape)}")
        if not self.row_independent:
            return Route(None, None, False, bucket=self._exact)
        return Route(shape[0], "group", False)

    def bucket_for(self, rows: int) -> Bucket:
        return self._buckets[min((n for n in self.buckets if n >= rows), default=self.buckets[-1])]

    def buckets_for(self, rows: int) -> tuple[Bucket, ...]:
        return pieces(rows, [self._buckets[n] for n in self.buckets])

    def run_reference(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> Arrays:
        return self.reference.run(feeds, outputs)


def x(*values: float) -> Arrays:
    """A request with one row per value."""
    return {"x": np.array([[v, v] for v in values], np.float32).reshape(len(values), 2)}
