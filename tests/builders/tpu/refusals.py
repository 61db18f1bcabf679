"""What a compiler or a TPU does not take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders.registry import Builders
from builders.tpu.saving import save, weights

builder = BUILDERS = Builders()


@builder
def faq(to: Path) -> None:
    """x [n, 4], size int32 [2] -> y: alias tpu_func reshapes x to size, alias nested in a loop of a function that it
    calls, alias segment has an operation XLA lacks.

    Saved with debug information: errors can name the source lines of this file.
    """
    import tensorflow as tf

    module = tf.Module()
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x"), tf.TensorSpec([2], tf.int32, name="size")]

    @tf.function(input_signature=spec, autograph=False)
    def tpu_func(x: Any, size: Any) -> Any:
        return tf.reshape(x, size) + 1.0

    @tf.function(autograph=False)
    def rounds(x: Any, size: Any) -> Any:
        return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y + tf.reduce_sum(tf.reshape(x, size))), [0, x])[
            1
        ]

    @tf.function(input_signature=spec, autograph=False)
    def nested(x: Any, size: Any) -> Any:
        return rounds(x, size) + 1.0

    @tf.function(input_signature=spec, autograph=False)
    def segment(x: Any, size: Any) -> Any:
        return tf.math.segment_sum(x, tf.zeros_like(size))

    @tf.function(input_signature=spec)
    def serve(x: Any, size: Any) -> Any:
        return {"y": tpu_func(x, size)}

    @tf.function(input_signature=spec)
    def segments(x: Any, size: Any) -> Any:
        return {"y": segment(x, size)}

    module.tpu_func, module.nested, module.segment = tpu_func, nested, segment
    aliases = {"tpu_func": tpu_func, "nested": nested, "segment": segment}
    options = tf.saved_model.SaveOptions(function_aliases=aliases, save_debug_info=True)
    tf.saved_model.save(module, str(to), signatures={"serving_default": serve, "segments": segments}, options=options)


@builder
def guarded(to: Path) -> None:
    """x [n, 4], size int32 [2] -> y: asserts that x is positive, doubles it in a loop, reshapes to size, multiplies."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(weights(1, 8, 4))
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x"), tf.TensorSpec([2], tf.int32, name="size")]

    @tf.function(input_signature=spec)
    def serve(x: Any, size: Any) -> Any:
        tf.debugging.assert_positive(x, message="x must be positive")
        for _ in tf.range(3):
            x = x * 2.0
        return {"y": tf.reshape(tf.reshape(x, size), [-1, 8]) @ module.w}

    save(module, to, {"serving_default": serve}, {})


@builder
def refused(to: Path) -> None:
    """x [n, 4] -> y [n, 4]: products with between them what no compiler takes: a cumulative sum of int8, and a loop
    with the number of its round as a shape; signature only, x -> y: a cumulative sum of int8 and nothing else."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(weights(1, 4, 4))
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]

    @tf.function(input_signature=spec)
    def serve(x: Any) -> Any:
        x = tf.cast(tf.cumsum(tf.cast(10.0 * (x @ module.w), tf.int8), 1), tf.float32) @ module.w
        for i in tf.range(3):
            x += tf.reduce_sum(tf.fill([i + 1], 1.0))
        return {"y": x @ module.w}

    @tf.function(input_signature=spec)
    def only(x: Any) -> Any:
        return {"y": tf.cumsum(tf.cast(x, tf.int8), 1)}

    save(module, to, {"serving_default": serve, "only": only}, {})


@builder
def unfit(to: Path) -> None:
    """x [n, 4] -> y [n, 2]. Aliases that cannot be batched: fixed, unequal, total, columns, tokens; that hold what no
    TPU takes: sparse, ragged; whose result's size depends on values: positive. Cures: dense, padded."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(weights(1, 4, 2))
    x, row = tf.TensorSpec([None, 4], tf.float32, name="x"), tf.TensorSpec([1, 4], tf.float32, name="x")
    indices, values = tf.TensorSpec([None, 2], tf.int64, name="indices"), tf.TensorSpec([None], tf.float32, name="v")
    two = [tf.TensorSpec([3, 4], tf.float32, name="a"), tf.TensorSpec([5, 4], tf.float32, name="b")]
    functions: dict[str, tuple[list[Any], Callable[..., Any]]] = {
        "fixed": ([row], lambda x: x @ module.w),
        "unequal": (two, lambda a, b: tf.concat([a, b], 0)[: tf.shape(a)[0]] @ module.w),
        "total": ([x], lambda x: tf.reduce_sum(x @ module.w)),
        "columns": ([x], lambda x: tf.reduce_sum(x @ module.w, 0)),
        "tokens": ([tf.TensorSpec([None, None], tf.float32, name="x")], lambda x: tf.reduce_sum(x, 1)),
        "sparse": (
            [indices, values],
            lambda i, v: tf.sparse.sparse_dense_matmul(tf.SparseTensor(i, v, [8, 4]), module.w),
        ),
        "ragged": (
            [values, tf.TensorSpec([None], tf.int64, name="splits")],
            lambda v, splits: tf.RaggedTensor.from_row_splits(v, splits, validate=False).to_tensor(shape=[None, 4]),
        ),
        "positive": ([x], lambda x: tf.boolean_mask(x, x[:, 0] > 0) @ module.w),
        "dense": ([x], lambda x: x @ module.w),
        "padded": ([x], lambda x: tf.where(x[:, :1] > 0, x @ module.w, 0.0)),
    }
    traced = {name: tf.function(call, input_signature=spec) for name, (spec, call) in functions.items()}
    for name, function in traced.items():
        setattr(module, f"{name}_func", function)

    @tf.function(input_signature=[indices, values])
    def serve(indices: Any, v: Any) -> Any:
        return {"y": traced["dense"](tf.sparse.to_dense(tf.SparseTensor(indices, v, [8, 4])))}

    @tf.function(input_signature=[x])
    def masked(x: Any) -> Any:
        return {"y": traced["padded"](x)}

    save(module, to, {"serving_default": serve, "masked": masked}, traced)
