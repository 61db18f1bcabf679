"""Keras networks, each by tf.saved_model.save and by model.export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from builders.registry import Builders
from builders.tpu.saving import save

builder = BUILDERS = Builders()


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
    save(model, to, {"serving_default": serve}, {"tpu_func": tpu_func})


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
    save(model, to, {"serving_default": serve}, {"tpu_func": tpu_func})


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
