"""Builds one benchmark model: `python -m benchmarks.build_models NAME`. Random weights from fixed seeds."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tfopt_warmup import records

from benchmarks import models

SEED = 5


class Weights:
    """Makes float32 variables from one seeded generator, and keeps them for the module that owns them."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(SEED)
        self.all: list[tf.Variable] = []

    def matrix(self, rows: int, columns: int, scale: float | None = None) -> tf.Variable:
        scale = scale or 1 / np.sqrt(rows)
        return self._keep(self.random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale))

    def vector(self, size: int, value: float = 0.0) -> tf.Variable:
        return self._keep(np.full(size, value, np.float32))

    def _keep(self, array: np.ndarray) -> tf.Variable:
        self.all.append(tf.Variable(array))
        return self.all[-1]

    def dense(self, rows: int, columns: int) -> Callable[[tf.Tensor], tf.Tensor]:
        kernel, bias = self.matrix(rows, columns), self.vector(columns)
        return lambda x: tf.matmul(x, kernel) + bias

    def norm(self, size: int) -> Callable[[tf.Tensor], tf.Tensor]:
        scale, shift = self.vector(size, 1.0), self.vector(size)

        def apply(x: tf.Tensor) -> tf.Tensor:
            mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
            return tf.nn.batch_normalization(x, mean, variance, shift, scale, 1e-12)

        return apply


def mlp(place: Path) -> None:
    layers = keras.layers
    x = keras.Input([32], name="x")
    hidden = layers.Dense(64, "relu")(layers.Dense(64, "relu")(x))
    keras.Model(x, layers.Dense(3, "softmax")(hidden)).export(place, verbose=False)


def tabular(place: Path) -> None:
    """Click prediction: 26 look-up tables of 1000 words, a 1000x32 embedding each, and 13 log-scaled numbers."""
    weights = Weights()
    vocabulary = tf.constant([models.word(i) for i in range(models.WORDS)])
    ids = tf.range(models.WORDS, dtype=tf.int64)
    names = [f"word_{i:02d}" for i in range(26)]
    tables = [tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(vocabulary, ids), 0) for _ in names]
    embeddings = [weights.matrix(models.WORDS, 32, 0.05) for _ in names]
    sizes = (26 * 32 + 13, 1024, 1024, 512, 256)
    hidden = [weights.dense(a, b) for a, b in itertools.pairwise(sizes)]
    last = weights.dense(256, 1)

    def click(feeds: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        looked_up = [tf.gather(e, t.lookup(feeds[n])) for n, t, e in zip(names, tables, embeddings, strict=True)]
        x = tf.concat([tf.math.log1p(feeds["numbers"]), *looked_up], axis=1)
        for layer in hidden:
            x = tf.nn.relu(layer(x))
        return {"probability": tf.squeeze(tf.sigmoid(last(x)), axis=1)}

    spec = {"numbers": tf.TensorSpec([None, 13], tf.float32, name="numbers")}
    spec |= {name: tf.TensorSpec([None], tf.string, name=name) for name in names}
    _save(place, click, spec, weights, tables)


def bert(place: Path, depth: int, width: int) -> None:
    """BERT's encoder with its attention mask, a pooler on the first token, and two logits."""
    weights, heads = Weights(), width // 64
    words = weights.matrix(models.VOCABULARY, width, 0.02)
    places = weights.matrix(models.TOKENS, width, 0.02)
    first = weights.norm(width)
    blocks = [_block(weights, width, heads) for _ in range(depth)]
    pooler, head = weights.dense(width, width), weights.dense(width, 2)

    def classify(feeds: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        x = first(tf.gather(words, feeds["input_ids"]) + places)
        hidden_away = 1.0 - tf.cast(feeds["attention_mask"][:, None, None, :], tf.float32)
        for block in blocks:
            x = block(x, hidden_away * -10000.0)
        return {"logits": head(tf.tanh(pooler(x[:, 0])))}

    spec = {n: tf.TensorSpec([None, models.TOKENS], tf.int32, name=n) for n in ("input_ids", "attention_mask")}
    _save(place, classify, spec, weights, [])


def _block(weights: Weights, width: int, heads: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    query, key, value, out = (weights.dense(width, width) for _ in range(4))
    wide, narrow = weights.dense(width, 4 * width), weights.dense(4 * width, width)
    after_attention, after_hidden = weights.norm(width), weights.norm(width)
    size = width // heads

    def split(x: tf.Tensor) -> tf.Tensor:
        return tf.transpose(tf.reshape(x, [-1, models.TOKENS, heads, size]), [0, 2, 1, 3])

    def apply(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        scores = tf.matmul(split(query(x)), split(key(x)), transpose_b=True) / np.sqrt(size)
        mixed = tf.matmul(tf.nn.softmax(scores + bias), split(value(x)))
        joined = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, models.TOKENS, width])
        x = after_attention(x + out(joined))
        return after_hidden(x + narrow(tf.nn.gelu(wide(x), approximate=False)))

    return apply


def image_net(place: Path, make: Callable[..., keras.Model]) -> None:
    # Logits, not probabilities: the softmax of a random net can be so sharp that any error would pass a comparison.
    image = keras.Input([224, 224, 3], name="image")
    net = make(weights=None, input_tensor=image, classifier_activation=None)
    keras.Model(image, net(image)).export(place, verbose=False)


def _save(place: Path, function, spec: dict[str, tf.TensorSpec], weights: Weights, tables: list) -> None:
    module = tf.Module()
    module.weights, module.tables = weights.all, tables
    module.serve = tf.function(function, input_signature=[spec], autograph=False)
    signature = tf.function(lambda **feeds: module.serve(feeds), autograph=False).get_concrete_function(**spec)
    tf.saved_model.save(module, str(place), signatures={models.SIGNATURE: signature})


BUILDERS: dict[str, Callable[[Path], None]] = {
    "mlp": mlp,
    "tabular": tabular,
    "bert_small": lambda place: bert(place, 4, 256),
    "bert_base": lambda place: bert(place, 12, 768),
    "mobilenet_v2": lambda place: image_net(place, keras.applications.MobileNetV2),
    "resnet50": lambda place: image_net(place, keras.applications.ResNet50),
}


def main(name: str) -> int:
    """Builds beside the model's place and moves it there at the end: an interrupted build leaves no half model."""
    model = models.MODELS[name]
    part = models.ROOT / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    keras.utils.set_random_seed(SEED)
    BUILDERS[name](part / "1")
    logs = (records.predict_log(name, models.SIGNATURE, feeds) for feeds in model.samples())
    records.write(records.path_in(part / "1"), logs)
    shutil.rmtree(model.base, ignore_errors=True)
    part.rename(model.base)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
