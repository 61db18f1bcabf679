"""Convolutions with fewer multiplications: the same answers, where it is done, and what is left alone."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import enginecases
import numpy as np
import pytest
from enginecases import Prepared, agree, target
from tfopt_optimizer import verify
from tfopt_optimizer.engines import openvino, openvino_blocked, openvino_freeze, openvino_winograd
from tfopt_optimizer.engines.openvino_winograd import Layer
from tfopt_optimizer.errors import NotLowerable

ov = openvino.library()
ops = ov.opset13
CORE = ov.Core()


def floats(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convolution(source, channels, outputs, *, window=3, strides=1, pads=(1, 1, 1, 1), dilations=1, auto="explicit"):
    weights = floats(outputs, channels, window, window) / np.float32(np.sqrt(channels) * window)
    begin, end = list(pads[:2]), list(pads[2:])
    return ops.convolution(source, weights, [strides] * 2, begin, end, [dilations] * 2, auto)


def modelled(write, *shape):
    given = ops.parameter(list(shape), np.float32, name="x")
    made = write(given)
    made.output(0).set_names({"y"})
    return ov.Model([ops.result(made)], [given], "model")


def answer(model, x):
    request = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return {"y": request.infer({0: x})["y"].copy()}


def kinds(model):
    return [node.get_type_name() for node in model.get_ops()]


def executed(compiled, kind):
    """The operations of a compiled model that OpenVINO calls so."""
    nodes = compiled.get_runtime_model().get_ordered_ops()
    return [node for node in nodes if node.get_rt_info()["layerType"].astype(str) == kind]


def always(monkeypatch, m):
    monkeypatch.setattr(Layer, "best", lambda self: m)


def affine(source):
    return ops.multiply(ops.add(source, floats(1, 6, 1, 1)), floats(1, 6, 1, 1, seed=2))


ENDS = {
    "nothing": lambda found, x: found,
    "bias": lambda found, x: ops.add(found, floats(6, 1, 1)),
    "norm and relu": lambda found, x: ops.relu(ops.add(affine(found), floats(1, 6, 1, 1, seed=3))),
    "relu6": lambda found, x: ops.clamp(affine(found), 0.0, 0.3),
    "another activation": lambda found, x: ops.elu(affine(found), 1.0),
    "a sum with the input": lambda found, x: ops.relu(ops.add(affine(found), ops.relu(x))),
    "two takers": lambda found, x: ops.add(ops.relu(found), ops.multiply(found, floats(1, 6, 1, 1))),
    "a value for each pixel": lambda found, x: ops.relu(ops.add(found, floats(1, 6, 9, 7))),
}


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("end", ENDS)
def test_answers_stay_the_same_whatever_follows(monkeypatch, m, end):
    always(monkeypatch, m)

    def write(x):
        return ENDS[end](convolution(x, 6, 6), x)

    x, model = floats(3, 6, 9, 7), modelled(write, 3, 6, 9, 7)
    expected = answer(model, x)
    openvino_winograd.rewrite(ov, model)
    assert "Convolution" not in kinds(model)
    assert [model.outputs[0].any_name, list(model.outputs[0].shape)] == ["y", list(expected["y"].shape)]
    agree(expected, answer(model, x))


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("sizes", [(3, 3), (4, 8), (5, 11), (14, 13)])
@pytest.mark.parametrize(
    "how", [{}, {"pads": (0, 0, 0, 0)}, {"pads": (2, 0, 1, 3)}, {"auto": "same_upper"}, {"auto": "valid"}], ids=str
)
def test_answers_stay_the_same_at_every_border(monkeypatch, m, rows, sizes, how):
    always(monkeypatch, m)
    x = floats(rows, 5, *sizes)
    model = modelled(lambda x: convolution(convolution(x, 5, 7, **how), 7, 4, window=1, pads=(0,) * 4), *x.shape)
    expected = answer(model, x)
    openvino_winograd.rewrite(ov, model)
    assert kinds(model).count("Convolution") == 1
    agree(expected, answer(model, x))


def test_a_chain_of_layers_is_as_exact_as_float32(monkeypatch):
    always(monkeypatch, 4)

    def write(x):
        for _ in range(8):
            x = ops.relu(convolution(x, 32, 32))
        return x

    x, model = floats(1, 32, 28, 28), modelled(write, 1, 32, 28, 28)
    expected = answer(model, x)
    openvino_winograd.rewrite(ov, model)
    assert verify.check(expected, answer(model, x), verify.lossless(2e-5)).reason == ""


@pytest.mark.skipif(openvino_blocked.family() != "jit_avx512", reason="layouts are those of AVX-512's kernels")
def test_the_transposes_between_layers_cost_nothing():
    """OpenVINO holds tensors of convolutions as channels-last, and takes back to back transposes out."""

    def write(x):
        x = ops.relu(convolution(ops.transpose(x, [0, 3, 1, 2]), 128, 128, window=1, pads=(0,) * 4))
        x = ops.relu(convolution(ops.relu(convolution(x, 128, 128)), 128, 128))
        return ops.reduce_mean(convolution(x, 128, 128, window=1, pads=(0,) * 4), [2, 3])

    model = modelled(write, 1, 28, 28, 128)
    openvino_winograd.rewrite(ov, model)
    compiled = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True})
    request = compiled.create_infer_request()
    for _ in range(2):  # the first call packs weights
        request.infer({0: floats(1, 28, 28, 128)})
    told = [info.node_type for info in request.profiling_info if info.status == info.Status.EXECUTED]
    assert [told.count(kind) for kind in ("Convolution", "Gather", "MatMul", "FullyConnected")] == [2, 4, 4, 2]
    assert [kind for kind in told if kind in ("Transpose", "Reorder")] == []


def stage(x, *, strides, rest=False):
    """The end of one of ResNet's stages and the beginning of the next."""
    early = ops.relu(convolution(x, 32, 32, window=1, pads=(0,) * 4))
    late = convolution(ops.relu(convolution(early, 32, 32)), 32, 32, window=1, pads=(0,) * 4)
    found = ops.relu(ops.add(late, early))
    after = [convolution(found, 32, 8, window=1, strides=strides, pads=(0,) * 4) for _ in range(2)]
    return ops.concat([*after, *([ops.max_pool(found, [2, 2], [1, 1], [0, 0], [0, 0], [1, 1]).output(0)] * rest)], 1)


def test_layers_of_which_openvino_computes_a_quarter_are_left_alone(monkeypatch):
    always(monkeypatch, 2)
    with pytest.raises(NotLowerable, match="no 3x3 convolution for which fewer multiplications pay"):
        openvino_winograd.rewrite(ov, modelled(lambda x: stage(x, strides=2), 1, 32, 16, 16))
    compiled = CORE.compile_model(modelled(lambda x: stage(x, strides=2), 1, 32, 16, 16), "CPU")
    sizes = [list(node.get_output_shape(0))[2:] for node in executed(compiled, "Convolution")]
    assert sizes[0] == [16, 16]
    assert sizes[1:] == [[8, 8]] * len(sizes[1:])  # or it would be no quarter
    for write in (lambda x: stage(x, strides=1), lambda x: stage(x, strides=2, rest=True)):
        model = modelled(write, 1, 32, 16, 16)
        openvino_winograd.rewrite(ov, model)
        assert kinds(model).count("Convolution") == 4


def test_many_sums_one_behind_the_other_are_each_looked_at_once(monkeypatch):
    """Each has two ways to the next: by all of them, one after another, these would be 2^60."""
    always(monkeypatch, 2)

    def write(x):
        found = ops.relu(convolution(x, 8, 8))
        for _ in range(60):
            found = ops.relu(ops.add(convolution(found, 8, 8, window=1, pads=(0,) * 4), found))
        return convolution(found, 8, 8, window=1, strides=2, pads=(0,) * 4)

    with pytest.raises(NotLowerable, match="no 3x3 convolution for which fewer multiplications pay"):
        openvino_winograd.rewrite(ov, modelled(write, 1, 8, 8, 8))


LEFT = {
    "strides": {"strides": 2},
    "dilations": {"dilations": 2},
    "another window": {"window": 5},
    "no window": {"window": 1},
}


@pytest.mark.parametrize("how", LEFT.values(), ids=LEFT)
def test_other_convolutions_are_left_alone(monkeypatch, how):
    always(monkeypatch, 2)
    with pytest.raises(NotLowerable, match="no 3x3 convolution for which fewer multiplications pay"):
        openvino_winograd.rewrite(ov, modelled(lambda x: convolution(x, 8, 8, **how), 1, 8, 16, 16))


def test_unknown_shapes_groups_and_weights_that_are_fed_are_left_alone(monkeypatch):
    always(monkeypatch, 2)
    one = [1, 1]
    unknown = modelled(lambda x: convolution(x, 8, 8), -1, 8, 16, 16)
    groups = modelled(lambda x: ops.group_convolution(x, floats(2, 4, 4, 3, 3), one, one, one, one), 1, 8, 16, 16)
    fed = modelled(lambda x: ops.convolution(floats(1, 8, 16, 16), x, one, one, one, one), 8, 8, 3, 3)
    for model in (unknown, groups, fed):
        with pytest.raises(NotLowerable):
            openvino_winograd.rewrite(ov, model)


@pytest.mark.parametrize(
    ("rows", "size", "channels", "outputs", "m"),
    [
        *((1, 56, 64, 64, 4), (1, 28, 128, 128, 4), (1, 14, 256, 256, 2), (1, 7, 512, 512, 0)),  # ResNet50's
        *((1, 56, 128, 32, 0), (1, 28, 128, 32, 0)),  # DenseNet's: the transform of the input costs too much
        *((8, 7, 512, 512, 4), (1, 112, 16, 16, 0), (1, 112, 128, 128, 4), (1, 224, 64, 64, 0)),
    ],
)
def test_it_is_done_where_it_pays(rows, size, channels, outputs, m):
    assert Layer(rows, (size, size), channels, (size, size), outputs, (1, 1)).best() == m


def block(tf, module, x):
    """Two layers where it pays, one where it does not."""

    def weights(seed, *shape):
        return tf.constant(floats(*shape, seed=seed) / np.float32(np.sqrt(np.prod(shape[:-1]))))

    first = tf.nn.relu(tf.nn.conv2d(x, weights(1, 3, 3, 3, 96), 1, "SAME") + 0.5)
    second = tf.nn.relu(tf.nn.conv2d(first, weights(2, 3, 3, 96, 96), 1, "SAME"))
    third = tf.nn.relu6(tf.nn.bias_add(tf.nn.conv2d(second, weights(3, 3, 3, 96, 96), 1, "SAME"), floats(96)) + first)
    return {"y": tf.reduce_mean(third, (1, 2)), "map": third}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("winograd")
    return enginecases.opened(openvino.Worker(), folder, block, x=([None, 32, 32, 3], "float32"))


def runner(opened, variant, rows):
    return enginecases.bucket(*opened, variant, x=(rows, 32, 32, 3))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("variant", "rows", "each"),
    [("f32-winograd", 1, 1), ("f32-winograd-s2p1", 2, 1), ("f32-winograd-s2p1", 4, 1)],
)
def test_a_model_answers_as_before_with_two_convolutions_less(opened, variant, rows, each):
    x = floats(rows, 32, 32, 3)
    expected = runner(opened, "f32", rows)[0]({"x": x})
    run, wanted = runner(opened, variant, rows)
    found, worker = run({"x": x}), opened[0]
    agree(expected, found)
    opener = openvino.Opener(worker._place, None)
    served = opener.runner(dataclasses.replace(wanted, folder="s0/openvino"), print)
    np.testing.assert_array_equal(served({"x": x})["y"], found["y"])
    compiled = worker._device.model("s0/openvino")._compiled
    key = (variant.removesuffix("p1"), (("x", (each, 32, 32, 3)),))
    (left,) = executed(compiled[key], "Convolution")
    family = openvino_blocked.family()  # of few channels: blocked layouts are the better ones
    assert not family or left.get_rt_info()["primitiveType"].astype(str) == f"{family}_f32"
    agree(expected, runner(opened, "f32", rows)[0]({"x": x}))  # the other variants' model is as it was


@pytest.mark.tensorflow
def test_all_buckets_share_what_a_single_row_needs(opened):
    for variant, rows in (("f32-winograd", 4), ("f32-winograd-s2p1", 5)):
        with pytest.raises(NotLowerable, match="for single rows alone"):
            runner(opened, variant, rows)
    compiled = opened[0]._device.model("s0/openvino")._compiled
    compiled.clear()
    for rows in (2, 4, 6):
        runner(opened, "f32-winograd-s2p1", rows)
    assert list(compiled) == [("f32-winograd-s2", (("x", (1, 32, 32, 3)),))]


@pytest.mark.tensorflow
def test_a_model_where_it_does_not_pay_is_refused_before_it_is_compiled(tmp_path, monkeypatch):
    prepared = Prepared("cnn", tmp_path, openvino.Worker(), openvino_freeze.Converter)
    prepared.check(dataclasses.replace(target("cnn", "serving_default", "f32", 1), rows=1))
    core = prepared.worker._device.core
    monkeypatch.setattr(prepared.worker._device, "core", SimpleNamespace(read_model=core.read_model))
    with pytest.raises(NotLowerable, match="no 3x3 convolution for which fewer multiplications pay"):
        prepared.runner(dataclasses.replace(target("cnn", "serving_default", "f32-winograd", 1), rows=1))
