"""Runs a program: host steps in Python, or in a session of TensorFlow's where Python has no such operation, device
segments on an engine's runner. Thread-safe; TensorFlow is imported for such a program alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Runner
from tfopt_optimizer.engines.limits import Part
from tfopt_optimizer.errors import Declined
from tfopt_optimizer.split import hostops
from tfopt_optimizer.split.program import HOST_GRAPH, Pack, Program, Stage, Step
from tfopt_optimizer.split.stored import Reader

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, np.ndarray]
Action = Callable[[Tensors], None]
_HASH = "StringToHashBucketFast"


class Host:
    """The host side of a program, opened once for all buckets: its tables are in memory once."""

    def __init__(self, program: Program, folder: Path, place: Place) -> None:
        self.program, self._reader = program, Reader(folder)
        self._session: Any = self._opened(folder, place) if program.needs_tensorflow else None
        self.constants = {name: self._reader.array(number) for name, number in program.constants.items()}
        fused = {stage.folder: self._fused(stage) for stage in program.devices}
        inside = {t for lookups in fused.values() for t in lookups}
        self._feeders = {stage.folder: self._feeder(stage, fused[stage.folder]) for stage in program.devices}
        self._actions = {
            id(stage): self._steps([step for step in stage.steps if step.outputs[0] not in inside])
            if not stage.tensorflow
            else [self._part(stage)]
            for stage in program.stages
        }

    def _opened(self, folder: Path, place: Place) -> Any:
        from tfopt_optimizer.split import session

        graph = (folder / HOST_GRAPH).read_bytes()
        return session.HostSession(place, graph, self.program.resources, self._reader.array)

    def _part(self, stage: Stage) -> Action:
        run, names = self._session.part(stage.feeds, stage.fetches, stage.effects), stage.fetches

        def act(tensors: Tensors) -> None:
            tensors.update(zip(names, run(tensors), strict=True))

        return act

    def host_stage(self, stage: Stage, tensors: Tensors) -> None:
        for act in self._actions[id(stage)]:
            act(tensors)

    def device_feeds(self, stage: Stage, tensors: Tensors) -> Arrays:
        for name, (low, high) in stage.limits.items():
            _hold(tensors[name], low, high)
        for some in stage.columns:
            part = Part(some.tensor, some.axis, some.start, some.stop)
            _hold(part.of(tensors[some.tensor]), some.low, some.high)
        return {name: feed(tensors) for name, feed in self._feeders[stage.folder]}

    def _steps(self, steps: Sequence[Step]) -> list[Action]:
        """In order of their depth, so that hashes of the same depth are computed together: 26 columns of words in 80 us
        in place of 26 times 33."""
        depth: dict[str, int] = {}
        layers: dict[int, list[Step]] = {}
        for step in steps:
            own = 1 + max((depth.get(name, 0) for name in step.inputs), default=0)
            depth |= dict.fromkeys(step.outputs, own)
            layers.setdefault(own, []).append(step)
        found: list[Action] = []
        for _, layer in sorted(layers.items()):
            hashes = [step for step in layer if step.op == _HASH]
            found += [self._action(step) for step in layer if step.op != _HASH]
            found += [_hashes(hashes)] if hashes else []
        return found

    def _action(self, step: Step) -> Action:
        function, inputs = self._function(step)
        (output,) = step.outputs

        def act(tensors: Tensors) -> None:
            tensors[output] = function(*[tensors[name] for name in inputs])

        return act

    def _function(self, step: Step) -> tuple[Callable[..., np.ndarray], list[str]]:
        row = hostops.ROWS[step.op]
        given = [self.constants[step.inputs[i]] for i in row.constant]
        inputs = [name for i, name in enumerate(step.inputs) if i not in row.constant]
        return row.make(step.attributes, given, self._reader), inputs

    def _fused(self, stage: Stage) -> dict[str, Step]:
        """The look-ups whose results nothing but this stage's packs asks for."""
        steps = {s.outputs[0]: s for st in self.program.stages for s in st.steps if s.op == "LookupTableFindV2"}
        packed = {p for pack in stage.packs if pack.widths for p in pack.parts}
        others = [*self.program.outputs.values(), *stage.limits, *(c.tensor for c in stage.columns)]
        for other in self.program.stages:
            others += [t for s in other.steps for t in s.inputs]
            others += other.feeds.values()
            others += [t for p in other.packs if other is not stage or not p.widths for t in p.parts]
        return {t: steps[t] for t in packed if t in steps and t not in others}

    def _feeder(self, stage: Stage, fused: Mapping[str, Step]) -> list[tuple[str, Callable[[Tensors], np.ndarray]]]:
        return [(pack.name, self._pack(pack, fused)) for pack in stage.packs]

    def _pack(self, pack: Pack, fused: Mapping[str, Step]) -> Callable[[Tensors], np.ndarray]:
        dtype = dtypes.to_numpy(pack.dtype)
        if not pack.widths:
            (part,) = pack.parts
            return lambda tensors: tensors[part].astype(dtype, copy=False)
        if all(p in fused for p in pack.parts) and set(pack.widths) == {1}:
            return _looked_up([self._table(fused[p]) for p in pack.parts], dtype)
        makers = [(p, self._lookup(fused[p]) if p in fused else None) for p in pack.parts]

        def run(tensors: Tensors) -> np.ndarray:
            arrays = [make(tensors) if make else tensors[name] for name, make in makers]
            rows = arrays[0].shape[0]
            return np.concatenate([a.reshape(rows, -1) for a in arrays], axis=1, dtype=dtype, casting="unsafe")

        return run

    def _lookup(self, step: Step) -> Callable[[Tensors], np.ndarray]:
        function, (keys,) = self._function(step)
        return lambda tensors: function(tensors[keys])

    def _table(self, step: Step) -> tuple[str, Callable[[Any], Any]]:
        default = self.constants[step.inputs[1]].item()
        table = self._reader.table(int(step.attributes["keys"]), int(step.attributes["values"]), default)
        return step.inputs[0], table.__getitem__


def _hashes(steps: Sequence[Step]) -> Action:
    buckets = [int(step.attributes["num_buckets"]) for step in steps]
    pairs = [(step.inputs[0], step.outputs[0]) for step in steps]

    def act(tensors: Tensors) -> None:
        found = hostops.hashed([tensors[text] for text, _ in pairs], buckets)
        tensors.update(zip([number for _, number in pairs], found, strict=True))

    return act


def _looked_up(tables: Sequence[tuple[str, Callable[[Any], Any]]], dtype: Any) -> Callable[[Tensors], np.ndarray]:
    """All look-ups of a request into one matrix [rows, tables].

    One row: 26 look-ups in 4 us. Many rows: one pass over all words, 45 ns each; numpy has nothing faster, for its own
    strings drop zeros at their end and sorting them costs more than hashing.
    """

    def run(tensors: Tensors) -> np.ndarray:
        rows = tensors[tables[0][0]].shape[0]
        if rows == 1:
            return np.array([[get(tensors[name].item()) for name, get in tables]], dtype)
        columns = [map(get, tensors[name].ravel().tolist()) for name, get in tables]
        flat = np.fromiter(itertools.chain.from_iterable(columns), dtype, rows * len(tables))
        return np.ascontiguousarray(flat.reshape(len(tables), rows).T)

    return run


class SplitRunner:
    """A program with its device segments ready for one set of static shapes."""

    def __init__(self, host: Host, devices: Mapping[str, tuple[Runner, Shapes]]) -> None:
        self._host, self._program = host, host.program
        self._devices = devices

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        tensors = dict(self._host.constants)
        for name, tensor in self._program.inputs.items():
            tensors[tensor] = feeds[name]
        for stage in self._program.stages:
            if stage.where == "host":
                self._host.host_stage(stage, tensors)
            else:
                self._device(stage, tensors)
        names = self._program.outputs
        return {name: tensors[names[name]] for name in (outputs or names)}

    def _device(self, stage: Stage, tensors: Tensors) -> None:
        runner, shapes = self._devices[stage.folder]
        given = self._host.device_feeds(stage, tensors)
        for name, array in given.items():
            if array.shape != shapes[name]:
                raise Declined("INVALID_ARGUMENT", f"the host part made {list(array.shape)} of it, not {shapes[name]}")
        found = runner(given)
        for name, tensor in stage.results.items():
            tensors[tensor] = found[name]

    def close(self) -> None:
        for runner, _ in self._devices.values():
            runner.close()


def _hold(array: np.ndarray, low: int, high: int) -> None:
    if array.size and not (array.min() >= low and array.max() <= high):  # NaN is neither
        raise Declined("INVALID_ARGUMENT", f"a look-up has {high + 1} entries, and is asked for another")
