"""`tabular`: a classifier with string categories and numbers on scikit-learn's breast-cancer measurements.

The set has numbers only, so the categories are made: four of its columns are cut at their quartiles (taken from the
training rows) and named as a pathologist's form would name them, "very low" to "very high"; five columns stay numbers.
The words go through StringLookup layers, the class number becomes its name in a StaticHashTable.

Signature serving_default: five float32 [rows] and four string [rows] inputs -> `label` string [rows] ("benign" or
"malignant") and `probabilities` float32 [rows, 2] in the order malignant, benign. An unknown word counts as unknown.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from demo.held_out import HeldOut

SEED = 11
NUMBERS = ("mean radius", "mean area", "mean symmetry", "worst radius", "worst concave points")
WORDS = ("mean texture", "mean smoothness", "worst compactness", "worst concavity")
LEVELS = (b"very low", b"low", b"high", b"very high")
LABELS = (b"malignant", b"benign")  # the set's classes 0 and 1


def build(version_dir: Path) -> HeldOut:
    """Trains on 70 % of the 569 rows, exports to `version_dir`, returns the other 30 %."""
    keras.utils.set_random_seed(SEED)
    data = load_breast_cancer()
    seen, held, seen_answers, held_answers = train_test_split(
        data.data, data.target, test_size=0.3, stratify=data.target, random_state=SEED
    )
    seen, held = _columns(seen, data.feature_names), _columns(held, data.feature_names)
    cuts = {name: np.quantile(seen[name], [0.25, 0.5, 0.75]) for name in WORDS}
    model = _model(_features(seen, cuts))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="sparse_categorical_crossentropy")
    model.fit(_tensors(_features(seen, cuts)), seen_answers, epochs=40, batch_size=64, verbose=0)
    _export(model, version_dir)
    return HeldOut(_features(held, cuts), np.array(LABELS, object)[held_answers])


def input_name(column: str) -> str:
    """ "mean radius" -> "mean_radius": usable as a JSON key, a Python argument and a TensorFlow name."""
    return column.replace(" ", "_")


def _columns(rows: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    return {str(name): rows[:, i] for i, name in enumerate(names)}


def _features(columns: dict[str, np.ndarray], cuts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    numbers = {input_name(n): columns[n].astype(np.float32) for n in NUMBERS}
    words = {input_name(n): np.array(LEVELS, object)[np.searchsorted(cuts[n], columns[n])] for n in WORDS}
    return numbers | words


def _tensors(features: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in features.items()}


def _model(features: dict[str, np.ndarray]) -> keras.Model:
    layers = keras.layers
    inputs, parts = {}, []
    for name, array in features.items():
        word = array.dtype == object
        inputs[name] = keras.Input([], name=name, dtype="string" if word else "float32")
        if word:
            index = layers.StringLookup(vocabulary=[level.decode() for level in LEVELS])(inputs[name])
            parts.append(layers.Embedding(len(LEVELS) + 1, 4)(index))
        else:
            scale = layers.Normalization(axis=None, mean=array.mean(), variance=array.var())
            parts.append(layers.Reshape([1])(scale(inputs[name])))
    x = layers.Dense(32, activation="relu")(layers.Concatenate()(parts))
    x = layers.Dense(16, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


def _export(model: keras.Model, version_dir: Path) -> None:
    keys = tf.range(len(LABELS), dtype=tf.int64)
    names = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.constant(LABELS)), b"")
    spec = {name: tf.TensorSpec([None], tensor.dtype, name=name) for name, tensor in model.input.items()}

    @tf.function(input_signature=[spec])
    def classify(features):
        probabilities = model(features, training=False)
        return {"label": names.lookup(tf.argmax(probabilities, axis=1)), "probabilities": probabilities}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", classify)
    archive._tf_trackable.labels = names
    archive.write_out(version_dir, verbose=False)
