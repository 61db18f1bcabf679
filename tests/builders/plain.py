"""Small models of every way to save one: TF2, TF1, Keras 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from builders.registry import Builders, normal, save, seeded

builder = BUILDERS = Builders()


@builder
def half_plus_two(to: Path) -> None:
    """TF2: x float [n, 1] -> y = x / 2 + 2."""
    import tensorflow as tf

    module = tf.Module()
    module.a, module.b = tf.Variable(0.5), tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": module.a * x + module.b}

    save(module, to, serving_default=serve)


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


@builder
def cnn(to: Path) -> None:
    """image float [n, 16, 16, 3] -> scores [n, 10]; convolution, depthwise convolution, pointwise, pooling, dense."""
    import tensorflow as tf

    rng, module = seeded(), tf.Module()
    module.stem = tf.Variable(rng.standard_normal((3, 3, 3, 8)).astype(np.float32) / 5)
    module.depthwise = tf.Variable(rng.standard_normal((3, 3, 8, 1)).astype(np.float32) / 3)
    module.pointwise = tf.Variable(rng.standard_normal((1, 1, 8, 16)).astype(np.float32) / 3)
    module.dense = tf.Variable(normal(rng, 16, 10))

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="image")])
    def serve(image: Any) -> Any:
        x = tf.nn.relu6(tf.nn.conv2d(image, module.stem, 2, "SAME"))
        x = tf.nn.relu6(tf.nn.depthwise_conv2d(x, module.depthwise, [1, 1, 1, 1], "SAME"))
        x = tf.nn.relu6(tf.nn.conv2d(x, module.pointwise, 1, "SAME"))
        return {"scores": tf.nn.softmax(tf.reduce_mean(x, [1, 2]) @ module.dense)}

    save(module, to, serving_default=serve)


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
