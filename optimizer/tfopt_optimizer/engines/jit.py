"""The xla engine, variant `jit` (`--use_tfrt=false`): tf.function(jit_compile=True) inside the TensorFlow executor.

It compiles in the process that runs it, so a server that opens such a plan compiles every bucket before the version is
AVAILABLE; nothing is stored. It needs the `function` loader.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer.engines import compilations, guards, stablehlo
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Prepared, Runner, Target
from tfopt_optimizer.engines.limits import Bounds, Within
from tfopt_optimizer.engines.tensorflow import JIT, FunctionModel
from tfopt_optimizer.errors import EngineError, NotLowerable


class JitRunner:
    """Runs one compiled function. Feeds must have exactly its shapes and dtypes: the caller pads and checks."""

    def __init__(self, tf: Any, function: Any, inputs: Sequence[str], outputs: Sequence[str], limits: Bounds) -> None:
        self._check = Within(limits)
        self._constant, self._function, self._errors = tf.constant, function, tf.errors.OpError
        self._inputs, self._outputs = tuple(inputs), tuple(enumerate(outputs))

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        self._check(feeds)
        try:
            found = self._function(*[self._constant(feeds[name]) for name in self._inputs])
            return {n: found[i].numpy() for i, n in self._outputs if not outputs or n in outputs}
        except self._errors as error:
            raise tensorflow_engine.tensorflow_error(error) from error

    def close(self) -> None:
        self._function = None


def open_runner(model: FunctionModel, target: Target) -> JitRunner:
    """Compiles by calling once. NotLowerable names what XLA does not take."""
    assert target.shapes is not None
    tf, signature = model.tf, model.signature(target.signature.key)
    names, outputs = [t.name for t in target.signature.inputs], sorted(signature.structured_outputs)
    function = stablehlo.compiled_function(tf, signature, names, outputs)
    specs = [tf.TensorSpec(target.shapes[t.name], t.dtype) for t in target.signature.inputs]
    try:
        guarded = guards.read(tf, function.get_concrete_function(*specs), names)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise NotLowerable(stablehlo.lowering_reason(error)) from error
    if guarded.refusal:
        raise NotLowerable(guarded.refusal)
    runner = JitRunner(tf, function, names, outputs, guarded.limits)
    least = {part.name: max(0, low) for part, (low, _) in guarded.limits.items()}
    given = {
        t.name: np.full(target.shapes[t.name], least.get(t.name, 0), dtypes.to_numpy(t.dtype))
        for t in target.signature.inputs
    }
    compilations.tell("jit")
    try:
        runner(given)
    except (EngineError, ValueError, TypeError) as error:
        raise NotLowerable(stablehlo.lowering_reason(error)) from error
    return runner


class Opener:
    """Opens the runners of a finished plan, on the model that plain TensorFlow uses too."""

    def __init__(self, place: Place, load_tensorflow: Callable[[], Any]) -> None:
        self._load = load_tensorflow

    def runner(self, target: Target, note: Callable[[str], None]) -> Runner:
        return open_runner(self._load(), target)


class Worker:
    """The engine in a worker process of the optimizer."""

    def open(self, place: Place) -> Mapping[str, str]:
        model = tensorflow_engine.open_model(place, tensorflow_engine.FUNCTION)
        assert isinstance(model, FunctionModel)
        self._model = model
        self._runners: dict[str, JitRunner] = {}
        return {JIT: ""}

    def prepare(self, target: Target) -> Prepared:
        started = time.perf_counter()
        self._runners[target.folder] = open_runner(self._model, target)
        return Prepared(time.perf_counter() - started)

    def runner(self, target: Target) -> Runner:
        return self._runners[target.folder]

    def release(self, target: Target) -> None:
        self._runners.pop(target.folder, None)
