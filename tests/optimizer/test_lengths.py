"""Graphs of a fixed length whose length was opened: on the beginnings of texts they answer as the whole did."""

from __future__ import annotations

import numpy as np
import pytest
from openedgraphs import RAGGED, SIZE, WORDS, Opened, texts
from tfopt_optimizer.engines import inferred
from tfopt_optimizer.errors import NotLowerable

pytestmark = pytest.mark.tensorflow

HEADS = 2
random = np.random.default_rng(4)


def weight(*shape):
    return (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def refused(function, **more):
    with pytest.raises(NotLowerable) as caught:
        Opened(function, **more)
    return str(caught.value)


class Bert:
    """BERT's arithmetic; `heads` says how the width is divided, `dense` how a layer is computed."""

    def __init__(self, width=24, dense=None):
        import tensorflow as tf

        self.tf, self.width, self.dense = tf, width, dense or tf.matmul
        self.table, self.places = weight(WORDS, width) * 4, weight(SIZE, width) * 4
        shapes = [(width, width)] * 4 + [(width, 2 * width), (2 * width, width)]
        self.blocks = [[weight(*shape) for shape in shapes] for _ in range(2)]

    def norm(self, x):
        mean, variance = self.tf.nn.moments(x, [-1], keepdims=True)
        return self.tf.nn.batch_normalization(
            x, mean, variance, np.zeros(self.width, "f"), np.ones(self.width, "f"), 1e-6
        )

    def split(self, x):
        tf = self.tf
        return tf.transpose(tf.reshape(x, [-1, SIZE, HEADS, self.width // HEADS]), [0, 2, 1, 3])

    def __call__(self, ids, mask, hidden=None):
        tf, dense = self.tf, self.dense
        x = self.norm(tf.gather(self.table, ids) + self.places)
        hidden = (1.0 - tf.cast(mask[:, None, None, :], tf.float32)) * -10000.0 if hidden is None else hidden
        for query, key, value, out, wide, narrow in self.blocks:
            scores = tf.matmul(self.split(dense(x, query)), self.split(dense(x, key)), transpose_b=True)
            mixed = tf.matmul(tf.nn.softmax(scores / np.float32(3.0) + hidden), self.split(dense(x, value)))
            joined = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, SIZE, self.width])
            x = self.norm(x + dense(joined, out))
            x = self.norm(x + dense(tf.nn.gelu(dense(x, wide)), narrow))
        return x


@pytest.mark.parametrize("slices", [False, True])
@pytest.mark.parametrize("width", [24, SIZE])
def test_a_bert_that_reads_its_first_token(width, slices):
    """Also where its width is the length: which is which is told by the place."""
    bert = Bert(width)
    Opened(lambda ids, mask: bert(ids, mask)[:, 0], slices=slices).check()


def test_layers_that_merge_rows_and_positions():
    """As Keras 2's Dense does on three dimensions."""
    import tensorflow as tf

    def dense(x, kernel):
        flat = tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel)
        return tf.reshape(tf.nn.bias_add(flat, np.ones(kernel.shape[1], "f")), [-1, SIZE, kernel.shape[1]])

    bert = Bert(dense=dense)
    Opened(lambda ids, mask: bert(ids, mask)[:, 0]).check()


def test_layers_whose_shapes_are_computed():
    """As Keras' tensordot does where the number of rows is not known."""
    import tensorflow as tf

    bert = Bert(dense=lambda x, kernel: tf.tensordot(x, kernel, [[2], [0]]))
    Opened(lambda ids, mask: bert(ids, mask)[:, 0]).check()


def test_a_mask_made_of_ids_and_one_as_large_as_floats_go():
    import tensorflow as tf

    bert = Bert()

    def lowest(ids):
        hidden = tf.where(tf.not_equal(ids, 0)[:, None, None, :], 0.0, np.finfo(np.float32).min)
        return bert(ids, ids, hidden)[:, 0]

    Opened(lowest, inputs=1).check(lambda longest, rows: texts(longest, rows)[:1])


def test_a_causal_mask_of_constants():
    import tensorflow as tf

    bert = Bert()
    causal = np.where(np.tril(np.ones((SIZE, SIZE), np.float32)) == 1, 0.0, -10000.0).astype(np.float32)

    def first(ids, mask):
        hidden = (1.0 - tf.cast(mask[:, None, None, :], tf.float32)) * -10000.0 + causal
        return bert(ids, mask, hidden)[:, 0]

    Opened(first).check()


@pytest.mark.parametrize("positions", ["gathered", "counted"])
def test_positions_that_are_looked_up(positions):
    import tensorflow as tf

    table, places, kernel = weight(WORDS, 8), weight(SIZE + 1, 8), weight(8, 3)

    def answer(ids, mask):
        where = tf.range(SIZE) if positions == "gathered" else tf.cumsum(mask, 1) * mask
        x = tf.gather(table, ids) + tf.gather(places, where)
        return tf.reduce_sum(x * tf.cast(mask, tf.float32)[..., None], 1) @ kernel

    Opened(answer).check()


def test_positions_of_a_constant_as_many_as_ids():
    """The shape that is asked for is the ids' own, which have fewer now."""
    import tensorflow as tf

    table, places = weight(WORDS, 8), weight(SIZE, 8)

    def answer(ids, mask):
        where = tf.broadcast_to(tf.range(SIZE)[None], tf.shape(ids))
        x = tf.gather(table, ids) + tf.gather(places, where)
        return tf.reduce_sum(x * tf.cast(mask, tf.float32)[..., None], 1)

    Opened(answer).check()


def test_token_types_and_shapes_by_the_number_of_rows():
    """As transformers write BERT: the length is what Reshape's -1 leaves."""
    import tensorflow as tf

    bert, kinds, pooled = Bert(), weight(2, 24), weight(24, 24)

    def answer(ids, mask, types):
        rows = tf.shape(ids)[0]
        places = tf.gather(bert.places, tf.range(SIZE)[None])
        x = bert.norm(tf.gather(bert.table, ids) + places + tf.gather(kinds, types))
        seen = tf.cast(tf.reshape(mask, (rows, 1, 1, SIZE)), tf.float32)
        for query, key, value, *_ in bert.blocks:
            heads = [
                tf.transpose(tf.reshape(tf.tensordot(x, kernel, 1), (rows, -1, HEADS, 12)), (0, 2, 1, 3))
                for kernel in (query, key, value)
            ]
            scores = tf.matmul(heads[0], heads[1], transpose_b=True) + (1.0 - seen) * -1e9
            mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), heads[2]), (0, 2, 1, 3))
            x = bert.norm(x + tf.reshape(mixed, (rows, -1, 24)))
        return tf.tanh(tf.squeeze(x[:, 0:1], 1) @ pooled)

    Opened(answer, inputs=3).check(lambda longest, rows: (*texts(longest, rows), texts(longest, rows)[1]))


@pytest.mark.parametrize("layer", ["LSTM", "GRU"])
def test_layers_that_go_from_position_to_position_are_refused(layer):
    import keras

    ids = keras.Input([SIZE], dtype="int32")
    x = getattr(keras.layers, layer)(4)(keras.layers.Embedding(WORDS, 8, mask_zero=True)(ids))
    model = keras.Model(ids, x)
    said = refused(lambda ids: model(ids, training=False), inputs=1)
    assert said.startswith("TensorListFromTensor")
    assert said.endswith("is not known to take another length")


def test_means_over_tokens():
    import tensorflow as tf

    table = weight(WORDS, 8)

    def answer(ids, mask):
        real = tf.cast(mask, tf.float32)[:, :, None]
        return tf.reduce_sum(tf.gather(table, ids) * real, 1) / tf.maximum(tf.reduce_sum(real, 1), 1e-9)

    Opened(answer).check()


def test_attention_pooling_by_a_softmax_over_positions():
    """TensorFlow computes the transposition for it from the rank."""
    import tensorflow as tf

    def pooled(ids, mask):
        x = tf.gather(TABLE, ids)
        scores = x @ weight(8, 1) + (1 - tf.cast(mask, tf.float32))[:, :, None] * -1e9
        return tf.reduce_sum(tf.nn.softmax(scores, axis=1) * x, 1)

    Opened(pooled).check()


def test_sums_by_letters():
    import tensorflow as tf

    table, kernel = weight(WORDS, 8), weight(8, 2, 4)

    def answer(ids, mask):
        x = tf.einsum("bld,dhk->blhk", tf.gather(table, ids), kernel)
        scores = tf.einsum("blhk,bmhk->bhlm", x, x) + (tf.cast(mask, tf.float32)[:, None, None, :] - 1.0) * 1e9
        return tf.einsum("bhlm,bmhk->blhk", tf.nn.softmax(scores), x)[:, 0]

    Opened(answer).check()


def keras_model(pooled, *, causal=False):
    import keras

    layers = keras.layers
    ids, mask = (keras.Input([SIZE], dtype="int32", name=name) for name in ("ids", "mask"))
    places = layers.Embedding(SIZE, 16)(keras.ops.arange(SIZE)[None])
    x = layers.LayerNormalization()(layers.Embedding(WORDS, 16)(ids) + places)
    attention = keras.ops.cast(mask, "bool")[:, None, :]
    for _ in range(2):
        mixed = layers.MultiHeadAttention(2, 8)(x, x, attention_mask=attention, use_causal_mask=causal)
        x = layers.LayerNormalization()(x + layers.Dropout(0.1)(mixed))
        hidden = layers.Dense(16)(layers.Dense(32, "gelu")(x))
        x = layers.LayerNormalization()(x + hidden)
    x = layers.GlobalAveragePooling1D()(x, mask=keras.ops.cast(mask, "bool")) if pooled else x[:, 0]
    return keras.Model([ids, mask], layers.Dense(3)(x))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
def test_a_transformer_of_keras_layers(pooled, causal):
    """A causal mask is made of ones of the shape that the scores have, and of constants."""
    model = keras_model(pooled, causal=causal)
    opened = Opened(lambda ids, mask: model([ids, mask], training=False))
    assert opened.products > 8
    opened.check()
    opened.check_packed(RAGGED[:4])


def test_a_keras_model_whose_embedding_makes_the_mask():
    import keras

    layers = keras.layers
    ids = keras.Input([SIZE], dtype="int32")
    x = layers.Embedding(WORDS, 8, mask_zero=True)(ids)
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, "relu")(x))
    model = keras.Model(ids, layers.Dense(2)(x))
    Opened(lambda ids: model(ids, training=False), inputs=1).check(lambda longest, rows: texts(longest, rows)[:1])


TABLE = weight(WORDS, 8)


def looked_up(function):
    import tensorflow as tf

    return lambda ids, mask: function(tf, tf.gather(TABLE, ids))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda tf, x: x, "output 'answer' has the length as an axis"),
        (lambda tf, x: tf.reshape(x, [-1, SIZE * 8]), "mixes positions with others"),
        (lambda tf, x: x[:, -1], "reads position -1"),
        (lambda tf, x: x[:, 5], "reads position 5"),
        (lambda tf, x: x[:, 2:9], "reads positions 2 to 9"),
        (
            lambda tf, x: tf.nn.conv1d(x, np.ones((3, 8, 4), "f"), 2, "VALID")[:, 0],
            "is not known to take another length",
        ),
        (lambda tf, x: tf.concat([tf.zeros_like(x[:, :1]), x], 1)[:, 0], "puts something before or behind"),
        (lambda tf, x: tf.reverse(x, [1])[:, 0], "is not known to take another length"),
        (lambda tf, x: tf.cumsum(x, 1, reverse=True)[:, 0], "counts from the last position"),
        (lambda tf, x: tf.tile(x, [1, 2, 1])[:, 0], "repeats the positions"),
        (lambda tf, x: tf.split(x, 2, 1)[0][:, 0], "divides the 32 positions"),
        (lambda tf, x: tf.cast(tf.argmax(x, 1), tf.float32) * 0.1, "looks for one of the positions"),
    ],
)
def test_what_needs_all_positions_is_refused_by_name(function, said):
    assert said in refused(looked_up(function))


def test_a_length_that_was_left_open_is_opened_on_every_input():
    import tensorflow as tf

    opened = Opened(lambda ids, mask: tf.reduce_sum(tf.gather(TABLE, ids) * tf.cast(mask, tf.float32)[..., None], 1))
    shapes = inferred.of_tensors(tf, opened.graph)
    assert [shapes[name] for name in opened.inputs] == [(None, None)] * 2
    shapes = inferred.of_tensors(tf, opened.pinned(7))
    assert [shapes[name] for name in opened.inputs] == [(None, 7)] * 2
