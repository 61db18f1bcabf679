"""The xla engine on PJRT: StableHLO compiled for one static shape, run on jaxlib's client of the cpu, gpu or tpu.

Needs no TensorFlow. The weights are device buffers shared by all executables of a plan; on CPU they are the mapped
pages of the plan's weights file themselves. A target's folder (artifacts.py) gains an executable per variant; the
module beside it is what it can be compiled from again. Variants: `pjrt` on a CPU; `gpu` and `tpu` on accelerators,
which compute products in float32 there, and `gpu+tf32`, `tpu+bf16-products` with the accelerator's own rounding.

With several accelerators each has the weights and every executable, and calls take turns. A replica may be spread over
several of them (sharding.py); "device" then means such a group.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer import sharding, whole
from tfopt_optimizer.engines import artifacts, modules, pjrt, weights
from tfopt_optimizer.engines.artifacts import MODULE
from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Prepared, Runner, Target
from tfopt_optimizer.engines.limits import Bounds, Within
from tfopt_optimizer.errors import (
    EngineError,
    NeedsConversion,
    NotLowerable,
    OutOfMemory,
    first_line,
)

PJRT = "pjrt"
Putters = list[tuple[str, Callable[[np.ndarray], Any]]]


class Replicas:
    """The PJRT client of this process with one plan's weights on each of its devices."""

    def __init__(self, place: Place) -> None:
        self.client = pjrt.client(place.intra_op_threads, place.device)
        self._plan_dir = place.plan_dir
        self._arrays: list[np.ndarray] = []
        self._buffers: dict[tuple[int, int], Any] = {}  # (device, number of the weights)

    def weights(self, numbers: Sequence[int], device: int = 0) -> list[Any]:
        for number, array in zip(numbers, self._read(numbers), strict=True):
            if (device, number) not in self._buffers:
                self._buffers[device, number] = self.client.put(array, device)
        return [self._buffers[device, number] for number in numbers]

    def _read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        if any(n >= len(self._arrays) for n in numbers):
            self._arrays = weights.read(self._plan_dir)
        return [self._arrays[n] for n in numbers]

    def compile(self, target: Target, device: int = 0) -> pjrt.Executable:
        """Compiles the target's module. Raises jaxlib's JaxRuntimeError."""
        folder, parts = self._plan_dir / target.folder, self.client.parts
        module = module_for(folder, target.variant)
        if parts > 1:
            meta = artifacts.read_meta(folder)
            arrays = self._read(meta.weights)
            cut = [sharding.text(a.ndim, sharding.axis(a.shape, a.nbytes, parts), parts) for a in arrays]
            module = modules.partitioned(module, parts, [sharding.WHOLE] * len(meta.inputs) + cut)
        return self.client.compile(module, device)

    def open(self, target: Target, note: Callable[[str], None]) -> XlaRunner:
        """The runner of a finished plan. An executable that does not load is compiled again, which `note` tells.

        OutOfMemory when the device has no room for it.
        """
        path = self._plan_dir / target.folder / artifacts.executable(target.variant)
        try:
            return self.runner(target, [self._load(path, target, d, note) for d in range(self.client.count)])
        except pjrt.runtime_error() as error:
            raise pjrt.failure(error) from error

    def _load(self, path: Path, target: Target, device: int, note: Callable[[str], None]) -> pjrt.Executable:
        try:
            return self.client.deserialize(path.read_bytes(), device)
        except (OSError, pjrt.runtime_error()) as error:
            note(f"{target.folder}: the executable does not load ({first_line(error)}); compiling its module again")
            return self.compile(target, device)

    def runner(self, target: Target, executables: Sequence[pjrt.Executable]) -> XlaRunner:
        """`executables`: one per device. Raises jaxlib's JaxRuntimeError when the weights do not fit."""
        meta = artifacts.read_meta(self._plan_dir / target.folder)
        assert target.shapes is not None
        shapes, types = target.shapes, {t.name: dtypes.to_numpy(t.dtype) for t in target.signature.inputs}
        replicas = [
            Replica(
                executable.execute,
                [(n, self.client.putter(tuple(shapes[n]), types[n], device)) for n in meta.inputs],
                self.weights(meta.weights, device),
            )
            for device, executable in enumerate(executables)
        ]
        return XlaRunner(replicas, meta.outputs, meta.limits)


class Replica(NamedTuple):
    """An executable on one device: how its inputs get there, and its weights, which are there."""

    execute: Callable[[Sequence[Any]], Sequence[Any]]
    putters: Putters
    weights: list[Any]


class XlaRunner:
    """Runs one executable, by turns on each device. Feeds must have exactly its shapes and dtypes: the caller pads and
    checks. OutOfMemory when a device has no room for the call."""

    def __init__(self, replicas: Sequence[Replica], outputs: Sequence[str], limits: Bounds) -> None:
        self._check = Within(limits)
        self._replicas = tuple(replicas)
        self._next = itertools.cycle(self._replicas).__next__  # one call of C code: threads may share it
        self._outputs = list(enumerate(outputs))
        self._errors = pjrt.runtime_error()

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        to_numpy = pjrt.to_numpy
        self._check(feeds)
        execute, putters, held = self._next()
        try:
            found = execute([put(feeds[name]) for name, put in putters] + held)
            return {name: to_numpy(found[i]) for i, name in self._outputs if not outputs or name in outputs}
        except self._errors as error:
            raise pjrt.failure(error) from error

    def close(self) -> None:
        self._next, self._replicas = _closed, ()


def _closed() -> Replica:
    raise EngineError("UNAVAILABLE", "the model is unloaded")


def module_for(folder: Path, variant: str) -> bytes:
    """The folder's module as a variant compiles it. NeedsConversion when there is none yet."""
    try:
        module = (folder / MODULE).read_bytes()
    except FileNotFoundError as error:
        raise NeedsConversion("there is no StableHLO module yet") from error
    if variant == PJRT:
        return module
    return modules.for_accelerator(module, len(artifacts.read_meta(folder).inputs), exact="+" not in variant)


class Opener:
    """Opens the runners of a finished plan."""

    def __init__(self, place: Place, load_tensorflow: Callable[[], Any]) -> None:
        self._replicas = Replicas(place)

    def runner(self, target: Target, note: Callable[[str], None]) -> Runner:
        return self._replicas.open(target, note)


class Worker:
    """The xla engine in a worker process of the optimizer."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place, self._replicas = place, Replicas(place)
        self._runners: dict[tuple[str, str], XlaRunner] = {}
        return {PJRT: ""}

    def prepare(self, target: Target) -> Prepared:
        started, folder = time.perf_counter(), self._place.plan_dir / target.folder
        dynamic = [r for r in modules.results(module_for(folder, target.variant)) if "?" in r]
        if dynamic:
            raise NotLowerable(f"a result's shape depends on the values: {dynamic[0]}")
        try:
            executable = self._replicas.compile(target)
            blob = executable.serialize()
            self._runners[target.folder, target.variant] = self._replicas.runner(target, [executable])
        except pjrt.runtime_error() as error:
            failure = pjrt.failure(error)
            if isinstance(failure, OutOfMemory):
                raise failure from error
            raise NotLowerable(f"XLA does not compile it: {first_line(error)}") from error
        whole.write(folder / artifacts.executable(target.variant), blob)
        memory = len(blob) + executable.temporary_bytes()
        return Prepared(time.perf_counter() - started, memory, target.folder)

    def runner(self, target: Target) -> Runner:
        return self._runners[target.folder, target.variant]

    def release(self, target: Target) -> None:
        self._runners.pop((target.folder, target.variant), None)
