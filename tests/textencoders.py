"""BERT-like encoders as of benchmarks/build_models.py, small: tokens and a mask in, a vector per token out."""

from __future__ import annotations

import numpy as np

POSITIONS, WIDTH, HEADS = 16, 24, 3


def ids_and_mask(rows):
    random = np.random.default_rng(rows)
    mask = np.arange(POSITIONS) < random.integers(1, POSITIONS, (rows, 1))
    return random.integers(0, 30, (rows, POSITIONS), np.int32), mask.astype(np.int32)


class Weights:
    def __init__(self):
        self.random = np.random.default_rng(3)

    def variable(self, *shape):
        import tensorflow as tf

        return tf.Variable(self.random.normal(0, 1 / np.sqrt(shape[0]), shape).astype(np.float32))

    def dense(self, rows, columns):
        import tensorflow as tf

        kernel, bias = self.variable(rows, columns), self.variable(columns)
        return lambda x: tf.matmul(x, kernel) + bias

    def norm(self, size):
        import tensorflow as tf

        scale, shift = self.variable(size), self.variable(size)

        def apply(x):
            mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
            return tf.nn.batch_normalization(x, mean, variance, shift, scale, 1e-12)

        return apply


def block(weights, positions=POSITIONS):
    """As in benchmarks/build_models.py. `positions`: -1 where any number of them may come; reshaped as transformers
    does it then, by the number of rows."""
    import tensorflow as tf

    query, key, value, out = (weights.dense(WIDTH, WIDTH) for _ in range(4))
    wide, narrow = weights.dense(WIDTH, 2 * WIDTH), weights.dense(2 * WIDTH, WIDTH)
    after_attention, after_hidden = weights.norm(WIDTH), weights.norm(WIDTH)
    size = WIDTH // HEADS

    def apply(x, bias):
        rows = -1 if positions > 0 else tf.shape(x)[0]

        def split(y):
            return tf.transpose(tf.reshape(y, [rows, positions, HEADS, size]), [0, 2, 1, 3])

        scores = tf.matmul(split(query(x)), split(key(x)), transpose_b=True) / np.float32(np.sqrt(size))
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores + bias), split(value(x))), [0, 2, 1, 3])
        x = after_attention(x + out(tf.reshape(mixed, [rows, positions, WIDTH])))
        return after_hidden(x + narrow(tf.nn.gelu(wide(x), approximate=False)))

    return apply


def encoder(depth=2, positions=POSITIONS):
    import tensorflow as tf

    weights = Weights()
    words, places, first = weights.variable(30, WIDTH), weights.variable(POSITIONS, WIDTH), weights.norm(WIDTH)
    blocks = [block(weights, positions) for _ in range(depth)]

    def encode(ids, mask):
        x = first(tf.gather(words, ids) + places[: tf.shape(ids)[1]])
        hidden_away = 1.0 - tf.cast(mask[:, None, None, :], tf.float32)
        for each in blocks:
            x = each(x, hidden_away * -10000.0)
        return x

    return encode, weights.dense(WIDTH, 2)


def text_specs(positions=POSITIONS):
    import tensorflow as tf

    return [tf.TensorSpec([None, positions], tf.int32, name=name) for name in ("ids", "mask")]
