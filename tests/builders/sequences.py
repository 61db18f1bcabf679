"""Models of sequences, most of any length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.registry import Builders, normal, save, seeded

builder = BUILDERS = Builders()


@builder
def sequence(to: Path) -> None:
    """tokens int32 [n, length], both unknown -> states [n, length, 8], pooled [n, 8]; token 0 is padding."""
    import tensorflow as tf

    rng, module = seeded(), tf.Module()
    module.table, module.dense = tf.Variable(normal(rng, 50, 8)), tf.Variable(normal(rng, 8, 8))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="tokens")])
    def serve(tokens: Any) -> Any:
        states = tf.tanh(tf.tensordot(tf.gather(module.table, tokens), module.dense, 1))
        mask = tf.cast(tokens > 0, tf.float32)[:, :, None]
        pooled = tf.reduce_sum(states * mask, 1) / tf.maximum(tf.reduce_sum(mask, 1), 1.0)
        return {"states": states, "pooled": pooled}

    save(module, to, serving_default=serve)


@builder
def encoder(to: Path) -> None:
    """A BERT in small: ids int32 [n, length], mask int32 [n, length] -> states [n, length, 16], scores [n, 4].

    One layer of attention that the mask rules, so requests may be padded; positions are added.
    """
    import tensorflow as tf

    rng, module = seeded(), tf.Module()
    for name, shape in {
        "table": (60, 16),
        "places": (256, 16),
        "qkv": (16, 48),
        "out": (16, 16),
        "top": (16, 4),
    }.items():
        setattr(module, name, tf.Variable(normal(rng, *shape)))

    lengths = [tf.TensorSpec([None, None], tf.int32, name=name) for name in ("ids", "mask")]

    @tf.function(input_signature=lengths)
    def serve(ids: Any, mask: Any) -> Any:
        hidden = tf.gather(module.table, ids) + module.places[None, : tf.shape(ids)[1]]
        query, key, value = tf.split(tf.tensordot(hidden, module.qkv, 1), 3, -1)
        unseen = (1.0 - tf.cast(mask, tf.float32))[:, None, :] * -1e9
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / 4.0 + unseen)
        states = tf.nn.gelu(tf.tensordot(tf.matmul(weights, value), module.out, 1))
        return {"states": states, "scores": tf.nn.softmax(tf.tensordot(states[:, 0], module.top, 1))}

    save(module, to, serving_default=serve)


@builder
def averaged(to: Path) -> None:
    """tokens int32 [n, length] -> mean [n, 8] of all embeddings, that of token 0 too: padding changes the answer."""
    import tensorflow as tf

    rng, module = seeded(), tf.Module()
    module.table = tf.Variable(normal(rng, 50, 8))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="tokens")])
    def serve(tokens: Any) -> Any:
        return {"mean": tf.reduce_mean(tf.gather(module.table, tokens), 1)}

    save(module, to, serving_default=serve)


@builder
def recurrent(to: Path) -> None:
    """Keras: tokens int32 [n, 24] -> embedding, LSTM, GRU, scores float [n, 4]."""
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers
    tokens = keras.Input([24], dtype="int32", name="tokens")
    states = layers.LSTM(16, return_sequences=True)(layers.Embedding(50, 16)(tokens))
    scores = layers.Dense(4, "softmax", name="scores")(layers.GRU(16)(states))
    keras.Model(tokens, {"scores": scores}).export(to, verbose=False)
