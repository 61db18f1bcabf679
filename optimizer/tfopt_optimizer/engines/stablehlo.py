"""Lowers a signature with static shapes to StableHLO, with TensorFlow in a process of its own.

Variables become parameters of the module: its arguments are the signature's inputs in declared order, then the captured
variables, then the graph's large constants. They are written to the plan's weights file once, however many signatures
and buckets use them. The folder of a lowered target is described in artifacts.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer.engines import artifacts, guards, modules
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place, Prepared, Runner, Target
from tfopt_optimizer.engines.weights import WeightsWriter
from tfopt_optimizer.errors import NotLowerable, first_line


class Lowerer:
    """The lowering step in a worker process; it has no runners."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place = place
        self._model = tensorflow_engine.open_model(place, tensorflow_engine.FUNCTION)
        self._weights = WeightsWriter(place.plan_dir)
        self._numbers: dict[int, int] = {}  # id of a captured tensor (kept alive by the model) -> number of its weights
        self._constants: dict[tuple[str, tuple[int, ...], bytes], int] = {}
        return {"stablehlo": ""}

    def prepare(self, target: Target) -> Prepared:
        """Writes the target's folder. NotLowerable names the operation or type that stands in the way."""
        assert isinstance(self._model, tensorflow_engine.FunctionModel)
        assert target.shapes is not None
        tf, names = self._model.tf, [t.name for t in target.signature.inputs]
        left_out = [name for name in names if name not in target.shapes]
        if left_out:
            raise NotLowerable(f"the records leave input {left_out[0]!r} to its default")
        signature = self._model.function(target, pinned=True)
        outputs = sorted(signature.structured_outputs)
        function = compiled_function(tf, signature, names, outputs)
        specs = [tf.TensorSpec(target.shapes[t.name], dtype=t.dtype) for t in target.signature.inputs]
        try:
            concrete = function.get_concrete_function(*specs)
            module = function.experimental_get_compiler_ir(*specs)(stage="stablehlo_serialized")
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise NotLowerable(lowering_reason(error)) from error
        guarded = guards.Guards({}) if self._place.cut else guards.read(tf, concrete, names)
        if guarded.refusal:
            raise NotLowerable(guarded.refusal)
        module, constants = modules.hoisted(module)
        numbers = tuple(self._weight(tf, captured) for captured in concrete.captured_inputs)
        numbers += tuple(self._constant(array) for array in constants)
        self._weights.flush()
        meta = artifacts.Meta(tuple(names), tuple(outputs), numbers, guarded.limits)
        artifacts.write_module(self._place.plan_dir / target.folder, module, meta)
        return Prepared()

    def _weight(self, tf: Any, captured: Any) -> int:
        number = self._numbers.get(id(captured))
        if number is None:
            number = self._numbers[id(captured)] = self._weights.add(_value(tf, captured))
        return number

    def _constant(self, array: np.ndarray) -> int:
        """The number of an equal constant of another bucket or signature, else of a new one."""
        key = (array.dtype.name, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = self._weights.add(array)
        return self._constants[key]

    def runner(self, target: Target) -> Runner:
        raise NotLowerable("the lowering step runs nothing")

    def release(self, target: Target) -> None:
        """Modules are files in the plan."""


def compiled_function(tf: Any, signature: Any, names: Sequence[str], outputs: Sequence[str]) -> Any:
    """The signature as a tf.function of positional arguments that XLA compiles."""

    def call(*values: Any) -> list[Any]:
        found = signature(**dict(zip(names, values, strict=True)))
        return [found[name] for name in outputs]

    return tf.function(call, jit_compile=True, autograph=False)


def lowering_reason(error: BaseException) -> str:
    """The sentence that names the operation, out of TensorFlow's many lines."""
    text = re.sub(r"\s*\{\{[^{}]*\}\}", "", str(error))  # {{node x}} and {{function_node f}}: places, not reasons
    kernels = sorted(set(re.findall(r"No registered '(\w+)' OpKernel for XLA", text)))
    if kernels:
        return f"XLA has no kernel for {', '.join(kernels)}"
    constant = re.search(r"Input \d+ to node [^\n]*must be a compile-time constant", text)
    return constant.group(0) if constant else text.strip().splitlines()[0][:300]


def _value(tf: Any, captured: Any) -> np.ndarray:
    if captured.dtype != tf.resource:
        return np.asarray(captured.numpy())
    shapes = getattr(captured, "_handle_data", None)
    if shapes is None or not shapes.is_set or not shapes.shape_and_type:
        raise NotLowerable("it reads a resource that is not a variable (a lookup table, for instance)")
    dtype = tf.dtypes.as_dtype(shapes.shape_and_type[0].dtype)
    try:
        return np.asarray(tf.raw_ops.ReadVariableOp(resource=captured, dtype=dtype).numpy())
    except tf.errors.OpError as error:
        raise NotLowerable(f"a captured variable cannot be read: {first_line(error)}") from error
