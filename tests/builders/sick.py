"""The SavedModels that the doctor's tests examine; each docstring says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from builders.registry import Builders

builder = BUILDERS = Builders()


@builder
def sick_functions(to: Path) -> None:
    """TF2, a signature per disease; serving_default has fixed rows and an unused input."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(np.ones((4, 4), np.float32))

    def signature(*specs: Any, **options: Any) -> Any:
        return tf.function(input_signature=[tf.TensorSpec(s, d, name=n) for n, d, *s in specs], **options)

    x = ("x", tf.float32, None, 4)

    @signature(("x", tf.float32, 8, 4), ("spare", tf.float32, 8, 1))
    def fixed(x: Any, spare: Any) -> Any:
        return {"y": x @ module.w}

    @signature(x)
    def dropout(x: Any) -> Any:
        return {"y": tf.nn.dropout(x @ module.w, 0.5)}

    @signature(("x", tf.float32, None, 2, 2, 4))
    def batch_norm(x: Any) -> Any:
        ones, zeros = tf.ones([4]), tf.zeros([4])
        return {"y": tf.raw_ops.FusedBatchNormV3(x=x, scale=ones, offset=zeros, mean=zeros, variance=ones)[0]}

    @signature(x)
    def compiled(x: Any) -> Any:
        return {"y": tf.function(lambda t: tf.nn.relu(t @ module.w), jit_compile=True)(x)}

    @signature(x)
    def python(x: Any) -> Any:
        return {"y": tf.numpy_function(lambda t: t, [x], tf.float32)}

    @signature(("picture", tf.string))
    def image(picture: Any) -> Any:
        return {"smaller": tf.io.encode_png(tf.image.decode_png(picture)[::2, ::2])}

    @signature(x)
    def noisy(x: Any) -> Any:
        return {"y": x + tf.random.normal(tf.shape(x))}

    signatures = {
        "serving_default": fixed, "dropout": dropout, "batch_norm": batch_norm, "compiled": compiled, "python": python,
        "image": image, "noisy": noisy,
    }  # fmt: skip
    tf.saved_model.save(module, str(to), signatures=signatures)


@builder
def sick_training(to: Path) -> None:
    """TF1: a whole training graph with Adam's slots and a summary; `loss` computes one; `queued` reads a queue. Two tag
    sets, no serving_default."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x, label = v1.placeholder(tf.float32, [None, 3], name="x"), v1.placeholder(tf.int32, [None], name="label")
        w = v1.get_variable("w", [3, 2], use_resource=True)
        logits = tf.matmul(x, w, name="logits")
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
        v1.train.AdamOptimizer().minimize(tf.reduce_mean(loss))
        v1.summary.scalar("loss", tf.reduce_mean(loss))
        queue = v1.FIFOQueue(10, [tf.float32], shapes=[[3]])
        queued = tf.matmul(queue.dequeue_many(2), w, name="queued")
        info, define = v1.saved_model.utils.build_tensor_info, v1.saved_model.signature_def_utils.build_signature_def
        predict = "tensorflow/serving/predict"
        signatures = {
            "logits": define({"x": info(x)}, {"y": info(logits)}, predict),
            "loss": define({"x": info(x), "label": info(label)}, {"loss": info(loss)}, predict),
            "queued": define({}, {"y": info(queued)}, predict),
        }
        session.run(v1.global_variables_initializer())
        saver = v1.saved_model.Builder(str(to))
        saver.add_meta_graph_and_variables(session, ["serve"], signatures)
        saver.add_meta_graph(["train"], signatures)
        saver.save()


@builder
def sick_variables(to: Path) -> None:
    """TF2, float [n, 512] -> [n, 512]: a matrix that is stored twice, and one that no signature reads; 1 MB each."""
    import tensorflow as tf

    rng, module = np.random.default_rng(7), tf.Module()
    weights = rng.standard_normal((512, 512)).astype(np.float32)
    module.w, module.copy = tf.Variable(weights), tf.Variable(weights)
    module.idle = tf.Variable(weights + 1)

    @tf.function(input_signature=[tf.TensorSpec([None, 512], tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": x @ module.w}

    tf.saved_model.save(module, str(to), signatures={"serving_default": serve})


@builder
def sick_empty(to: Path) -> None:
    """TF1: a variable that is neither saved nor initialized at load."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        a = v1.get_variable("a", initializer=0.5, use_resource=True)
        b = v1.get_variable("b", initializer=0.5, use_resource=True)
        y = tf.add(x * a, b, name="y")
        info = v1.saved_model.utils.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict"
        )
        session.run(v1.global_variables_initializer())
        saver = v1.saved_model.Builder(str(to))
        only_a = v1.train.Saver([a])
        saver.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, saver=only_a)
        saver.save()
