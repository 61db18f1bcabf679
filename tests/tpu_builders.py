"""The SavedModels that the converter's tests convert; each docstring says inputs and outputs. Needs TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BUILDERS: dict[str, Callable[[Path], None]] = {}


def builder(build: Callable[[Path], None]) -> Callable[[Path], None]:
    BUILDERS[build.__name__] = build
    return build


def _normal(seed: int, *shape: int) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def _save(module: Any, to: Path, signatures: Any, aliases: Any) -> None:
    import tensorflow as tf

    options = tf.saved_model.SaveOptions(function_aliases=aliases)
    tf.saved_model.save(module, str(to), signatures=signatures, options=options)


@builder
def toy(to: Path) -> None:
    """serving_default: text string [n] of 10 numbers -> y [n, 4]; raw: x [n, 10] -> y. Alias tpu_func, in both."""
    import tensorflow as tf

    module = tf.Module()
    module.w1, module.b1 = tf.Variable(_normal(1, 10, 16)), tf.Variable(_normal(2, 16))
    module.w2 = tf.Variable(_normal(3, 16, 4))
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
    _save(module, to, {"serving_default": serve, "raw": raw}, {"tpu_func": tpu_func})


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
    _save(module, to, {"three": signature(3), "five": signature(5)}, {"double": double})


@builder
def jitted(to: Path) -> None:
    """x [n, 10] -> y [n, 4] through a function with jit_compile=True that calls another one."""
    import tensorflow as tf

    module = tf.Module()
    module.w1, module.w2 = tf.Variable(_normal(1, 10, 16)), tf.Variable(_normal(3, 16, 4))

    @tf.function(jit_compile=True)
    def inner(x: Any) -> Any:
        return tf.nn.relu(x @ module.w1)

    @tf.function(jit_compile=True)
    def outer(x: Any) -> Any:
        return inner(x) @ module.w2

    @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": outer(x) + 1.0}

    _save(module, to, {"serving_default": serve}, {})


@builder
def indirect(to: Path) -> None:
    """x [n, 4] -> y: alias outer calls alias-less between, which calls alias inner."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(_normal(1, 4, 4))
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
    _save(module, to, {"serving_default": serve}, aliases)


@builder
def features(to: Path) -> None:
    """age, height, weight [n, 1], ids int32 [n, 3], image [n, 16, 16, 3] -> score [n, 1], same int32 [n, 3],
    rows [n, 2], image [n, 16, 16, 3]. Signature two_sizes: x [n, 40], y [m, 40] -> z [n, 40]; fixed: a [2, 3], b [5],
    c [] -> d [5], e [2, 3]. Aliases tpu_func, two_func, fixed_func."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(_normal(1, 3, 1))

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
    _save(module, to, {"serving_default": serve, "two_sizes": two_sizes, "fixed": fixed}, aliases)


def _cnn() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input([16, 16, 3], name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same")(layers.MaxPool2D()(x))
    x = layers.Softmax(name="scores")(layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    return keras.Model(image, x)


@builder
def cnn(to: Path) -> None:
    """Keras functional by tf.saved_model.save: image [n, 16, 16, 3] -> scores [n, 10]; alias tpu_func."""
    import tensorflow as tf

    model = _cnn()

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="image")])
    def tpu_func(image: Any) -> Any:
        return model(image, training=False)

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="image")])
    def serve(image: Any) -> Any:
        return {"scores": tpu_func(image)}

    model.tpu_func = tpu_func
    _save(model, to, {"serving_default": serve}, {"tpu_func": tpu_func})


@builder
def cnn_exported(to: Path) -> None:
    """The same net by model.export: image [n, 16, 16, 3] -> output_0 [n, 10]; no alias, signature serving_default."""
    _cnn().export(str(to), verbose=False)


def _subclassed() -> Any:
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers

    class Transformer(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = layers.Embedding(100, 16)
            self.attention = layers.MultiHeadAttention(2, 8)
            self.norm1, self.norm2 = layers.LayerNormalization(), layers.LayerNormalization()
            self.up, self.down = layers.Dense(32, activation="gelu"), layers.Dense(16)
            self.head = layers.Dense(5, activation="softmax")

        def call(self, ids: Any) -> Any:
            x = self.embedding(ids)
            x = self.norm1(x + self.attention(x, x))
            x = self.norm2(x + self.down(self.up(x)))
            return self.head(x[:, 0])

    model = Transformer()
    model(np.zeros((1, 8), np.int32))
    return model


def _save_with_ids(model: Any, to: Path) -> None:
    """As the documentation has it: an alias for the function that the signature calls."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.int32, name="ids")])
    def tpu_func(ids: Any) -> Any:
        return model(ids)

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.int32, name="ids")])
    def serve(ids: Any) -> Any:
        return {"scores": tpu_func(ids)}

    model.tpu_func = tpu_func
    _save(model, to, {"serving_default": serve}, {"tpu_func": tpu_func})


@builder
def subclassed(to: Path) -> None:
    """Keras subclassed transformer block: ids int32 [n, 8] -> scores [n, 5]; alias tpu_func."""
    _save_with_ids(_subclassed(), to)


@builder
def subclassed_exported(to: Path) -> None:
    """The same by model.export: ids int32 [n, 8] -> output_0 [n, 5]; no alias, signature serving_default."""
    import keras

    _subclassed().export(str(to), verbose=False, input_signature=[keras.InputSpec("int32", [None, 8], name="ids")])


def _transformer() -> Any:
    """Two blocks, functional."""
    import keras

    keras.utils.set_random_seed(2)
    layers = keras.layers
    ids = keras.Input([8], dtype="int32", name="ids")
    x = layers.Embedding(100, 16)(ids)
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, activation="gelu")(x)))
    return keras.Model(ids, layers.Dense(5, activation="softmax", name="scores")(x[:, 0]))


@builder
def transformer(to: Path) -> None:
    """Keras functional, two blocks, by tf.saved_model.save: ids int32 [n, 8] -> scores [n, 5]; alias tpu_func."""
    _save_with_ids(_transformer(), to)


@builder
def transformer_exported(to: Path) -> None:
    """The same net by model.export: ids int32 [n, 8] -> output_0 [n, 5]; no alias, signature serving_default."""
    _transformer().export(str(to), verbose=False)


@builder
def labels(to: Path) -> None:
    """words string [n, 4] -> table -> embedding -> dense -> probs [n, 3], label string [n]; alias dense_func."""
    import tensorflow as tf

    module = tf.Module()
    words = tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], tf.constant([1, 2, 3], tf.int64))
    names = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1, 2], tf.int64), ["neg", "neu", "pos"])
    module.words, module.names = tf.lookup.StaticHashTable(words, 0), tf.lookup.StaticHashTable(names, "?")
    module.table, module.w = tf.Variable(_normal(1, 4, 8)), tf.Variable(_normal(2, 8, 3))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.int64, name="ids")])
    def dense_func(ids: Any) -> Any:
        return tf.nn.softmax(tf.reduce_mean(tf.gather(module.table, ids), 1) @ module.w)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.string, name="words")])
    def serve(words: Any) -> Any:
        probs = dense_func(module.words.lookup(tf.strings.lower(words)))
        return {"probs": probs, "label": module.names.lookup(tf.argmax(probs, 1))}

    module.dense_func = dense_func
    _save(module, to, {"serving_default": serve}, {"dense_func": dense_func})


@builder
def stringy(to: Path) -> None:
    """x [n, 4] -> y [n, 1]: the alias tpu_func has a string operation in its middle, and host_border takes strings."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(_normal(1, 4, 1))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def tpu_func(x: Any) -> Any:
        y = x @ module.w
        return tf.strings.to_number(tf.strings.as_string(y, precision=3)) + y

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def host_border(text: Any) -> Any:
        return tf.strings.length(text)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": tpu_func(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def lengths(text: Any) -> Any:
        return {"length": host_border(text)}

    module.tpu_func, module.host_border = tpu_func, host_border
    aliases = {"tpu_func": tpu_func, "host_border": host_border}
    _save(module, to, {"serving_default": serve, "lengths": lengths}, aliases)


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
    _save(module, to, {"serving_default": serve}, {"tpu_func": tpu_func})


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
    _save(module, to, {"serving_default": serve}, {"tpu_func": tpu_func})


@builder
def mixed(to: Path) -> None:
    """x [n, 4] -> y [n, 4]: alias half computes partly in bfloat16, alias counting writes a variable."""
    import tensorflow as tf

    module = tf.Module()
    module.w, module.calls = tf.Variable(_normal(1, 4, 4)), tf.Variable(0.0)
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
    _save(module, to, {"serving_default": serve, "count": count}, {"half": half, "counting": counting})


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
def shared(to: Path) -> None:
    """x [n, 4] -> y [n, 4]: alias tpu_func multiplies by w and both, the host by both; calls counts in count."""
    import tensorflow as tf

    module = tf.Module()
    module.w, module.both = tf.Variable(_normal(1, 4, 4)), tf.Variable(_normal(2, 4, 4))
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
    _save(module, to, {"serving_default": serve, "count": count}, {"tpu_func": tpu_func})


@builder
def guarded(to: Path) -> None:
    """x [n, 4], size int32 [2] -> y: asserts that x is positive, doubles it in a loop, reshapes to size, multiplies."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(_normal(1, 8, 4))
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x"), tf.TensorSpec([2], tf.int32, name="size")]

    @tf.function(input_signature=spec)
    def serve(x: Any, size: Any) -> Any:
        tf.debugging.assert_positive(x, message="x must be positive")
        for _ in tf.range(3):
            x = x * 2.0
        return {"y": tf.reshape(tf.reshape(x, size), [-1, 8]) @ module.w}

    _save(module, to, {"serving_default": serve}, {})


@builder
def pairs(to: Path) -> None:
    """x [n, 4] with an even n -> y [n / 2, 4]: alias tpu_func multiplies two rows at a time."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(_normal(1, 8, 4))
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]

    @tf.function(input_signature=spec)
    def tpu_func(x: Any) -> Any:
        return tf.reshape(x, [-1, 8]) @ module.w

    @tf.function(input_signature=spec)
    def serve(x: Any) -> Any:
        return {"y": tpu_func(x)}

    module.tpu_func = tpu_func
    _save(module, to, {"serving_default": serve}, {"tpu_func": tpu_func})


@builder
def refused(to: Path) -> None:
    """x [n, 4] -> y [n, 4]: products with between them what no compiler takes: a cumulative sum of int8, and a loop
    with the number of its round as a shape; signature only, x -> y: a cumulative sum of int8 and nothing else."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(_normal(1, 4, 4))
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

    _save(module, to, {"serving_default": serve, "only": only}, {})


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
    _save(module, to, {"serving_default": serve}, {"double": double, "fixed": fixed})


@builder
def middle(to: Path) -> None:
    """x [n, 4] -> y [n, 4], word string [n]: alias before, then a table of numbers as text, then alias after."""
    import tensorflow as tf

    module = tf.Module()
    module.w1, module.w2, module.embedding = (tf.Variable(_normal(i, 4, 4)) for i in (1, 2, 3))
    keys = tf.lookup.KeyValueTensorInitializer(["-1", "0", "1"], tf.constant([1, 2, 3], tf.int64))
    module.table = tf.lookup.StaticHashTable(keys, 0)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def before(x: Any) -> Any:
        return tf.tanh(x @ module.w1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 4], tf.float32)])
    def after(index: Any, x: Any) -> Any:
        return (tf.gather(module.embedding, index) + x) @ module.w2

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        dense = before(x)
        word = tf.strings.as_string(tf.cast(tf.sign(tf.round(2.0 * dense[:, 0])), tf.int32))
        return {"y": after(module.table.lookup(word), dense), "word": word}

    module.before, module.after = before, after
    _save(module, to, {"serving_default": serve}, {"before": before, "after": after})


@builder
def unfit(to: Path) -> None:
    """x [n, 4] -> y [n, 2]. Aliases that cannot be batched: fixed, unequal, total, columns, tokens; that hold what no
    TPU takes: sparse, ragged; whose result's size depends on values: positive. Cures: dense, padded."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(_normal(1, 4, 2))
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

    _save(module, to, {"serving_default": serve, "masked": masked}, traced)
