"""Functions of a SavedModel's graph to StableHLO, one by one, with variables as parameters. Needs TensorFlow.

The functions are taken from the file and not from the loaded model, whose loader renames them. What a variable holds
does not matter to a compiler, so each is a fresh one of its type and shape.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer.engines import stablehlo
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.tpu.graph import calls

Variables = Mapping[int, tuple[int, tuple[int, ...]]]


class Library:
    """The functions of one graph without operations that only a TPU has (emulate.py), under names of their own:
    TensorFlow knows functions by their name alone. `graph`: a serialized GraphDef."""

    def __init__(self, graph: bytes) -> None:
        import tensorflow as tf
        from tensorflow.core.framework import attr_value_pb2
        from tensorflow.python.eager import context

        self._tf, self._named, self._context = tf, attr_value_pb2.NameAttrList, context.context()
        library = tf.compat.v1.GraphDef.FromString(graph).library.function
        self._names = {f.signature.name: f"tfopt_{uuid.uuid4().hex[:12]}_{f.signature.name}" for f in library}
        self._functions = {f.signature.name: f for f in library}
        for function in library:
            function.signature.name = self._names[function.signature.name]
            for node in function.node_def:
                node.op = self._names.get(node.op, node.op)
                for called in calls(node):
                    called.name = self._names.get(called.name, called.name)
            self._context.add_function_def(function)

    @classmethod
    def of(cls, folder: Path) -> Library:
        """Of an emulated SavedModel."""
        from tensorflow.python.saved_model import loader_impl

        return cls(loader_impl.parse_saved_model(str(folder)).meta_graphs[0].graph_def.SerializeToString())

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names.values():
            self._context.remove_function(name)

    def module(self, name: str, shapes: Sequence[Sequence[int] | None], variables: Variables) -> bytes:
        """Serialized StableHLO. `shapes`: of the arguments, None where they are `variables` (argument -> (TensorFlow's
        number of the type, shape)). NotLowerable says what XLA does not take."""
        tf, signature = self._tf, self._functions[name].signature
        held = {i: tf.Variable(tf.zeros(shape, tf.as_dtype(dtype))) for i, (dtype, shape) in variables.items()}
        types = [tf.as_dtype(a.type) for a in signature.output_arg]

        def call(*values: Any) -> Any:
            given = iter(values)
            arguments = [held[i].handle if i in held else next(given) for i in range(len(signature.input_arg))]
            return tf.raw_ops.StatefulPartitionedCall(args=arguments, Tout=types, f=self._named(name=self._names[name]))

        specs = [
            tf.TensorSpec(shape, tf.as_dtype(a.type))
            for a, shape in zip(signature.input_arg, shapes, strict=True)
            if shape is not None
        ]
        try:
            function = tf.function(call, jit_compile=True, autograph=False)
            found: bytes = function.experimental_get_compiler_ir(*specs)(stage="stablehlo_serialized")
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise NotLowerable(stablehlo.lowering_reason(error)) from error
        return found
