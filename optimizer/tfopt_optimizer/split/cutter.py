"""Cuts a signature: writes its program, and each device segment as a SavedModel that engines convert like any other.

The device segments get few inputs: look-ups and numbers with one row each lie side by side in one matrix per type. What
XLA cannot lower returns to the host, with its words as the reason, and the cut is made again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt_optimizer import ops, saved_model
from tfopt_optimizer.engines.base import Target
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.split import attributes, packing, partition, program, shown, stored
from tfopt_optimizer.split.emit import Emitter
from tfopt_optimizer.split.graph import Node, node_of
from tfopt_optimizer.split.hostops import ROWS, refusal
from tfopt_optimizer.split.packing import Input
from tfopt_optimizer.split.partition import DEVICE, Cut, Segment
from tfopt_optimizer.split.program import Pack, Program, Stage, Step
from tfopt_optimizer.split.source import Source
from tfopt_optimizer.split.worth import FEW_INPUTS

TRIES = 30
_GATHERS = frozenset({"GatherV2", "ResourceGather", "Gather"})
_LOOKING = _GATHERS | {"Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"}
SIGNATURE = "serving_default"


class Cutter:
    """One signature on its way into `folder`."""

    def __init__(self, tf: Any, source: Source, folder: Path) -> None:
        self._tf, self._source, self._folder = tf, source, folder
        self._graph = source.graph
        self._emitter = Emitter(tf, source)
        self._definitions = {node.name: node for node in source.definition.node}
        self._store = stored.Writer(folder)
        self._tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._constants: dict[str, np.ndarray] = {}

    def cut(self, target: Target) -> Program:
        """Writes the folder. NotLowerable says why this signature is not split."""
        forced: dict[str, str] = {}
        for _ in range(TRIES):
            found = partition.partition(self._graph, ops.registry().compiled, self._runs_here, forced)
            self._refuse(found)
            inputs = {i: self._inputs(s) for i, s in enumerate(found.segments) if s.where == DEVICE}
            trouble = self._trouble(found, inputs, target)
            if not trouble:
                return self._write(found, inputs)
            forced |= trouble
        raise NotLowerable(f"no cut compiles after {TRIES} operations were moved to the host: {forced}")

    def _refuse(self, cut: Cut) -> None:
        if not cut.device_nodes:
            raise NotLowerable("no part of it is worth a device")
        hosts = [n for s in cut.segments if s.where != DEVICE for n in s.nodes]
        if not hosts and len(self._graph.inputs) <= FEW_INPUTS:
            raise NotLowerable("no operation has to stay on the host")
        for name in hosts:
            reason = self._refusal(self._graph.nodes[name])
            if reason:
                raise NotLowerable(f"{reason}; it is on the host because {cut.reasons[name]}")
            self._refuse_strays(self._graph.nodes[name])

    def _refuse_strays(self, node: Node) -> None:
        """A look-up's value that is no row of the weights it chooses from: TensorFlow complains, devices do not."""
        if node.op == "StringToHashBucketFast":
            values = np.array([0, int(self._attributes(node)["num_buckets"]) - 1])
        elif node.op == "LookupTableFindV2" and node.outputs[0].dtype in ("int32", "int64"):
            values = np.append(self._table(node_of(node.inputs[0]))[1], self._constant(node.inputs[2]))
        else:
            return
        for user in self._graph.nodes.values():
            if user.op in _GATHERS and user.inputs[1] == f"{node.name}:0":
                rows = self._rows(user.inputs[0])
                if values.min() < 0 or (rows is not None and values.max() >= rows):
                    raise NotLowerable(f"a word may be looked up as {values.min()} to {values.max()}, of {rows} rows")

    def _rows(self, params: str) -> int | None:
        """Rows of the weights that a tensor or a handle stands for, as far as they are known."""
        node = self._graph.nodes[node_of(params)]
        name = node_of(node.inputs[0]) if node.op == "ReadVariableOp" else node.name
        if name in self._graph.variables:
            return int(self._source.variable(name).shape[0])
        shape = self._graph.shape(params)
        return shape[0] if shape else None

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
        found = attributes.read(self._definitions[node.name])
        if node.op == "LookupTableFindV2" and node_of(node.inputs[0]) in self._graph.tables:
            keys, values = self._table(node_of(node.inputs[0]))
            found |= {"keys": str(self._store.add(keys)), "values": str(self._store.add(values))}
        return found

    def _table(self, node: str) -> tuple[np.ndarray, np.ndarray]:
        if node not in self._tables:
            self._tables[node] = self._source.table(node)
        return self._tables[node]

    def _inputs(self, segment: Segment) -> tuple[Input, ...]:
        return packing.pack(self._graph, segment.inputs, self._fits_int32)

    def _fits_int32(self, tensor: str) -> bool:
        node = self._graph.nodes[node_of(tensor)]
        limit = np.iinfo(np.int32)
        used = {n.op for n in self._graph.nodes.values() if tensor in n.inputs}
        if not used <= _LOOKING:  # sums of 64-bit numbers stay 64-bit sums, which OpenVINO then refuses
            return False
        if node.op == "StringToHashBucketFast":
            return int(self._attributes(node)["num_buckets"]) <= limit.max
        if node.op != "LookupTableFindV2" or self._refusal(node):
            return False
        values = np.append(self._table(node_of(node.inputs[0]))[1], self._constant(node.inputs[2]))
        return bool(values.min() >= limit.min and values.max() <= limit.max)

    def _constant(self, tensor: str) -> np.ndarray:
        if tensor not in self._constants:
            (self._constants[tensor],) = self._emitter.values([tensor])
        return self._constants[tensor]

    def _trouble(self, cut: Cut, inputs: Mapping[int, Sequence[Input]], target: Target) -> dict[str, str]:
        """The operation of a segment that XLA does not lower for the target's shapes, with its words."""
        for index, given in inputs.items():
            shapes = [i.static(target.rows) for i in given]
            segment = cut.segments[index]
            if any(s is None for s in shapes):
                continue  # known only at run time: the engines will tell
            message = self._emitter.lower(given, segment.outputs, shapes)
            named = [n for n in re.findall(r"\{\{node ([^}]+)\}\}|node `([^`]+)`", message) for n in n if n]
            ours = [n for n in named if n in segment.nodes]
            if ours:
                return {ours[0]: self._emitter.reason(message)}
        return {}

    def _write(self, cut: Cut, inputs: Mapping[int, Sequence[Input]]) -> Program:
        stages = []
        for index, segment in enumerate(cut.segments):
            if segment.where == DEVICE:
                stages.append(self._device(f"d{index}", segment, inputs[index]))
            else:
                stages.append(Stage("host", tuple(self._step(n) for n in segment.nodes)))
        wanted = [t for s in stages for step in s.steps for t in step.inputs] + list(self._graph.outputs.values())
        free = [t for t in dict.fromkeys(wanted) if node_of(t) not in self._graph.bound]
        constants = {t: self._store.add(self._constant(t)) for t in free if self._graph.tensor(t).dtype != "resource"}
        view = shown.segments(self._graph, cut, inputs)
        found = Program(self._graph.inputs, self._graph.outputs, tuple(stages), constants, view)
        program.write(found, self._folder)
        return found

    def _step(self, name: str) -> Step:
        node = self._graph.nodes[name]
        outputs = tuple(f"{name}:{p}" for p in range(max(1, len(node.outputs))))
        return Step(node.op, self._values(node), outputs, self._attributes(node))

    def _values(self, node: Node) -> tuple[str, ...]:
        """Its inputs without the table: that one is in the attributes."""
        return tuple(t for t in node.inputs if self._graph.tensor(t).dtype != "resource")

    def _device(self, folder: str, segment: Segment, inputs: Sequence[Input]) -> Stage:
        place = self._folder / folder
        results = self._emitter.save(place, inputs, segment.outputs)
        (signature,) = (s for s in saved_model.read_signatures(place) if s.key == SIGNATURE)
        packs = tuple(Pack(i.name, i.dtype, i.parts, i.widths) for i in inputs)
        return Stage("device", (), folder, signature, packs, results)
