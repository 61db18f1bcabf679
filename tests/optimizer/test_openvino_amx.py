"""Float32 products in three bfloat16 parts: how exact they are, and that the pinned OpenVINO offers what they need."""

from __future__ import annotations

import numpy as np
import pytest
from enginecases import save
from tfopt_optimizer import saved_model, verify
from tfopt_optimizer.engines import openvino, openvino_amx
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.errors import NotLowerable

needs_amx = pytest.mark.skipif(not openvino_amx.usable(), reason="this processor has no AMX")


def test_two_bfloat16_hold_a_float32_up_to_two_to_the_minus_sixteen():
    weights = np.random.default_rng(1).standard_normal((64, 96)).astype(np.float32)
    high, low, again = np.split(openvino_amx.stacked(weights).astype(np.float32), 3, axis=1)
    assert np.array_equal(high, again)
    assert np.abs(high + low - weights).max() <= 2.0**-16 * np.abs(weights).max()


def two_layers(tf, module, x):
    random = np.random.default_rng(2)
    first, second = (random.standard_normal(shape).astype(np.float32) for shape in ((128, 256), (256, 80)))
    hidden = tf.nn.relu(tf.matmul(x, first) + 1.0)
    return {"y": tf.matmul(hidden, second), "sum": tf.matmul(x, first)}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("amx")
    save(folder / "model", two_layers, x=([None, 128], "float32"))
    worker = openvino.Worker()
    worker.open(Place(folder / "model", folder / "plan", ("serve",), 2, 2))
    (info,) = saved_model.read_signatures(folder / "model")
    return worker, info


@needs_amx
@pytest.mark.tensorflow
def test_products_agree_to_float32_rounding(opened):
    worker, info = opened
    x = np.random.default_rng(3).standard_normal((32, 128)).astype(np.float32) * np.float32(50)
    found = {}
    for variant in ("f32", "f32-amx"):
        wanted = Target(info, variant, {"x": (32, 128)}, "s0/b32", 32)
        worker.prepare(wanted)
        found[variant] = worker.runner(wanted)({"x": x})
    verdict = verify.check(found["f32"], found["f32-amx"], verify.lossless(3e-5))
    assert verdict.reason == ""
    assert verdict.agreement.max_rel_error > 0  # it did compute another way
    executed = worker._device.model("s0/openvino")._compiled["f32-amx", (("x", (32, 128)),)].get_runtime_model()
    ran = [op.get_rt_info() for op in executed.get_ordered_ops()]
    kinds = [info["primitiveType"].astype(str) for info in ran if info["layerType"].astype(str) == "FullyConnected"]
    assert len(kinds) == 2
    assert all("amx" in kind for kind in kinds)


@needs_amx
@pytest.mark.tensorflow
def test_large_weights_and_models_without_products_are_refused(opened, tmp_path, monkeypatch):
    worker, info = opened
    monkeypatch.setattr(worker._device.model("s0/openvino"), "_shared", True)
    with pytest.raises(NotLowerable, match="more than 64 MB"):
        worker.prepare(Target(info, "f32-amx", {"x": (2, 128)}, "s0/b2", 2))
    save(tmp_path / "plus", lambda tf, module, x: {"y": x + 1.0}, x=([None, 4], "float32"))
    other = openvino.Worker()
    other.open(Place(tmp_path / "plus", tmp_path / "plan", ("serve",), 2, 2))
    (plus,) = saved_model.read_signatures(tmp_path / "plus")
    with pytest.raises(NotLowerable, match="no matrix products"):
        other.prepare(Target(plus, "f32-amx", {"x": (2, 4)}, "s0/b2", 2))
