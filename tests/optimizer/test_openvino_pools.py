"""Padding before a maximum: taken out where it changes nothing, and only there."""

from __future__ import annotations

import enginecases
import numpy as np
import pytest
from enginecases import agree
from tfopt_optimizer.engines import openvino, openvino_pools

ov = openvino.library()
ops = ov.opset13
CORE = ov.Core()


def padded(source, begin=(0, 0, 1, 1), end=(0, 0, 1, 1), mode="constant", value=0.0):
    return ops.pad(source, np.int64(begin), np.int64(end), mode, np.float32(value) if mode == "constant" else None)


def largest(source, *, kernel=(3, 3), strides=(2, 2), pads=(0, 0), dilations=(1, 1), rounding="floor", auto="explicit"):
    return ops.max_pool(source, strides, dilations, pads, pads, kernel, rounding, auto).output(0)


def modelled(write):
    given = ops.parameter([2, 4, 9, 8], np.float32, name="x")
    found = write(given)
    result = ops.result(found)
    result.output(0).get_tensor().set_names({"y"})
    return ov.Model([result], [given], "model")


def answer(model, x):
    request = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return {"y": request.infer({0: x})["y"].copy()}


FOLDED = {
    "as Keras writes it": lambda x: largest(padded(ops.relu(x)), auto="valid"),
    "an end alone": lambda x: largest(padded(ops.relu(x), begin=(0, 0, 0, 0))),
    "two at one side": lambda x: largest(padded(ops.relu(x), begin=(0, 0, 2, 0), end=(0, 0, 1, 2))),
    "between bounds": lambda x: largest(padded(ops.clamp(x, 0.0, 6.0))),
    "others take the pad too": lambda x: ops.add(largest(p := padded(ops.relu(x))), largest(ops.abs(p))),
}
LEFT = {
    "what may be negative": lambda x: largest(padded(x)),
    "bounds below zero": lambda x: largest(padded(ops.clamp(x, -1.0, 1.0))),
    "another value": lambda x: largest(padded(ops.relu(x), value=0.5)),
    "another mode": lambda x: largest(padded(ops.relu(x), mode="reflect")),
    "channels": lambda x: largest(padded(ops.relu(x), begin=(0, 1, 1, 1))),
    "windows outside": lambda x: largest(padded(ops.relu(x), end=(0, 0, 3, 3))),
    "cropping": lambda x: largest(padded(ops.relu(x), begin=(0, 0, -1, 1))),
    "pads of its own": lambda x: largest(padded(ops.relu(x)), pads=(1, 1)),
    "dilations": lambda x: largest(padded(ops.relu(x)), dilations=(2, 2)),
    "rounding up": lambda x: largest(padded(ops.relu(x)), rounding="ceil"),
    "another pooling": lambda x: ops.avg_pool(padded(ops.relu(x)), [2, 2], [0, 0], [0, 0], [3, 3], False, "floor"),
}


@pytest.mark.parametrize("write", FOLDED.values(), ids=FOLDED)
def test_it_is_taken_out_and_answers_stay_the_same(write):
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 8)).astype(np.float32)
    x[:, :, :3] = -1.0  # windows of zeros alone
    model, whole = modelled(write), modelled(write)
    assert openvino_pools.fold(ov, model) == 1
    assert model.outputs[0].any_name == "y"
    np.testing.assert_array_equal(answer(model, x)["y"], answer(whole, x)["y"])


@pytest.mark.parametrize("write", LEFT.values(), ids=LEFT)
def test_it_stays_where_it_counts(write):
    assert openvino_pools.fold(ov, modelled(write)) == 0


def test_it_stays_where_places_are_asked_for():
    def write(x):
        pool = ops.max_pool(padded(ops.relu(x)), [2, 2], [1, 1], [0, 0], [0, 0], [3, 3])
        return ops.add(pool.output(0), ops.convert(pool.output(1), "f32"))

    assert openvino_pools.fold(ov, modelled(write)) == 0


@pytest.mark.tensorflow
def test_the_models_of_a_plan_have_none(tmp_path):
    weights = np.random.default_rng(1).standard_normal((3, 3, 3, 8)).astype(np.float32)

    def net(tf, module, x):
        found = tf.nn.relu(tf.nn.conv2d(x, tf.constant(weights), 1, "SAME"))
        found = tf.nn.max_pool2d(tf.pad(found, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
        return {"y": tf.reduce_mean(found, (1, 2))}

    opened = enginecases.opened(openvino.Worker(), tmp_path, net, x=([None, 16, 16, 3], "float32"))
    x = np.random.default_rng(2).standard_normal((2, 16, 16, 3)).astype(np.float32)
    run, _ = enginecases.bucket(*opened, "f32", x=x.shape)
    found = run({"x": x})
    kinds = [node.get_type_name() for node in opened[0]._device.model("s0/openvino")._model.get_ops()]
    assert [kinds.count("MaxPool"), kinds.count("Pad")] == [1, 0]
    import tensorflow as tf

    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    agree({"y": signature(x=tf.constant(x))["y"].numpy()}, found)
