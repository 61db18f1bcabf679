"""Models of several inputs, types and signatures, and with rows that are not what rows mostly are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.registry import Builders, normal, save, seeded

builder = BUILDERS = Builders()


@builder
def multi(to: Path) -> None:
    """a float [n, 4], b float [n, 3] -> product [n, 3], total [n], big (bool) [n]."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(normal(seeded(), 4, 3))

    @tf.function(
        input_signature=[tf.TensorSpec([None, 4], tf.float32, name="a"), tf.TensorSpec([None, 3], tf.float32, name="b")]
    )
    def serve(a: Any, b: Any) -> Any:
        product = a @ module.weights * b
        total = tf.reduce_sum(product, 1)
        return {"product": product, "total": total, "big": total > 1.0}

    save(module, to, serving_default=serve)


@builder
def row_dependent(to: Path) -> None:
    """x float [n, 4] -> centered [n, 4] = x - mean over the batch: rows change with their company."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"centered": x - tf.reduce_mean(x, 0, keepdims=True)}

    save(tf.Module(), to, serving_default=serve)


@builder
def scalar(to: Path) -> None:
    """x float [] -> y [] = 2 x."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": 2.0 * x}

    save(tf.Module(), to, serving_default=serve)


@builder
def no_batch_outputs(to: Path) -> None:
    """x float [n, 4] -> columns [4], total []: outputs without a batch dimension."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"columns": tf.reduce_sum(x, 0), "total": tf.reduce_sum(x)}

    save(tf.Module(), to, serving_default=serve)


@builder
def counter(to: Path) -> None:
    """step float [n] -> count [n]: adds the sum of step to a variable, answers it once per row; `get` only reads."""
    import tensorflow as tf

    module = tf.Module()
    module.count = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="step")])
    def serve(step: Any) -> Any:
        return {"count": tf.zeros_like(step) + module.count.assign_add(tf.reduce_sum(step))}

    @tf.function(input_signature=[])
    def get() -> Any:
        return {"count": module.count.read_value()}

    save(module, to, serving_default=serve, get=get)


@builder
def dtypes(to: Path) -> None:
    """i32 [n, 3], i64 [n], flag bool [n, 2], f64 [n], u8 [n, 4], f16 [n] -> one output each, named "<input>_out"."""
    import tensorflow as tf

    specs = {
        "i32": ([None, 3], tf.int32),
        "i64": ([None], tf.int64),
        "flag": ([None, 2], tf.bool),
        "f64": ([None], tf.float64),
        "u8": ([None, 4], tf.uint8),
        "f16": ([None], tf.float16),
    }

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in specs.items()])
    def serve(i32: Any, i64: Any, flag: Any, f64: Any, u8: Any, f16: Any) -> Any:  # noqa: PLR0917
        return {
            "i32_out": i32 * 2,
            "i64_out": i64 + tf.cast(tf.reduce_sum(i32, 1), tf.int64),
            "flag_out": tf.logical_not(flag),
            "f64_out": f64 / 3.0,
            "u8_out": tf.reverse(u8, [1]),
            "f16_out": f16 * tf.constant(0.5, tf.float16),
        }

    save(tf.Module(), to, serving_default=serve)


@builder
def shared(to: Path) -> None:
    """x float [n, 8]; signatures serving_default (logits), probabilities, embed and "v2/top:1" share their weights."""
    import tensorflow as tf

    rng, module = seeded(), tf.Module()
    module.hidden, module.out = tf.Variable(normal(rng, 8, 16)), tf.Variable(normal(rng, 16, 4))
    spec = [tf.TensorSpec([None, 8], tf.float32, name="x")]

    def hidden(x: Any) -> Any:
        return tf.nn.relu(x @ module.hidden)

    @tf.function(input_signature=spec)
    def logits(x: Any) -> Any:
        return {"logits": hidden(x) @ module.out}

    @tf.function(input_signature=spec)
    def probabilities(x: Any) -> Any:
        return {"probabilities": tf.nn.softmax(hidden(x) @ module.out)}

    @tf.function(input_signature=spec)
    def embed(x: Any) -> Any:
        return {"embedding": hidden(x)}

    @tf.function(input_signature=spec)
    def top(x: Any) -> Any:
        return {"class": tf.argmax(hidden(x) @ module.out, 1)}

    signatures = {"serving_default": logits, "probabilities": probabilities, "embed": embed, "v2/top:1": top}
    save(module, to, **signatures)
