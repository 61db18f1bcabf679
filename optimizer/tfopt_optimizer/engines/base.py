"""The joint between the optimizer, the server and every engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tfopt_optimizer.device import ON_CPU, Device
from tfopt_optimizer.plan import Shortening, SignatureInfo

Arrays = dict[str, np.ndarray]
Feeds = Mapping[str, np.ndarray]


class Runner(Protocol):
    """Runs one signature on one engine. Thread-safe; native code runs without the GIL.

    Strings are object arrays of bytes. `outputs` asks for a subset by name (all by default). Raises EngineError.
    Returned arrays may be read-only views of the engine's buffers.
    """

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays: ...

    def close(self) -> None: ...


class SideBySide(Protocol):
    """What a runner may be besides: one that answers calls of shapes of their own, `streams` of them at a time."""

    streams: int

    def each(self, calls: Sequence[Feeds], outputs: Sequence[str] | None = None) -> list[Arrays]: ...


@dataclasses.dataclass(frozen=True)
class Target:
    """One thing to run: a signature on one variant of an engine.

    `shapes` are the full static input shapes, None for runners that take any shapes. `folder` is where artifacts of
    this target lie, relative to the plan directory ("" when it has none). `rows` is the number of rows where rows are
    independent, else None. `engine` is whose variant it is: one worker may run several (split.py). `varying`: the
    signature has buckets of several inner shapes. `source`: the folder of a graph that stands for the model's own while
    the plan is made (rewritten.py), "" where engines read the SavedModel. `open`: where the engine can, one runner
    takes any number of rows up to `rows`, at any inner sizes up to those of `shapes`. `lengths`: how long rows are, of
    which there may be less than `shapes` say.
    """

    signature: SignatureInfo
    variant: str
    shapes: Mapping[str, tuple[int, ...]] | None = None
    folder: str = ""
    rows: int | None = None
    engine: str = ""
    varying: bool = False
    source: str = ""
    open: bool = False
    lengths: Shortening | None = None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What preparing a target cost: seconds (compiling) and bytes (executable and its temporary buffers).

    `artifact` is the folder, relative to the plan directory, that the runner needs when the plan is opened: the
    target's own, or one that several targets share; `artifact_bytes` is its size, which is mapped into memory.
    `tensorflow`: the runner needs TensorFlow in the server. `any_rows`: it takes fewer rows than the target's as they
    are, nothing is padded.
    """

    compile_s: float | None = None
    memory_bytes: int | None = None
    artifact: str = ""
    artifact_bytes: int = 0
    tensorflow: bool = False
    any_rows: bool = False


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an engine works: the model, the plan directory with the artifacts, the threads it may use, the device.

    `cut`: the model is a device segment; split/strays.py sees to it that its look-ups stay within the weights.
    """

    model_dir: Path
    plan_dir: Path
    tags: tuple[str, ...]
    intra_op_threads: int
    inter_op_threads: int
    cut: bool = False
    device: Device = ON_CPU


class Engine(Protocol):
    """What a worker process holds: opened once, then any number of targets."""

    def open(self, place: Place) -> Mapping[str, str]:
        """Loads what all targets share. Returns variant -> "" when usable, else the reason why it is not."""
        ...

    def prepare(self, target: Target) -> Prepared: ...

    def runner(self, target: Target) -> Runner: ...

    def release(self, target: Target) -> None:
        """Frees what `prepare` made for this target."""
        ...


def own_bytes() -> int:
    """Memory of this process that is no file's: what a runner added is the difference, about."""
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("RssAnon:") + 1]) << 10
