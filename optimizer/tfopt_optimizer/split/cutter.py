"""Cuts a signature: writes its program, and each device segment as a SavedModel that engines convert like any other.

The device segments get few inputs: look-ups and numbers with one row each lie side by side in one matrix per type. What
XLA cannot lower returns to the host, with its words as the reason, and the cut is made again.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt_optimizer import ops, saved_model
from tfopt_optimizer.engines.base import Feeds, Place, Target
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.placement import PLACED
from tfopt_optimizer.plan import Shape
from tfopt_optimizer.split import attributes, packing, partition, program, shown, stored, strays
from tfopt_optimizer.split.emit import Emitter
from tfopt_optimizer.split.graph import Node, crosses, node_of
from tfopt_optimizer.split.hostops import HASHES, ROWS, refusal
from tfopt_optimizer.split.observe import Observer, Seen
from tfopt_optimizer.split.packing import Input
from tfopt_optimizer.split.partition import DEVICE, Cut, Segment
from tfopt_optimizer.split.program import HOST_GRAPH, Pack, Program, Stage, Step
from tfopt_optimizer.split.session import UNSAVED, GraphWriter
from tfopt_optimizer.split.source import Source
from tfopt_optimizer.split.strays import Strays
from tfopt_optimizer.split.worth import FEW_INPUTS

TRIES = 30
SMALL, SUMS = 1 << 28, 3  # so many sums of numbers below this are far from 32 bits
_LOOKING = frozenset({
    "GatherV2", "ResourceGather", "Gather", "Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual",
})  # fmt: skip
SIGNATURE = "serving_default"


class Cutter:
    """One signature on its way into `folder`. `samples`: feeds of it, from which shapes are learnt; may be empty."""

    def __init__(self, place: Place, tf: Any, source: Source, folder: Path, samples: Sequence[Feeds] = ()) -> None:
        self._place, self._tf, self._source, self._folder, self._samples = place, tf, source, folder, samples
        self._graph = source.graph
        self._emitter = Emitter(tf, source)
        self._store = stored.Writer(folder)
        self._tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._constants: dict[str, np.ndarray] = {}
        self._strays: dict[int, Strays] = {}
        self._observer: Observer | None = None
        self._seen = Seen()

    def cut(self, target: Target) -> Program:
        """Writes the folder. NotLowerable says why this signature is not split."""
        forced = self._not_placed()
        for _ in range(TRIES):
            found = self._sound(forced, target)
            inputs = {i: self._inputs(s) for i, s in enumerate(found.segments) if s.where == DEVICE}
            trouble = self._trouble(found, inputs, target)
            if not trouble:
                return self._write(found, inputs)
            forced |= trouble
        raise NotLowerable(f"no cut compiles after {TRIES} operations were moved to the host: {forced}")

    def _not_placed(self) -> dict[str, str]:
        """Where a converted model says what runs on the device, everything else stays on the host. Its converter's own
        EnsureShape goes along."""
        if not any(PLACED in node.attr for node in self._source.definition.node):
            return {}
        graph, definitions = self._graph, self._source.definitions
        free = [n for n in graph.nodes if n in graph.bound - graph.fed and graph.nodes[n].op != "EnsureShape"]
        return {n: "the converted model does not place it" for n in free if PLACED not in definitions[n].attr}

    def _sound(self, forced: dict[str, str], target: Target) -> Cut:
        """The cut whose device segments have known shapes and refuse what TensorFlow refuses; adds to `forced` what had
        to go to the host for that."""
        while True:
            found = self._partition(forced)
            self._refuse(found)
            if self._observe(found, target):
                continue  # with more shapes known the borders may lie elsewhere
            trouble = self._unstable(found) or self._stray(found)
            if not trouble:
                return found
            forced |= trouble

    def _partition(self, forced: Mapping[str, str]) -> Cut:
        """Light work returns to the host where Python can do it; to TensorFlow only where that is needed anyway."""
        kernels = ops.registry().compiled
        found = partition.partition(self._graph, kernels, self._runs_here, forced)
        if all(self._runs_here(self._graph.nodes[n]) for n in _on_host(found)):
            return found
        return partition.partition(self._graph, kernels, lambda node: node.op not in UNSAVED, forced)

    def _refuse(self, cut: Cut) -> None:
        if not cut.device_nodes:
            whys = Counter(why for why in cut.reasons.values() if why != partition.LIGHT)
            most = "".join(f": {why}" for why, _ in whys.most_common(1))
            raise NotLowerable(f"no part of it is worth a device{most}")
        if not _on_host(cut) and len(self._graph.inputs) <= FEW_INPUTS:
            raise NotLowerable("no operation has to stay on the host")
        for segment in cut.segments:
            handle = next((t for t in segment.inputs if not crosses(self._graph.tensor(t))), "")
            if handle:
                maker = self._graph.nodes[node_of(handle)]
                raise NotLowerable(f"the handle that {maker.op} makes would have to cross a border ({maker.name})")

    def _observe(self, cut: Cut, target: Target) -> bool:
        """Learns the shapes of what crosses where the graph does not tell them; whether there were any."""
        borders = dict.fromkeys(t for s in cut.segments if s.where == DEVICE for t in s.inputs)
        wanted = [t for t in borders if t not in self._seen.shapes and not self._known(t, target)]
        if not wanted or not self._samples:
            return False
        if self._observer is None:
            independent = target.rows is not None
            info = target.signature
            self._observer = Observer(self._place, self._source, info, self._samples, independent=independent)
        self._seen.add(self._observer.look(wanted))
        seen, rows = {**self._graph.seen, **self._seen.shapes}, frozenset(self._seen.rows)
        self._graph = dataclasses.replace(self._graph, seen=seen, rows=rows)
        return True

    def _known(self, tensor: str, target: Target) -> bool:
        """Whether the number of rows decides its shape, or nothing does."""
        shape, rows = self._graph.shape(tensor), self._graph.has_rows(tensor)
        if target.rows is None or shape is None:
            return False
        return None not in (shape[1:] if rows else shape)

    def _unstable(self, cut: Cut) -> dict[str, str]:
        """Who takes what has another shape in every call: no device segment can."""
        found: dict[str, str] = {}
        for segment in cut.segments:
            wild = self._seen.unstable.intersection(segment.inputs) if segment.where == DEVICE else ()
            for name in segment.nodes if wild else ():
                made = [self._graph.nodes[node_of(t)].op for t in self._graph.nodes[name].inputs if t in wild]
                if made:
                    found[name] = f"the shape of what {made[0]} gives depends on values"
        return found

    def _stray(self, cut: Cut) -> dict[str, str]:
        for index, segment in enumerate(cut.segments):
            if segment.where == DEVICE:
                found = strays.find(self._graph, segment, self._emitter, self._source.shape, self._possible)
                if found.trouble:
                    return dict(found.trouble)
                self._strays[index] = found
        return {}

    def _possible(self, tensor: str) -> np.ndarray | None:
        """All values that a look-up or a hash can give; None for what else there is."""
        node = self._graph.nodes[node_of(tensor)]
        if node.op in HASHES:
            return np.array([0, int(self._attributes(node)["num_buckets"]) - 1])
        if node.op != "LookupTableFindV2" or node.outputs[0].dtype not in ("int32", "int64"):
            return None
        default = node.inputs[2]
        if node_of(node.inputs[0]) not in self._graph.tables or node_of(default) in self._graph.bound:
            return None
        return np.append(self._table(node_of(node.inputs[0]))[1], self._constant(default))

    def _runs_here(self, node: Node) -> bool:
        return not self._refusal(node)

    def _refusal(self, node: Node) -> str:
        if len(node.outputs) > 1 or (not node.outputs and node.op != "Assert"):
            return f"{node.op} runs in TensorFlow alone"
        reason = refusal(node.op, self._attributes(node))
        inputs = self._values(node)
        if not reason and any(node_of(inputs[i]) in self._graph.bound for i in ROWS[node.op].constant):
            reason = f"{node.op} with such inputs runs in TensorFlow alone"
        return reason

    def _attributes(self, node: Node) -> dict[str, str]:
        found = attributes.read(self._source.definitions[node.name])
        if node.op == "LookupTableFindV2" and node_of(node.inputs[0]) in self._graph.tables:
            keys, values = self._table(node_of(node.inputs[0]))
            if keys.ndim == values.ndim == 1:
                found |= {"keys": str(self._store.add(keys)), "values": str(self._store.add(values))}
        return found

    def _table(self, node: str) -> tuple[np.ndarray, np.ndarray]:
        if node not in self._tables:
            self._tables[node] = self._source.table(node)
        return self._tables[node]

    def _inputs(self, segment: Segment) -> tuple[Input, ...]:
        return packing.pack(self._graph, segment.inputs, self._fits_int32)

    def _fits_int32(self, tensor: str) -> bool:
        """Whether 32 bits hold all that it can be, and all that is computed of it before it chooses or compares."""
        values = self._possible(tensor)
        if values is None or values.min() <= -SMALL or values.max() >= SMALL:
            return False
        return self._only_chooses(tensor, SUMS)

    def _only_chooses(self, tensor: str, sums: int) -> bool:
        """Sums of 64-bit numbers stay 64-bit sums, which OpenVINO refuses; but Keras adds the number of rows to an
        index in case it is negative, and selects."""
        for node in self._graph.nodes.values():
            if tensor not in node.inputs or node.op in _LOOKING:
                continue
            others = [t for t in node.inputs if t != tensor]
            small = node.op in ("Add", "AddV2") and all(abs(self._emitter.scalar(t) or SMALL) < SMALL for t in others)
            if not (small or node.op in ("Select", "SelectV2")) or not sums:
                return False
            if not self._only_chooses(f"{node.name}:0", sums - 1):
                return False
        return True

    def _constant(self, tensor: str) -> np.ndarray:
        if tensor not in self._constants:
            (self._constants[tensor],) = self._emitter.values([tensor])
        return self._constants[tensor]

    def _trouble(self, cut: Cut, inputs: Mapping[int, Sequence[Input]], target: Target) -> dict[str, str]:
        """The operation of a segment that XLA does not lower for the target's shapes, with its words."""
        for index, given in inputs.items():
            shapes, segment = self._static(given, target), cut.segments[index]
            if shapes is None:
                continue  # known only at run time: the engines will tell
            message = self._emitter.lower(given, segment.outputs, shapes)
            named = [n for n in re.findall(r"\{\{node ([^}]+)\}\}|node `([^`]+)`", message) for n in n if n]
            ours = [n for n in named if n in segment.nodes]
            if ours:
                return {ours[0]: self._emitter.reason(message)}
        return {}

    def _static(self, inputs: Sequence[Input], target: Target) -> list[tuple[int, ...]] | None:
        """The inputs' shapes for the target's; None where they are known only at run time."""
        assert target.shapes is not None
        seen = self._seen.exact.get(program.key(target.shapes, rows=target.rows is not None), {})
        found = [program.filled(_exact(i, seen), target.rows) or i.static(target.rows) for i in inputs]
        return None if any(s is None for s in found) else [s for s in found if s is not None]

    def _write(self, cut: Cut, inputs: Mapping[int, Sequence[Input]]) -> Program:
        stages, session = list[Stage](), GraphWriter(self._source, self._store)
        for index, segment in enumerate(cut.segments):
            if segment.where == DEVICE:
                stages.append(self._device(f"d{index}", segment, inputs[index], self._strays[index]))
            elif all(self._runs_here(self._graph.nodes[n]) for n in segment.nodes):
                stages.append(Stage("host", tuple(self._step(n) for n in segment.nodes)))
            else:
                effects = tuple(n for n in segment.nodes if n in self._graph.effects)
                feeds = session.add(segment.inputs, segment.outputs, effects)
                fetches = segment.outputs
                stages.append(Stage("host", tensorflow=True, feeds=feeds, fetches=fetches, effects=effects))
        wanted = [t for s in stages for step in s.steps for t in step.inputs] + list(self._graph.outputs.values())
        free = [t for t in dict.fromkeys(wanted) if node_of(t) not in self._graph.bound]
        constants = {t: self._store.add(self._constant(t)) for t in free if self._graph.tensor(t).dtype != "resource"}
        in_session = {i for i, stage in enumerate(stages) if stage.tensorflow}
        view = shown.segments(self._graph, cut, inputs, in_session)
        if in_session:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / HOST_GRAPH).write_bytes(session.graph())
        found = Program(
            self._graph.inputs,
            self._graph.outputs,
            tuple(stages),
            constants,
            view,
            session.resources,
            self._exact(cut, inputs),
        )
        program.write(found, self._folder)
        return found

    def _exact(self, cut: Cut, inputs: Mapping[int, Sequence[Input]]) -> program.Exact:
        """What was seen of the device segments' inputs, for every set of input shapes."""
        found: dict[str, dict[str, dict[str, Shape]]] = {}
        for group, shapes in self._seen.exact.items():
            for index, given in inputs.items():
                there = {i.name: shape for i in given if (shape := _exact(i, shapes)) is not None}
                found.setdefault(group, {})[f"d{index}"] = there
        return found

    def _step(self, name: str) -> Step:
        node = self._graph.nodes[name]
        outputs = tuple(f"{name}:{p}" for p in range(max(1, len(node.outputs))))
        return Step(node.op, self._values(node), outputs, self._attributes(node))

    def _values(self, node: Node) -> tuple[str, ...]:
        """Its inputs without the table: that one is in the attributes."""
        return tuple(t for t in node.inputs if self._graph.tensor(t).dtype != "resource")

    def _device(self, folder: str, segment: Segment, inputs: Sequence[Input], strays: Strays) -> Stage:
        place = self._folder / folder
        results = self._emitter.save(place, inputs, segment.outputs)
        (signature,) = (s for s in saved_model.read_signatures(place) if s.key == SIGNATURE)
        packs = tuple(Pack(i.name, i.dtype, i.parts, i.widths) for i in inputs)
        return Stage(
            "device",
            folder=folder,
            signature=signature,
            packs=packs,
            results=results,
            limits=strays.limits,
            columns=strays.columns,
        )


def _on_host(cut: Cut) -> list[str]:
    return [n for s in cut.segments if s.where != DEVICE for n in s.nodes]


def _exact(one: Input, seen: Mapping[str, Shape]) -> Shape | None:
    """An input's shape where those of its tensors were seen."""
    first = seen.get(one.parts[0])
    return (first[0], sum(one.widths)) if one.widths and first else first
