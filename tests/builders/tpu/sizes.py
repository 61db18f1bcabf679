"""Arguments of several shapes, and rows that are not what rows mostly are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.registry import Builders
from builders.tpu.saving import save, weights

builder = BUILDERS = Builders()


@builder
def features(to: Path) -> None:
    """age, height, weight [n, 1], ids int32 [n, 3], image [n, 16, 16, 3] -> score [n, 1], same int32 [n, 3],
    rows [n, 2], image [n, 16, 16, 3]. Signature two_sizes: x [n, 40], y [m, 40] -> z [n, 40]; fixed: a [2, 3], b [5],
    c [] -> d [5], e [2, 3]. Aliases tpu_func, two_func, fixed_func."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(weights(1, 3, 1))

    def spec(name: str, *shape: int | None, kind: Any = tf.float32) -> Any:
        return tf.TensorSpec(shape, kind, name=name)

    numbers = [spec(name, None, 1) for name in ("age", "height", "weight")]
    specs = [*numbers, spec("ids", None, 3, kind=tf.int32), spec("image", None, 16, 16, 3)]

    @tf.function(input_signature=specs)
    def tpu_func(age: Any, height: Any, weight: Any, ids: Any, image: Any) -> Any:
        score = (
            tf.concat([age, height, weight], 1) @ module.w + tf.reduce_mean(image, [1, 2, 3], keepdims=True)[:, 0, 0]
        )
        return score, ids, tf.concat([score, score * 2.0], 1), image + 1.0

    @tf.function(input_signature=[spec("x", None, 40), spec("y", None, 40)])
    def two_func(x: Any, y: Any) -> Any:
        return x + tf.reduce_sum(y, 0)

    @tf.function(input_signature=[spec("a", 2, 3), spec("b", 5), spec("c")])
    def fixed_func(a: Any, b: Any, c: Any) -> Any:
        return b + c, a * c

    @tf.function(input_signature=specs)
    def serve(age: Any, height: Any, weight: Any, ids: Any, image: Any) -> Any:
        names = ("score", "same", "rows", "image")
        return dict(zip(names, tpu_func(age, height, weight, ids, image), strict=True))

    @tf.function(input_signature=[spec("x", None, 40), spec("y", None, 40)])
    def two_sizes(x: Any, y: Any) -> Any:
        return {"z": two_func(x, y)}

    @tf.function(input_signature=[spec("a", 2, 3), spec("b", 5), spec("c")])
    def fixed(a: Any, b: Any, c: Any) -> Any:
        return dict(zip(("d", "e"), fixed_func(a, b, c), strict=True))

    module.tpu_func, module.two_func, module.fixed_func = tpu_func, two_func, fixed_func
    aliases = {"tpu_func": tpu_func, "two_func": two_func, "fixed_func": fixed_func}
    save(module, to, {"serving_default": serve, "two_sizes": two_sizes, "fixed": fixed}, aliases)


@builder
def rows(to: Path) -> None:
    """x [n, 4] -> y [n] = sum of x, rows [n] = how many rows were run together; alias tpu_func."""
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def tpu_func(x: Any) -> Any:
        return tf.reduce_sum(x, 1), tf.fill([tf.shape(x)[0]], tf.shape(x)[0])

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        total, together = tpu_func(x)
        return {"y": total, "rows": together}

    module.tpu_func = tpu_func
    save(module, to, {"serving_default": serve}, {"tpu_func": tpu_func})


@builder
def scalars(to: Path) -> None:
    """x [n, 4], scale [] -> y [n, 4]: an input without rows; alias tpu_func."""
    import tensorflow as tf

    module = tf.Module()
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x"), tf.TensorSpec([], tf.float32, name="scale")]

    @tf.function(input_signature=spec)
    def tpu_func(x: Any, scale: Any) -> Any:
        return x * scale

    @tf.function(input_signature=spec)
    def serve(x: Any, scale: Any) -> Any:
        return {"y": tpu_func(x, scale)}

    module.tpu_func = tpu_func
    save(module, to, {"serving_default": serve}, {"tpu_func": tpu_func})


@builder
def pairs(to: Path) -> None:
    """x [n, 4] with an even n -> y [n / 2, 4]: alias tpu_func multiplies two rows at a time."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(weights(1, 8, 4))
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]

    @tf.function(input_signature=spec)
    def tpu_func(x: Any) -> Any:
        return tf.reshape(x, [-1, 8]) @ module.w

    @tf.function(input_signature=spec)
    def serve(x: Any) -> Any:
        return {"y": tpu_func(x)}

    module.tpu_func = tpu_func
    save(module, to, {"serving_default": serve}, {"tpu_func": tpu_func})


@builder
def unshaped(to: Path) -> None:
    """x [?, ?] -> y: alias double doubles what no signature says the width of, alias fixed doubles x [n, 3]."""
    import tensorflow as tf

    module = tf.Module()
    module.scale = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
    def double(x: Any) -> Any:
        return x * module.scale

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def fixed(x: Any) -> Any:
        return x * module.scale

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": double(x)}

    module.double, module.fixed = double, fixed
    save(module, to, {"serving_default": serve}, {"double": double, "fixed": fixed})
