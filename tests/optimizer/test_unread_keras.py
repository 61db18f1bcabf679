"""Transformers of Keras 3's layers of which one token is read: it alone goes through the last block's layers."""

from __future__ import annotations

import numpy as np
import pytest
from frozengraphs import Frozen, check_unread
from textencoders import POSITIONS, ids_and_mask, text_specs

pytestmark = pytest.mark.tensorflow

HEADS, SIZE, WIDTH = 4, 6, 24
PATCHES = 16


def block(x, before, **attention):
    """`before`: normalized before the layers, as a vision transformer is, and not behind them."""
    import keras
    from keras import layers

    def normalized(y, here):
        return layers.LayerNormalization()(y) if here else y

    y = normalized(x, before)
    y = layers.MultiHeadAttention(HEADS, SIZE)(y, y, **attention)
    x = normalized(layers.Add()([x, y]), not before)
    y = normalized(x, before)
    y = layers.Dense(WIDTH)(layers.Dense(2 * WIDTH, activation=keras.activations.gelu)(y))
    return normalized(x + y, not before)


def text(pick, positions=POSITIONS, **attention):
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    ids, mask = (keras.Input([positions], dtype="int32", name=name) for name in ("ids", "mask"))
    x = layers.Embedding(30, WIDTH)(ids)
    seen = keras.ops.expand_dims(mask, 1) > 0
    for _ in range(2):
        x = block(x, before=False, attention_mask=seen, **attention)
    model = keras.Model([ids, mask], layers.Dense(2)(pick(x)))
    return Frozen(lambda a, b: model([a, b]), *text_specs(positions))


def shrunk(positions):
    """The sizes of the last block's products for 3 rows: all tokens', and those of one token."""
    whole, one, scores = 3 * positions * WIDTH, 3 * WIDTH, 3 * HEADS * positions
    return [whole] * 6 + [2 * whole, scores * positions], [whole] * 2 + [one] * 4 + [2 * one, scores]


@pytest.mark.parametrize("positions", [POSITIONS, None])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("place", [0, -1])
def test_text(positions, causal, place):
    whole, one = shrunk(POSITIONS)
    frozen = text(lambda x: x[:, place], positions, use_causal_mask=causal)
    assert check_unread(frozen, ids_and_mask) == (6, sorted([*whole, *whole, 6]), sorted([*whole, *one, 6]))


def test_a_token_taken_by_keras_ops():
    import keras

    whole, one = shrunk(POSITIONS)
    found, _, after = check_unread(text(lambda x: keras.ops.take(x, 0, axis=1)), ids_and_mask)
    assert (found, after) == (6, sorted([*whole, *one, 6]))


def test_the_mean_of_all_tokens():
    from keras import layers

    assert text(layers.GlobalAveragePooling1D()).unread()[1] == 0


def test_a_vision_transformer_with_a_class_token():
    import keras
    import tensorflow as tf
    from keras import layers

    class Classified(layers.Layer):
        def build(self, shape):
            self.token, self.places = self.add_weight((1, 1, WIDTH)), self.add_weight((1, PATCHES + 1, WIDTH))

        def call(self, x):
            tokens = keras.ops.broadcast_to(self.token, [keras.ops.shape(x)[0], 1, WIDTH])
            return keras.ops.concatenate([tokens, x], 1) + self.places

    keras.utils.set_random_seed(3)
    image = keras.Input([16, 16, 3])
    x = Classified()(layers.Reshape([PATCHES, WIDTH])(layers.Conv2D(WIDTH, 4, 4)(image)))
    for _ in range(2):
        x = block(x, before=True)
    model = keras.Model(image, layers.Dense(5)(layers.LayerNormalization()(x)[:, 0]))
    frozen = Frozen(model, tf.TensorSpec([None, 16, 16, 3]))
    whole, one = shrunk(PATCHES + 1)

    def images(rows):
        return (np.random.default_rng(rows).random((rows, 16, 16, 3), np.float32),)

    assert check_unread(frozen, images) == (6, sorted([*whole, *whole, 15]), sorted([*whole, *one, 15]))
