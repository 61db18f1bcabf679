"""Writes parts of a source graph as functions of TensorFlow: to look at a value, to lower with XLA, to save.

Variables become variables of the part that reads them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt_optimizer.engines.indices import Shape
from tfopt_optimizer.engines.inferred import Inferred
from tfopt_optimizer.engines.stablehlo import lowering_reason
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.split.graph import node_of
from tfopt_optimizer.split.packing import Input
from tfopt_optimizer.split.source import Source

_BOUNDED = "stablehlo.bounds"


class Emitter:
    def __init__(self, tf: Any, source: Source) -> None:
        self._tf, self._source = tf, source
        self._variables: dict[str, Any] = {}

    def values(self, tensors: Sequence[str]) -> list[np.ndarray]:
        """Of tensors that no input reaches."""
        function = self._tf.function(lambda: self._import([], {}, tensors), autograph=False)
        return [np.asarray(value.numpy()) for value in function()]

    def scalar(self, tensor: str) -> int | None:
        """A whole number that no input decides; None for anything else."""
        graph = self._source.graph
        if node_of(tensor) not in graph.nodes or node_of(tensor) in graph.bound:
            return None
        if graph.tensor(tensor).dtype not in ("int32", "int64") or node_of(tensor) in graph.variables:
            return None
        (found,) = self.values([tensor if ":" in tensor else f"{tensor}:0"])
        return int(found.item()) if found.size == 1 else None

    def inferred(self, definition: Any, shapes: Mapping[str, Shape]) -> Inferred:
        """The shapes in what `definition` gave, where its placeholders have these, which are written into it."""
        for node in definition.node:
            if node.op == "Placeholder" and node.name in shapes:
                node.attr["shape"].shape.CopyFrom(self._tf.TensorShape(shapes[node.name]).as_proto())
        variables = [node.name for node in definition.node if node.name in self._source.graph.variables]
        return Inferred(self._tf, definition, {name: self._variable(name).handle for name in variables})

    def lower(self, inputs: Sequence[Input], outputs: Sequence[str], shapes: Sequence[Any]) -> str:
        """What XLA says against a device segment, "" when it lowers it."""
        tf = self._tf
        function = tf.function(lambda *given: self._part(inputs, given, outputs), jit_compile=True, autograph=False)
        specs = [tf.TensorSpec(s, _dtype(tf, i.dtype)) for i, s in zip(inputs, shapes, strict=True)]
        try:
            module = function.experimental_get_compiler_ir(*specs)(stage="stablehlo")
        except (tf.errors.OpError, ValueError, TypeError) as error:
            return str(error)
        head = module.split("@main(", 1)[-1].split("{\n", 1)[0]
        if _BOUNDED in head:
            raise NotLowerable("a device segment's result has a shape that depends on values")
        return ""

    def reason(self, message: str) -> str:
        return lowering_reason(ValueError(message))

    def save(self, folder: Path, inputs: Sequence[Input], outputs: Sequence[str]) -> dict[str, str]:
        """A SavedModel with this segment as its one signature. Returns its outputs' names -> tensors."""
        tf, names = self._tf, {t: f"out_{i}" for i, t in enumerate(outputs)}

        def call(**given: Any) -> dict[str, Any]:
            found = self._part(inputs, [given[i.name] for i in inputs], outputs)
            return dict(zip(names.values(), found, strict=True))

        specs = {i.name: tf.TensorSpec(i.shape, _dtype(tf, i.dtype), name=i.name) for i in inputs}
        function = tf.function(call, autograph=False).get_concrete_function(**specs)
        module = tf.Module()
        module.kept = list(self._variables.values())
        module.segment = function
        tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
        return {name: tensor for tensor, name in names.items()}

    def _part(self, inputs: Sequence[Input], given: Sequence[Any], outputs: Sequence[str]) -> list[Any]:
        fed: dict[str, Any] = {}
        for one, value in zip(inputs, given, strict=True):
            fed |= self._unpacked(one, value)
        return self._import(list(fed), fed, outputs)

    def _unpacked(self, one: Input, value: Any) -> dict[str, Any]:
        tf = self._tf
        if not one.widths:
            pieces = [value]
        elif set(one.widths) == {1} and one.dtype in ("float", "int32"):  # LiteRT unpacks no others
            pieces = tf.unstack(value, axis=1)
        else:
            ends = list(itertools.accumulate(one.widths, initial=0))
            pieces = [value[:, a:b] for a, b in itertools.pairwise(ends)]
        found = {}
        for part, piece in zip(one.members, pieces, strict=True):
            shape, own = part.shape, piece
            if one.widths and shape is not None and piece.shape.rank != len(shape):
                own = tf.squeeze(piece, 1) if len(shape) == 1 else tf.reshape(piece, [-1, *shape[1:]])
            found[part.tensor] = tf.cast(own, _dtype(tf, part.dtype))
        return found

    def _import(self, cut: Sequence[str], fed: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """The outputs, computed from `cut` tensors that are fed."""
        tf, graph = self._tf, self._source.graph
        definition, names = self.definition(cut, outputs)
        mapped = {names[t]: fed[t] for t in cut}
        for node in definition.node:
            if node.name in graph.variables:
                mapped[f"{node.name}:0"] = tf.compat.v1.get_default_graph().capture(self._variable(node.name).handle)
        found: list[Any] = tf.graph_util.import_graph_def(
            definition, mapped, [names.get(t, t) for t in outputs], name=""
        )
        return found

    def definition(self, cut: Sequence[str], outputs: Sequence[str]) -> tuple[Any, dict[str, str]]:
        """The GraphDef of what computes `outputs`, with placeholders for `cut` (tensors -> the placeholders')."""
        definition, names = self._tf.compat.v1.GraphDef(), {t: f"tfopt_cut_{i}:0" for i, t in enumerate(cut)}
        definition.versions.CopyFrom(self._source.definition.versions)
        definition.library.CopyFrom(self._source.definition.library)
        for tensor, name in names.items():
            self._placeholder(definition, node_of(name), self._source.graph.tensor(tensor).dtype)
        for node in self._needed(set(cut), outputs):
            definition.node.add().CopyFrom(self._source.copy(node, names))
        return definition, names

    def _placeholder(self, definition: Any, name: str, dtype: str) -> None:
        node = definition.node.add(op="Placeholder", name=name)
        node.attr["dtype"].type = _dtype(self._tf, dtype).as_datatype_enum

    def _needed(self, cut: set[str], outputs: Sequence[str]) -> list[str]:
        seen: set[str] = set()
        todo = [node_of(t) for t in outputs if t not in cut]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += [node_of(t) for t in self._source.graph.nodes[name].inputs if t not in cut]
        return [name for name in self._source.graph.nodes if name in seen]

    def _variable(self, node: str) -> Any:
        if node not in self._variables:
            with self._tf.init_scope():
                self._variables[node] = self._tf.Variable(self._source.variable(node), trainable=False)
        return self._variables[node]


def _dtype(tf: Any, name: str) -> Any:
    from tfopt_protos import dtypes

    return tf.dtypes.as_dtype(dtypes.NUMBERS[name])
