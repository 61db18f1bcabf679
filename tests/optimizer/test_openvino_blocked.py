"""Convolutions on blocked layouts: which kernels the pinned OpenVINO really takes, and that answers stay the same."""

from __future__ import annotations

import dataclasses

import enginecases
import numpy as np
import pytest
from enginecases import Prepared, agree, feeds, plain, target
from tfopt_optimizer.engines import openvino, openvino_blocked, openvino_freeze
from tfopt_optimizer.errors import NotLowerable

FAMILY = openvino_blocked.family()
needs_kernels = pytest.mark.skipif(not FAMILY, reason="this processor has neither AVX-512 nor AVX2")


def residual(tf, module, x):
    """A block of each kind: 3x3, depthwise, 1x1, a sum, and groups that are not depthwise."""
    random = np.random.default_rng(1)

    def weights(*shape):
        return tf.constant(random.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[:-1]))))

    first = tf.nn.relu6(tf.nn.conv2d(x, weights(3, 3, 3, 32), 2, "SAME"))
    deep = tf.nn.relu6(tf.nn.depthwise_conv2d(first, weights(3, 3, 32, 1), (1, 1, 1, 1), "SAME"))
    mixed = tf.nn.conv2d(deep, weights(1, 1, 32, 32), 1, "VALID") + first
    grouped = tf.nn.conv2d(mixed, weights(3, 3, 8, 32), 1, "SAME")
    return {"y": tf.reduce_mean(grouped, (1, 2))}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocked")
    return enginecases.opened(openvino.Worker(), folder, residual, x=([None, 32, 32, 3], "float32"))


def ran(worker, variant, rows):
    """What OpenVINO calls the kernels of the convolutions that it compiled."""
    compiled = worker._device.model("s0/openvino")._compiled[variant, (("x", (rows, 32, 32, 3)),)]
    told = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    kinds = ("Convolution", "GroupConvolution")
    return [info["primitiveType"].astype(str) for info in told if info["layerType"].astype(str) in kinds]


@needs_kernels
@pytest.mark.tensorflow
@pytest.mark.parametrize(("variant", "rows", "each"), [("f32-blocked", 3, 3), ("f32-blocked-s2", 4, 2)])
def test_every_kind_of_convolution_takes_the_kernel_wished_for(opened, variant, rows, each):
    x = np.random.default_rng(2).standard_normal((rows, 32, 32, 3)).astype(np.float32)
    found = {}
    for name in ("f32", variant):
        run, wanted = enginecases.bucket(*opened, name, x=x.shape)
        found[name] = run({"x": x})
    worker, _ = opened
    served = openvino.Opener(worker._place, None).runner(dataclasses.replace(wanted, folder="s0/openvino"), print)
    agree(found["f32"], found[variant])
    np.testing.assert_array_equal(served({"x": x})["y"], found[variant]["y"])
    assert ran(worker, "f32", rows)[1] == f"{FAMILY.replace('jit', 'brgconv')}_dw_f32"
    kinds = ran(worker, variant, each)
    assert kinds[:3] == [f"{FAMILY}_f32", f"{FAMILY}_dw_f32", f"{FAMILY}_1x1_f32"]
    assert "ref" not in kinds[3]  # groups that are not depthwise have no wish


@needs_kernels
@pytest.mark.tensorflow
def test_one_compiled_model_serves_all_rows_of_large_models(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino, "SHARED_ABOVE", 0)
    prepared = Prepared("cnn", tmp_path, openvino.Worker(), openvino_freeze.Converter)
    for rows in (2, 5):
        wanted = dataclasses.replace(target("cnn", "serving_default", "f32-blocked", rows), rows=rows)
        given = feeds(wanted)
        agree(plain("cnn", wanted, given), prepared.runner(wanted)(given))
    (key,) = prepared.worker._device.model("s0/openvino")._compiled
    assert key == ("f32-blocked", (("image", (-1, 16, 16, 3)),))


@pytest.mark.parametrize(
    ("isa", "family"), [("sse4_2", ""), ("avx2 fma", "jit_avx2"), ("avx2 avx512f avx512bw", "jit_avx512")]
)
def test_kernels_are_those_of_the_widest_registers(monkeypatch, isa, family):
    monkeypatch.setattr(openvino_blocked.cpu, "processor", lambda: {"isa": isa})
    assert openvino_blocked.family() == family


@pytest.mark.tensorflow
def test_a_model_without_convolutions_is_refused(tmp_path):
    prepared = Prepared("multi", tmp_path, openvino.Worker(), openvino_freeze.Converter)
    with pytest.raises(NotLowerable, match="it has no convolutions"):
        prepared.runner(target("multi", "serving_default", "f32-blocked", 2))


@needs_kernels
@pytest.mark.tensorflow
def test_quantizers_get_the_model_without_wishes(opened):
    worker, _ = opened
    path = worker._place.plan_dir / "s0/openvino" / openvino.MODEL
    model = worker._device.core.read_model(str(path))
    assert len(openvino_blocked.wishes(model)) == 3
    assert openvino_blocked.wishes(openvino_blocked.without(model)) == []
