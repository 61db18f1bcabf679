"""Writes the SavedModels of the test suite; each docstring says the inputs and outputs. Run by savedmodels.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BUILDERS: dict[str, Callable[[Path], None]] = {}


def builder(build: Callable[[Path], None]) -> Callable[[Path], None]:
    BUILDERS[build.__name__] = build
    return build


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def _normal(rng: np.random.Generator, *shape: int) -> Any:
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def _save(module: Any, to: Path, **signatures: Any) -> None:
    import tensorflow as tf

    tf.saved_model.save(module, str(to), signatures=signatures)


# --- the plain ones ---------------------------------------------------------------------------------------------------


@builder
def half_plus_two(to: Path) -> None:
    """TF2: x float [n, 1] -> y = x / 2 + 2."""
    import tensorflow as tf

    module = tf.Module()
    module.a, module.b = tf.Variable(0.5), tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": module.a * x + module.b}

    _save(module, to, serving_default=serve)


def _half_plus_two_v1(to: Path, resource: bool) -> None:
    """TF1: the signatures of TensorFlow Serving's own test model, predict and tf.Example ones."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=0.5, use_resource=resource)
        b = v1.get_variable("b", initializer=2.0, use_resource=resource)
        c = v1.get_variable("c", initializer=3.0, use_resource=resource)
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        features = v1.io.parse_example(
            examples, {"x": v1.FixedLenFeature([1], tf.float32), "x2": v1.FixedLenFeature([1], tf.float32, [0.0])}
        )
        x = tf.identity(features["x"], name="x")  # fed directly by the predict signature
        y = tf.add(tf.multiply(a, x), b, name="y")
        y2 = tf.add(tf.multiply(a, x), c, name="y2")
        y3 = tf.add(tf.multiply(a, features["x2"]), c, name="y3")
        label = tf.as_string(tf.cast(y, tf.int32), name="label")
        info, define = v1.saved_model.utils.build_tensor_info, v1.saved_model.signature_def_utils.build_signature_def
        inputs = {"inputs": info(examples)}
        signatures = {
            "serving_default": define({"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict"),
            "regress_x_to_y": define(inputs, {"outputs": info(y)}, "tensorflow/serving/regress"),
            "regress_x_to_y2": define(inputs, {"outputs": info(y2)}, "tensorflow/serving/regress"),
            "regress_x2_to_y3": define(inputs, {"outputs": info(y3)}, "tensorflow/serving/regress"),
            "classify_x_to_y": define(
                inputs, {"classes": info(label), "scores": info(y)}, "tensorflow/serving/classify"
            ),
            "classify_scores_only": define(inputs, {"scores": info(y)}, "tensorflow/serving/classify"),
        }
        session.run(v1.global_variables_initializer())
        saver = v1.saved_model.Builder(str(to))
        saver.add_meta_graph_and_variables(session, ["serve"], signatures)
        saver.save()


@builder
def half_plus_two_v1(to: Path) -> None:
    """TF1 with resource variables. On tf.Example: classify_x_to_y, classify_scores_only, regress_x_to_y ...."""
    _half_plus_two_v1(to, resource=True)


@builder
def half_plus_two_v1_ref(to: Path) -> None:
    """The same with TF1's reference variables."""
    _half_plus_two_v1(to, resource=False)


@builder
def cnn(to: Path) -> None:
    """image float [n, 16, 16, 3] -> scores [n, 10]; convolution, depthwise convolution, pointwise, pooling, dense."""
    import tensorflow as tf

    rng, module = _rng(), tf.Module()
    module.stem = tf.Variable(rng.standard_normal((3, 3, 3, 8)).astype(np.float32) / 5)
    module.depthwise = tf.Variable(rng.standard_normal((3, 3, 8, 1)).astype(np.float32) / 3)
    module.pointwise = tf.Variable(rng.standard_normal((1, 1, 8, 16)).astype(np.float32) / 3)
    module.dense = tf.Variable(_normal(rng, 16, 10))

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="image")])
    def serve(image: Any) -> Any:
        x = tf.nn.relu6(tf.nn.conv2d(image, module.stem, 2, "SAME"))
        x = tf.nn.relu6(tf.nn.depthwise_conv2d(x, module.depthwise, [1, 1, 1, 1], "SAME"))
        x = tf.nn.relu6(tf.nn.conv2d(x, module.pointwise, 1, "SAME"))
        return {"scores": tf.nn.softmax(tf.reduce_mean(x, [1, 2]) @ module.dense)}

    _save(module, to, serving_default=serve)


# --- Keras 3 ----------------------------------------------------------------------------------------------------------


def _keras_mlp() -> Any:
    import keras

    keras.utils.set_random_seed(7)
    layers = [
        keras.Input((32,), name="features"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax", name="scores"),
    ]
    return keras.Sequential(layers)


@builder
def mlp_keras(to: Path) -> None:
    """Keras 3 model.export: float [n, 32] -> [n, 10]."""
    _keras_mlp().export(str(to), verbose=False)


@builder
def mlp_keras_saved(to: Path) -> None:
    """The same net through tf.saved_model.save: two handles per variable, which TF1 sessions cannot load."""
    import tensorflow as tf

    tf.saved_model.save(_keras_mlp(), str(to))


# --- strings ----------------------------------------------------------------------------------------------------------


@builder
def tabular(to: Path) -> None:
    """Strings color (table in the graph) and city (vocabulary file), numbers age and income [n, 2] -> scores [n, 3]."""
    import tensorflow as tf

    rng, module = _rng(), tf.Module()
    vocabulary = to.parent / "cities.txt"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("paris\nlima\noslo\nquito\n")
    colors = tf.lookup.KeyValueTensorInitializer(["red", "green", "blue"], tf.range(3, dtype=tf.int64))
    cities = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.colors = tf.lookup.StaticHashTable(colors, 3)
    module.cities = tf.lookup.StaticHashTable(cities, 4)
    module.embed_color = tf.Variable(_normal(rng, 4, 8))
    module.embed_city = tf.Variable(_normal(rng, 5, 8))
    module.hidden = tf.Variable(_normal(rng, 19, 32))
    module.out = tf.Variable(_normal(rng, 32, 3))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="color"),
            tf.TensorSpec([None], tf.string, name="city"),
            tf.TensorSpec([None], tf.float32, name="age"),
            tf.TensorSpec([None, 2], tf.float32, name="income"),
        ]
    )
    def serve(color: Any, city: Any, age: Any, income: Any) -> Any:
        parts = [
            tf.gather(module.embed_color, module.colors.lookup(tf.strings.lower(color))),
            tf.gather(module.embed_city, module.cities.lookup(city)),
            age[:, None] / 50.0,
            income,
        ]
        hidden = tf.nn.relu(tf.concat(parts, 1) @ module.hidden)
        return {"scores": tf.nn.softmax(hidden @ module.out)}

    _save(module, to, serving_default=serve)
    vocabulary.unlink()


@builder
def strings(to: Path) -> None:
    """text string [n] -> lower string [n], lower_bytes string [n], length int32 [n]."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text: Any) -> Any:
        lower = tf.strings.lower(text)
        return {"lower": lower, "lower_bytes": tf.identity(lower), "length": tf.strings.length(text)}

    _save(tf.Module(), to, serving_default=serve)


@builder
def lookup(to: Path) -> None:
    """word string [n], id int64 [n] -> vector float [n, 4], index int64 [n], name string [n]; tables and gathers only.

    Words red, green, b"blu\\0e" and "" are 1 to 4, others 99; index 1 to 3 are named; id must be below 100.
    """
    import tensorflow as tf

    module = tf.Module()
    words = tf.lookup.KeyValueTensorInitializer(["red", "green", b"blu\0e", ""], tf.constant([1, 2, 3, 4], tf.int64))
    names = tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2, 3], tf.int64), ["uno", "dos", "tres"])
    module.words, module.names = tf.lookup.StaticHashTable(words, 99), tf.lookup.StaticHashTable(names, "?")
    module.vectors = tf.Variable(_normal(_rng(), 100, 4))

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="word"), tf.TensorSpec([None], tf.int64, name="id")]
    )
    def serve(word: Any, id: Any) -> Any:
        index = module.words.lookup(word)
        vector = tf.gather(module.vectors, index) + tf.gather(module.vectors, id)
        return {"vector": vector, "index": index, "name": module.names.lookup(index)}

    _save(module, to, serving_default=serve)


# --- shapes, types, signatures ----------------------------------------------------------------------------------------


@builder
def multi(to: Path) -> None:
    """a float [n, 4], b float [n, 3] -> product [n, 3], total [n], big (bool) [n]."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(_normal(_rng(), 4, 3))

    @tf.function(
        input_signature=[tf.TensorSpec([None, 4], tf.float32, name="a"), tf.TensorSpec([None, 3], tf.float32, name="b")]
    )
    def serve(a: Any, b: Any) -> Any:
        product = a @ module.weights * b
        total = tf.reduce_sum(product, 1)
        return {"product": product, "total": total, "big": total > 1.0}

    _save(module, to, serving_default=serve)


@builder
def row_dependent(to: Path) -> None:
    """x float [n, 4] -> centered [n, 4] = x - mean over the batch: rows change with their company."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"centered": x - tf.reduce_mean(x, 0, keepdims=True)}

    _save(tf.Module(), to, serving_default=serve)


@builder
def scalar(to: Path) -> None:
    """x float [] -> y [] = 2 x."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": 2.0 * x}

    _save(tf.Module(), to, serving_default=serve)


@builder
def no_batch_outputs(to: Path) -> None:
    """x float [n, 4] -> columns [4], total []: outputs without a batch dimension."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"columns": tf.reduce_sum(x, 0), "total": tf.reduce_sum(x)}

    _save(tf.Module(), to, serving_default=serve)


@builder
def counter(to: Path) -> None:
    """step float [n] -> count [n]: adds the sum of step to a variable, answers it once per row; `get` only reads."""
    import tensorflow as tf

    module = tf.Module()
    module.count = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="step")])
    def serve(step: Any) -> Any:
        return {"count": tf.zeros_like(step) + module.count.assign_add(tf.reduce_sum(step))}

    @tf.function(input_signature=[])
    def get() -> Any:
        return {"count": module.count.read_value()}

    _save(module, to, serving_default=serve, get=get)


@builder
def sequence(to: Path) -> None:
    """tokens int32 [n, length], both unknown -> states [n, length, 8], pooled [n, 8]; token 0 is padding."""
    import tensorflow as tf

    rng, module = _rng(), tf.Module()
    module.table, module.dense = tf.Variable(_normal(rng, 50, 8)), tf.Variable(_normal(rng, 8, 8))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="tokens")])
    def serve(tokens: Any) -> Any:
        states = tf.tanh(tf.tensordot(tf.gather(module.table, tokens), module.dense, 1))
        mask = tf.cast(tokens > 0, tf.float32)[:, :, None]
        pooled = tf.reduce_sum(states * mask, 1) / tf.maximum(tf.reduce_sum(mask, 1), 1.0)
        return {"states": states, "pooled": pooled}

    _save(module, to, serving_default=serve)


@builder
def encoder(to: Path) -> None:
    """A BERT in small: ids int32 [n, length], mask int32 [n, length] -> states [n, length, 16], scores [n, 4].

    One layer of attention that the mask rules, so requests may be padded; positions are added.
    """
    import tensorflow as tf

    rng, module = _rng(), tf.Module()
    for name, shape in {
        "table": (60, 16),
        "places": (256, 16),
        "qkv": (16, 48),
        "out": (16, 16),
        "top": (16, 4),
    }.items():
        setattr(module, name, tf.Variable(_normal(rng, *shape)))

    lengths = [tf.TensorSpec([None, None], tf.int32, name=name) for name in ("ids", "mask")]

    @tf.function(input_signature=lengths)
    def serve(ids: Any, mask: Any) -> Any:
        hidden = tf.gather(module.table, ids) + module.places[None, : tf.shape(ids)[1]]
        query, key, value = tf.split(tf.tensordot(hidden, module.qkv, 1), 3, -1)
        unseen = (1.0 - tf.cast(mask, tf.float32))[:, None, :] * -1e9
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / 4.0 + unseen)
        states = tf.nn.gelu(tf.tensordot(tf.matmul(weights, value), module.out, 1))
        return {"states": states, "scores": tf.nn.softmax(tf.tensordot(states[:, 0], module.top, 1))}

    _save(module, to, serving_default=serve)


@builder
def averaged(to: Path) -> None:
    """tokens int32 [n, length] -> mean [n, 8] of all embeddings, that of token 0 too: padding changes the answer."""
    import tensorflow as tf

    rng, module = _rng(), tf.Module()
    module.table = tf.Variable(_normal(rng, 50, 8))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="tokens")])
    def serve(tokens: Any) -> Any:
        return {"mean": tf.reduce_mean(tf.gather(module.table, tokens), 1)}

    _save(module, to, serving_default=serve)


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


@builder
def dtypes(to: Path) -> None:
    """i32 [n, 3], i64 [n], flag bool [n, 2], f64 [n], u8 [n, 4], f16 [n] -> one output each, named "<input>_out"."""
    import tensorflow as tf

    specs = {
        "i32": ([None, 3], tf.int32),
        "i64": ([None], tf.int64),
        "flag": ([None, 2], tf.bool),
        "f64": ([None], tf.float64),
        "u8": ([None, 4], tf.uint8),
        "f16": ([None], tf.float16),
    }

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in specs.items()])
    def serve(i32: Any, i64: Any, flag: Any, f64: Any, u8: Any, f16: Any) -> Any:  # noqa: PLR0917
        return {
            "i32_out": i32 * 2,
            "i64_out": i64 + tf.cast(tf.reduce_sum(i32, 1), tf.int64),
            "flag_out": tf.logical_not(flag),
            "f64_out": f64 / 3.0,
            "u8_out": tf.reverse(u8, [1]),
            "f16_out": f16 * tf.constant(0.5, tf.float16),
        }

    _save(tf.Module(), to, serving_default=serve)


@builder
def shared(to: Path) -> None:
    """x float [n, 8]; signatures serving_default (logits), probabilities, embed and "v2/top:1" share their weights."""
    import tensorflow as tf

    rng, module = _rng(), tf.Module()
    module.hidden, module.out = tf.Variable(_normal(rng, 8, 16)), tf.Variable(_normal(rng, 16, 4))
    spec = [tf.TensorSpec([None, 8], tf.float32, name="x")]

    def hidden(x: Any) -> Any:
        return tf.nn.relu(x @ module.hidden)

    @tf.function(input_signature=spec)
    def logits(x: Any) -> Any:
        return {"logits": hidden(x) @ module.out}

    @tf.function(input_signature=spec)
    def probabilities(x: Any) -> Any:
        return {"probabilities": tf.nn.softmax(hidden(x) @ module.out)}

    @tf.function(input_signature=spec)
    def embed(x: Any) -> Any:
        return {"embedding": hidden(x)}

    @tf.function(input_signature=spec)
    def top(x: Any) -> Any:
        return {"class": tf.argmax(hidden(x) @ module.out, 1)}

    signatures = {"serving_default": logits, "probabilities": probabilities, "embed": embed, "v2/top:1": top}
    _save(module, to, **signatures)


@builder
def defaults(to: Path) -> None:
    """TF1: x float [n, 2], scale float [n, 1] with a default value of [[10]] -> y = x * scale."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        scale = v1.placeholder(tf.float32, [None, 1], name="scale")
        y = tf.multiply(x, scale, name="y")
        info = v1.saved_model.utils.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {"x": info(x), "scale": info(scale)}, {"y": info(y)}, "tensorflow/serving/predict"
        )
        signature.defaults["scale"].CopyFrom(tf.make_tensor_proto(np.full((1, 1), 10, np.float32)))
        saver = v1.saved_model.Builder(str(to))
        saver.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        saver.save()


def main(out: Path) -> None:
    import tensorflow as tf

    for name, build in BUILDERS.items():
        tf.keras.backend.clear_session()
        build(out / name / "1")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
