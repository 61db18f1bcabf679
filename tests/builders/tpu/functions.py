"""Functions that call functions: aliases, traces, jit_compile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.registry import Builders
from builders.tpu.saving import save, weights

builder = BUILDERS = Builders()


@builder
def toy(to: Path) -> None:
    """serving_default: text string [n] of 10 numbers -> y [n, 4]; raw: x [n, 10] -> y. Alias tpu_func, in both."""
    import tensorflow as tf

    module = tf.Module()
    module.w1, module.b1 = tf.Variable(weights(1, 10, 16)), tf.Variable(weights(2, 16))
    module.w2 = tf.Variable(weights(3, 16, 4))
    module.steps = tf.Variable(0, dtype=tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32, name="x")])
    def tpu_func(x: Any) -> Any:
        return tf.nn.relu(x @ module.w1 + module.b1) @ module.w2

    @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32, name="x")])
    def raw(x: Any) -> Any:
        return {"y": tpu_func(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text: Any) -> Any:
        numbers = tf.strings.to_number(tf.strings.split(text, ",").to_tensor("0", shape=[None, 10]))
        return {"y": tpu_func(numbers)}

    module.tpu_func = tpu_func
    save(module, to, {"serving_default": serve, "raw": raw}, {"tpu_func": tpu_func})


@builder
def traces(to: Path) -> None:
    """One alias, two traces: x float [n, 3] and x float [n, 5], doubled; signatures three and five."""
    import tensorflow as tf

    module = tf.Module()
    module.scale = tf.Variable(2.0)

    @tf.function
    def double(x: Any) -> Any:
        return x * module.scale

    def signature(width: int) -> Any:
        @tf.function(input_signature=[tf.TensorSpec([None, width], tf.float32, name="x")])
        def run(x: Any) -> Any:
            return {"y": double(x)}

        return run

    module.double = double
    save(module, to, {"three": signature(3), "five": signature(5)}, {"double": double})


@builder
def jitted(to: Path) -> None:
    """x [n, 10] -> y [n, 4] through a function with jit_compile=True that calls another one."""
    import tensorflow as tf

    module = tf.Module()
    module.w1, module.w2 = tf.Variable(weights(1, 10, 16)), tf.Variable(weights(3, 16, 4))

    @tf.function(jit_compile=True)
    def inner(x: Any) -> Any:
        return tf.nn.relu(x @ module.w1)

    @tf.function(jit_compile=True)
    def outer(x: Any) -> Any:
        return inner(x) @ module.w2

    @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": outer(x) + 1.0}

    save(module, to, {"serving_default": serve}, {})


@builder
def indirect(to: Path) -> None:
    """x [n, 4] -> y: alias outer calls alias-less between, which calls alias inner."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(weights(1, 4, 4))
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]

    @tf.function(input_signature=spec)
    def inner(x: Any) -> Any:
        return x @ module.w

    @tf.function(input_signature=spec)
    def between(x: Any) -> Any:
        return inner(x) + 1.0

    @tf.function(input_signature=spec)
    def outer(x: Any) -> Any:
        return between(x) * 2.0

    @tf.function(input_signature=spec)
    def serve(x: Any) -> Any:
        return {"y": outer(x)}

    module.inner, module.between, module.outer = inner, between, outer
    aliases = {"inner": inner, "between": between, "outer": outer}
    save(module, to, {"serving_default": serve}, aliases)
