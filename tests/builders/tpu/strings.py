"""Strings and tables before, after and amid what a TPU computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.registry import Builders
from builders.tpu.saving import save, weights

builder = BUILDERS = Builders()


@builder
def labels(to: Path) -> None:
    """words string [n, 4] -> table -> embedding -> dense -> probs [n, 3], label string [n]; alias dense_func."""
    import tensorflow as tf

    module = tf.Module()
    words = tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], tf.constant([1, 2, 3], tf.int64))
    names = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1, 2], tf.int64), ["neg", "neu", "pos"])
    module.words, module.names = tf.lookup.StaticHashTable(words, 0), tf.lookup.StaticHashTable(names, "?")
    module.table, module.w = tf.Variable(weights(1, 4, 8)), tf.Variable(weights(2, 8, 3))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.int64, name="ids")])
    def dense_func(ids: Any) -> Any:
        return tf.nn.softmax(tf.reduce_mean(tf.gather(module.table, ids), 1) @ module.w)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.string, name="words")])
    def serve(words: Any) -> Any:
        probs = dense_func(module.words.lookup(tf.strings.lower(words)))
        return {"probs": probs, "label": module.names.lookup(tf.argmax(probs, 1))}

    module.dense_func = dense_func
    save(module, to, {"serving_default": serve}, {"dense_func": dense_func})


@builder
def stringy(to: Path) -> None:
    """x [n, 4] -> y [n, 1]: the alias tpu_func has a string operation in its middle, and host_border takes strings."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(weights(1, 4, 1))

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
    save(module, to, {"serving_default": serve, "lengths": lengths}, aliases)


@builder
def middle(to: Path) -> None:
    """x [n, 4] -> y [n, 4], word string [n]: alias before, then a table of numbers as text, then alias after."""
    import tensorflow as tf

    module = tf.Module()
    module.w1, module.w2, module.embedding = (tf.Variable(weights(i, 4, 4)) for i in (1, 2, 3))
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
    save(module, to, {"serving_default": serve}, {"before": before, "after": after})
