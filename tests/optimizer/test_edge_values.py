"""Values at the edges of what floats hold: where plain TensorFlow answers with a number, so does every engine."""

from __future__ import annotations

import numpy as np
import pytest
from enginecases import Prepared, plain, save, target
from tfopt_optimizer import verify
from tfopt_optimizer.engines import (
    litert,
    litert_convert,
    onnxruntime,
    onnxruntime_convert,
    openvino,
    openvino_freeze,
    stablehlo,
    xla,
)
from tfopt_optimizer.errors import NotLowerable

pytestmark = pytest.mark.tensorflow

ENGINES = {
    "litert": ("t1", litert.Worker, litert_convert.Converter),
    "openvino": ("f32", openvino.Worker, openvino_freeze.Converter),
    "onnxruntime": ("t1", onnxruntime.Worker, onnxruntime_convert.Converter),
    "xla": ("pjrt", xla.Worker, stablehlo.Lowerer),
}
ROWS = np.array(
    [[0, 0, 0], [1, 2, 3], [1e-20, 0, 0], [1e-8, -1e-7, 0], [-0.0, 0, -0.0], [1e-4, 0, 1], [1e15, 0, -1e15]],
    np.float32,
)
LARGE = np.array([[0, 88, 89], [100, -100, 1e4], [-1e4, 1e20, -1e20], [0.5, -0.0, -89]], np.float32)
ENDLESS = np.array([[0, 1, -2], [np.inf, 1, 2], [-np.inf, -np.inf, -np.inf], [3, np.inf, -np.inf]], np.float32)


def normalized(tf, x):
    """As keras.ops.normalize does it, for UnitNormalization, CosineSimilarity and Dot(normalize=True)."""
    return x * tf.minimum(tf.math.rsqrt(tf.reduce_sum(tf.square(x), -1, keepdims=True)), 1e7)


def clipped(tf, x):
    return x * tf.minimum(1.0, 1 / tf.norm(x, axis=-1, keepdims=True))


def divided(tf, x):
    whole = tf.reduce_sum(tf.abs(x), -1, keepdims=True)
    return tf.where(whole > 0, x / whole, 0.0)


def in_a_branch(tf, x):
    return tf.cond(tf.shape(x)[0] > 0, lambda: normalized(tf, x) + tf.nn.softplus(x), lambda: x)


# What is computed, of which values; who has nothing to mend it with.
CASES = {
    "normalized": (normalized, ROWS, ()),
    "clipped": (clipped, ROWS, ()),
    "cosine": (lambda tf, x: tf.reduce_sum(normalized(tf, x) * normalized(tf, x[:, ::-1]), -1), ROWS, ()),
    "by_a_power": (lambda tf, x: x * tf.minimum(tf.reduce_sum(x * x, -1, keepdims=True) ** -0.5, 1e7), ROWS, ()),
    "l2": (lambda tf, x: tf.math.l2_normalize(x, -1), ROWS, ()),
    "l2_by_more": (lambda tf, x: tf.math.l2_normalize(x, -1, epsilon=1e-3), ROWS, ()),
    "in_a_branch": (in_a_branch, ROWS, ()),
    "softplus": (lambda tf, x: tf.nn.softplus(x), LARGE, ()),
    "log_sigmoid": (lambda tf, x: tf.math.log_sigmoid(x), LARGE, ()),
    "log1p": (lambda tf, x: tf.math.log1p(tf.nn.relu(x)), LARGE, ()),
    "log_where_it_is_one": (lambda tf, x: tf.where(x > 0, tf.math.log(x), 0.0), LARGE, ()),
    "divided": (divided, ROWS, ()),
    "finite": (lambda tf, x: tf.where(tf.math.is_finite(x), x, 0.0), ENDLESS, ()),
    "endless": (lambda tf, x: tf.cast(tf.math.is_inf(x), tf.float32), ENDLESS, ()),
    "largest_of_none": (lambda tf, x: tf.reduce_max(tf.where(x > 5, x, -np.inf), -1), ROWS, ("openvino",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_numbers_stay_numbers(name, tmp_path, monkeypatch):
    compute, values, other = CASES[name]
    model = f"edge_{name}"
    save(tmp_path / model, lambda tf, module, x: {"y": compute(tf, x)}, x=([None, 3], "float32"))
    monkeypatch.setattr("savedmodels.path", lambda wanted: tmp_path / wanted)
    expected, ran = None, set()
    for engine in sorted(set(ENGINES) - set(other)):
        variant, worker, converter = ENGINES[engine]
        wanted, given = target(model, "serving_default", variant, len(values)), {"x": values}
        expected = expected or plain(model, wanted, given)
        (tmp_path / engine).mkdir()
        try:
            found = Prepared(model, tmp_path / engine, worker(), converter).runner(wanted)(given)
        except NotLowerable:
            continue
        ran.add(engine)
        y, y0 = found["y"], expected["y"]
        assert verify.check(expected, found, verify.lossless(1e-5)).reason == "", engine
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(y0), engine)
    assert {"litert", "xla"} <= ran


@pytest.mark.parametrize("saved", ["edge_exported", "edge_saved"])
def test_a_keras_model_is_mended_whichever_way_it_was_saved(saved, tmp_path, monkeypatch):
    """Saved, it has two handles per variable and goes through tf.saved_model.load; its words are in a table."""
    import keras
    import tensorflow as tf

    word, x = keras.Input((1,), dtype="string", name="word"), keras.Input((3,), name="x")
    known = keras.layers.Embedding(4, 3)(keras.layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=1)(word))
    pointed = keras.layers.UnitNormalization()(keras.layers.Dense(3)(x))
    model = keras.Model([word, x], keras.layers.Add()([pointed, keras.layers.Flatten()(known)]))
    if saved == "edge_exported":
        model.export(tmp_path / saved, verbose=False)
    else:
        tf.saved_model.save(model, str(tmp_path / saved))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("savedmodels.path", lambda wanted: tmp_path / wanted)
    wanted = target(saved, "serving_default", "t1", 2)
    values = {"string": np.array([[b"a"], [b"z"]], object), "float": np.array([[0, 0, 0], [1, 2, 3]], np.float32)}
    given = {t.name: values[t.dtype] for t in wanted.signature.inputs}
    found = Prepared(saved, tmp_path / "litert", litert.Worker(), litert_convert.Converter).runner(wanted)(given)
    assert verify.check(plain(saved, wanted, given), found, verify.lossless(1e-5)).reason == ""
    assert not list((tmp_path / "temporary").iterdir())
