"""The xla engine, variant `pjrt`: StableHLO compiled for one static shape, run on jaxlib's PJRT client.

Needs no TensorFlow. The weights are device buffers shared by all executables of a plan; on CPU they are the mapped
pages of the plan's weights file themselves. A target's folder (artifacts.py) gains `executable.pjrt`; the module beside
it is what it can be compiled from again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer.engines import artifacts, pjrt, weights
from tfopt_optimizer.engines.artifacts import EXECUTABLE, MODULE
from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Prepared, Runner, Target
from tfopt_optimizer.errors import Declined, EngineError, NeedsConversion, NotLowerable, first_line

PJRT = "pjrt"
Putters = list[tuple[str, Callable[[np.ndarray], Any]]]


class Device:
    """The PJRT client of this process with one plan's weights on it."""

    def __init__(self, plan_dir: Path, threads: int) -> None:
        self.client = pjrt.client(threads)
        self._plan_dir = plan_dir
        self._arrays: list[np.ndarray] = []
        self._buffers: dict[int, Any] = {}

    def weights(self, numbers: Sequence[int]) -> list[Any]:
        if any(n >= len(self._arrays) for n in numbers):
            self._arrays = weights.read(self._plan_dir)
        for number in numbers:
            if number not in self._buffers:
                self._buffers[number] = self.client.put(self._arrays[number])
        return [self._buffers[number] for number in numbers]

    def runner(self, folder: Path, executable: pjrt.Executable, target: Target) -> XlaRunner:
        meta = artifacts.read_meta(folder)
        assert target.shapes is not None
        types = {t.name: dtypes.to_numpy(t.dtype) for t in target.signature.inputs}
        putters = [(n, self.client.putter(tuple(target.shapes[n]), types[n])) for n in meta.inputs]
        return XlaRunner(executable, meta.outputs, putters, self.weights(meta.weights), meta.limits)


class XlaRunner:
    """Runs one executable. Feeds must have exactly its shapes and dtypes: the caller pads and checks."""

    def __init__(
        self,
        executable: pjrt.Executable,
        outputs: Sequence[str],
        putters: Putters,
        buffers: list[Any],
        limits: Mapping[str, tuple[int, int]],
    ) -> None:
        self._limits = tuple((name, *pair) for name, pair in limits.items())
        self._execute, self._putters, self._weights = executable.execute, putters, buffers
        self._outputs = list(enumerate(outputs))
        self._errors = pjrt.runtime_error()

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        to_numpy = pjrt.to_numpy
        for name, low, high in self._limits:
            array = feeds[name]
            if array.size and (array.min() < low or array.max() > high):
                raise Declined("INVALID_ARGUMENT", f"input {name!r} has values outside {low} to {high}")
        try:
            found = self._execute([put(feeds[name]) for name, put in self._putters] + self._weights)
            return {name: to_numpy(found[i]) for i, name in self._outputs if not outputs or name in outputs}
        except self._errors as error:
            raise EngineError("INTERNAL", str(error)) from error

    def close(self) -> None:
        self._weights = []


def compile_target(device: Device, folder: Path) -> tuple[pjrt.Executable, int]:
    """Compiles the folder's module and writes the executable beside it. Returns it with the memory it takes (bytes)."""
    executable = device.client.compile((folder / MODULE).read_bytes())
    blob = executable.serialize()
    part = folder / (EXECUTABLE + ".part")
    part.write_bytes(blob)
    part.replace(folder / EXECUTABLE)
    return executable, len(blob) + executable.temporary_bytes()


def open_runner(device: Device, plan_dir: Path, target: Target, note: Callable[[str], None]) -> XlaRunner:
    """The runner of a finished plan. An executable that does not load is compiled again, which `note` tells."""
    folder = plan_dir / target.folder
    try:
        executable = device.client.deserialize((folder / EXECUTABLE).read_bytes())
    except (OSError, pjrt.runtime_error()) as error:
        note(f"{target.folder}: the executable does not load ({first_line(error)}); compiling its module again")
        executable = device.client.compile((folder / MODULE).read_bytes())
    return device.runner(folder, executable, target)


class Opener:
    """Opens the runners of a finished plan."""

    def __init__(self, place: Place, load_tensorflow: Callable[[], Any]) -> None:
        self._plan_dir, self._device = place.plan_dir, Device(place.plan_dir, place.intra_op_threads)

    def runner(self, target: Target, note: Callable[[str], None]) -> Runner:
        return open_runner(self._device, self._plan_dir, target, note)


class Worker:
    """The xla engine in a worker process of the optimizer."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place = place
        self._device = Device(place.plan_dir, place.intra_op_threads)
        self._executables: dict[str, pjrt.Executable] = {}
        return {PJRT: ""}

    def prepare(self, target: Target) -> Prepared:
        started = time.perf_counter()
        try:
            module = (self._place.plan_dir / target.folder / MODULE).read_bytes()
        except FileNotFoundError as error:
            raise NeedsConversion("there is no StableHLO module yet") from error
        dynamic = [r for r in pjrt.results(module) if "?" in r]
        if dynamic:
            raise NotLowerable(f"a result's shape depends on the values: {dynamic[0]}")
        try:
            executable, memory = compile_target(self._device, self._place.plan_dir / target.folder)
        except pjrt.runtime_error() as error:
            raise NotLowerable(f"XLA does not compile it: {first_line(error)}") from error
        self._executables[target.folder] = executable
        return Prepared(time.perf_counter() - started, memory, target.folder)

    def runner(self, target: Target) -> Runner:
        return self._device.runner(self._place.plan_dir / target.folder, self._executables[target.folder], target)

    def release(self, target: Target) -> None:
        self._executables.pop(target.folder, None)
