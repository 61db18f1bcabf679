"""`digits`: a Keras 3 convolutional net on scikit-learn's 8x8 images of handwritten digits, written by `model.export`.

Signature serving_default: `image` float32 [rows, 8, 8] (ink 0..16) -> `output_0` float32 [rows, 10] (probabilities).
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from demo.held_out import HeldOut

SEED = 7


def build(version_dir: Path) -> HeldOut:
    """Trains on 70 % of the 1797 images, exports to `version_dir`, returns the other 30 %."""
    keras.utils.set_random_seed(SEED)
    data = load_digits()
    images, answers = data.images.astype(np.float32), data.target.astype(np.int64)
    seen, held, seen_answers, held_answers = train_test_split(
        images, answers, test_size=0.3, stratify=answers, random_state=SEED
    )
    model = _model()
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")
    model.fit(seen, seen_answers, epochs=12, batch_size=64, verbose=0)
    model.export(version_dir, verbose=False)
    return HeldOut({"image": held}, held_answers)


def _model() -> keras.Model:
    layers = keras.layers
    image = keras.Input([8, 8], name="image")
    x = layers.Reshape([8, 8, 1])(layers.Rescaling(1 / 16)(image))
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Flatten()(layers.MaxPool2D()(x))
    x = layers.Dropout(0.3)(layers.Dense(64, activation="relu")(x))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))
