"""Variables of several users, and ones that are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.registry import Builders
from builders.tpu.saving import save, weights

builder = BUILDERS = Builders()


@builder
def mixed(to: Path) -> None:
    """x [n, 4] -> y [n, 4]: alias half computes partly in bfloat16, alias counting writes a variable."""
    import tensorflow as tf

    module = tf.Module()
    module.w, module.calls = tf.Variable(weights(1, 4, 4)), tf.Variable(0.0)
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]

    @tf.function(input_signature=spec)
    def half(x: Any) -> Any:
        return tf.cast(tf.cast(x, tf.bfloat16) * 2.0, tf.float32) @ module.w

    @tf.function(input_signature=spec)
    def counting(x: Any) -> Any:
        module.calls.assign_add(1.0)
        return x @ module.w

    @tf.function(input_signature=spec)
    def serve(x: Any) -> Any:
        return {"y": half(x)}

    @tf.function(input_signature=spec)
    def count(x: Any) -> Any:
        return {"y": counting(x), "calls": module.calls.read_value()}

    module.half, module.counting = half, counting
    save(module, to, {"serving_default": serve, "count": count}, {"half": half, "counting": counting})


@builder
def shared(to: Path) -> None:
    """x [n, 4] -> y [n, 4]: alias tpu_func multiplies by w and both, the host by both; calls counts in count."""
    import tensorflow as tf

    module = tf.Module()
    module.w, module.both = tf.Variable(weights(1, 4, 4)), tf.Variable(weights(2, 4, 4))
    module.calls = tf.Variable(0.0)
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]

    @tf.function(input_signature=spec)
    def tpu_func(x: Any) -> Any:
        return tf.nn.relu(x @ module.w) @ module.both

    @tf.function(input_signature=spec)
    def serve(x: Any) -> Any:
        return {"y": tpu_func(x @ module.both)}

    @tf.function(input_signature=spec)
    def count(x: Any) -> Any:
        return {"calls": module.calls.assign_add(tf.reduce_sum(x))}

    module.tpu_func = tpu_func
    save(module, to, {"serving_default": serve, "count": count}, {"tpu_func": tpu_func})
