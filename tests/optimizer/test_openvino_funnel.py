"""Rows that go through the first layers one by one and through the others together: where the cut is, and the same
answers."""

from __future__ import annotations

import dataclasses

import enginecases
import numpy as np
import pytest
from enginecases import agree
from tfopt_optimizer.engines import openvino, openvino_blocked, openvino_funnel
from tfopt_optimizer.errors import NotLowerable

ov = openvino.library()
ops = ov.opset13
CORE = ov.Core()
needs_kernels = pytest.mark.skipif(not openvino_blocked.family(), reason="this processor has neither AVX-512 nor AVX2")


def floats(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convolution(source, channels, outputs, window=3, strides=1):
    weights, pads = floats(outputs, channels, window, window) / np.float32(channels), [window // 2] * 2
    return ops.convolution(source, weights, [strides] * 2, pads, pads, [1, 1])


def modelled(write, *shapes):
    given = [ops.parameter(list(shape), np.float32, name=f"x{number}") for number, shape in enumerate(shapes)]
    for parameter in given:
        parameter.output(0).set_names({parameter.get_friendly_name()})
    made = write(*given)
    results = []
    for number, value in enumerate(made if isinstance(made, tuple) else (made,)):
        value.output(0).set_names({f"y{number}"})
        results.append(ops.result(value))
    return ov.Model(results, given, "model")


def answers(model, *given):
    request = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    request.infer({f"x{number}": array for number, array in enumerate(given)})
    return {port.any_name: request.get_tensor(port.any_name).data.copy() for port in model.outputs}


def large_tensors(x):
    """Layers with small weights: 2 * 8 * 256 floats in and out, 8 * 8 * 9 of weights."""
    return ops.relu(convolution(ops.relu(convolution(x, 8, 8)), 8, 8))


def large_weights(x):
    return ops.matmul(ops.reduce_mean(x, [2, 3]), floats(8, 4000), False, False)


def plain(x):
    return large_weights(large_tensors(x))


def residual(x):
    early = large_tensors(x)
    return large_weights(ops.relu(ops.add(convolution(early, 8, 8), early)))


def flattened(x):
    """As Keras does: the number of rows is taken from the shape of what was before the cut."""
    early = large_tensors(x)
    rows = ops.gather(ops.shape_of(early), ops.constant(np.int64([0])), ops.constant(np.int64(0)))
    shape = ops.concat([rows, ops.constant(np.int64([2048]))], 0)
    return ops.matmul(ops.reshape(early, shape, False), floats(2048, 400), False, False)


def joined(x, other):
    return ops.add(plain(x), ops.matmul(other, floats(5, 4000), False, False))


def both(x, other):
    return large_weights(ops.multiply(large_tensors(x), large_tensors(other)))


def added_again(x):
    return large_weights(ops.add(large_tensors(x), x))


def two_results(x):
    early = large_tensors(x)
    return ops.negative(large_weights(early)), early


IMAGE, OTHER = (3, 8, 16, 16), (3, 5)
MODELS = [
    (plain, IMAGE), (residual, IMAGE), (flattened, IMAGE), (joined, IMAGE, OTHER), (both, IMAGE, IMAGE),
    (added_again, IMAGE), (two_results, IMAGE),
]  # fmt: skip


@pytest.mark.parametrize(("write", "shapes"), [(m[0], m[1:]) for m in MODELS], ids=[m[0].__name__ for m in MODELS])
def test_answers_are_the_same(write, shapes):
    given = [floats(*shape, seed=number) for number, shape in enumerate(shapes)]
    expected = answers(modelled(write, *shapes), *given)
    made = openvino_funnel.funnel(ov, modelled(write, *shapes))
    assert [list(port.shape) for port in made.inputs] == [list(shape) for shape in shapes]
    convolutions = [node for node in made.get_ordered_ops() if node.get_type_name() == "Convolution"]
    assert {node.get_output_shape(0)[0] for node in convolutions} == {1}
    agree(expected, answers(made, *given))


def test_what_is_wanted_of_the_inputs_and_results_keeps_its_names():
    made = openvino_funnel.funnel(ov, modelled(joined, IMAGE, OTHER))
    assert [port.get_names() for port in made.inputs] == [{"x0"}, {"x1"}]
    assert [port.get_names() for port in made.outputs] == [{"y0"}]


def cut(write):
    """The kind of the operation before the cut, and of those behind it."""
    model = modelled(write, (1, *IMAGE[1:]))
    node = openvino_funnel._named(model, openvino_funnel.best(model).name)
    takers = [port.get_node().get_type_name() for port in node.output(0).get_target_inputs()]
    return node.get_type_name(), sorted(takers)


def test_the_cut_is_behind_all_that_is_computed_within_the_last_layer_that_saves():
    def write(x):
        early = ops.reshape(ops.relu(convolution(x, 8, 8)), [0, -1], True)
        return ops.matmul(early, floats(2048, 40), False, False)

    assert cut(write) == ("Reshape", ["MatMul"])  # neither the convolution nor its activation


def test_what_a_sum_still_needs_is_no_cut():
    """Behind the first layer two tensors are needed, and behind the sum large weights have been read."""

    def write(x):
        early = ops.relu(convolution(x, 8, 8))
        late = convolution(ops.relu(convolution(early, 8, 8)), 8, 8)
        costly = ops.matmul(ops.reshape(late, [0, -1], True), floats(2048, 2048), False, False)
        return ops.add(ops.reshape(costly, [0, 8, 16, 16], True), early)

    assert cut(write) == ("Relu", ["Add", "Convolution"])


def test_what_does_not_begin_with_the_rows_is_no_cut():
    def write(x):
        turned = ops.transpose(large_tensors(x), [1, 0, 2, 3])
        return ops.matmul(
            ops.reshape(ops.transpose(turned, [1, 0, 2, 3]), [0, -1], True), floats(2048, 40), False, False
        )

    assert cut(lambda x: ops.transpose(write(x), [1, 0]))[0] == "Reshape"
    assert cut(lambda x: ops.transpose(large_tensors(x), [1, 0, 2, 3])) == ("Relu", ["Transpose"])


def test_what_has_two_results_is_no_cut():
    def write(x):
        halves = ops.split(large_tensors(x), ops.constant(np.int64(1)), 2)
        means = [ops.reduce_mean(half, [2, 3]) for half in halves.outputs()]
        return ops.add(*(ops.matmul(mean, floats(4, 4000), False, False) for mean in means))

    assert cut(write) == ("Relu", ["Split"])


def test_who_asks_for_a_shape_later_needs_nothing():
    def write(x):
        early = large_tensors(x)
        late = ops.matmul(ops.reshape(early, [0, -1], True), floats(2048, 400), False, False)
        rows = ops.gather(ops.shape_of(early), ops.constant(np.int64([0])), ops.constant(np.int64(0)))
        return ops.reshape(late, ops.concat([rows, ops.constant(np.int64([20, 20]))], 0), False)

    assert cut(write) == ("Reshape", ["MatMul"])


def test_what_shares_its_name_is_no_cut():
    """Operations of a copy are known by their names alone."""
    model = modelled(plain, (1, *IMAGE[1:]))
    first, second = (node for node in model.get_ordered_ops() if node.get_type_name() == "Relu")
    assert openvino_funnel.best(model).saved > (saved := 2 * 4 * 8 * 256 - 4 * 8 * 8 * 9)
    for node in model.get_ordered_ops():
        if node.get_type_name() not in ("Parameter", "Constant") and node.get_name() != first.get_name():
            node.set_friendly_name("layer")
    assert openvino_funnel.best(model) == openvino_funnel.Cut(first.get_friendly_name(), saved)
    assert second.get_friendly_name() == "layer"


def test_where_nothing_is_saved_there_is_none():
    with pytest.raises(NotLowerable, match="no layers that are better computed row by row"):
        cut(large_weights)


@pytest.mark.parametrize(
    ("batch", "streams", "rows"),
    [(None, 2, 0), (1, 2, 0), (2, 2, 0), (3, 2, 0), (4, 2, 2), (6, 2, 3), (8, 2, 4), (10, 2, 0), (12, 2, 3), (16, 2, 4),
     (20, 2, 2), (64, 2, 4), (8, 4, 2), (4, 4, 0)],
)  # fmt: skip
def test_each_stream_runs_as_many_of_the_same(batch, streams, rows):
    assert openvino_funnel.together(batch, streams) == rows


def net(tf, module, x):
    def weights(*shape):
        return tf.constant(floats(*shape) / np.float32(np.sqrt(np.prod(shape[:-1]))))

    early = tf.nn.relu6(tf.nn.conv2d(x, weights(3, 3, 3, 16), 1, "SAME"))
    early = tf.nn.relu6(tf.nn.depthwise_conv2d(early, weights(3, 3, 16, 1), (1, 1, 1, 1), "SAME")) + early
    return {"y": tf.matmul(tf.reduce_mean(early, (1, 2)), weights(16, 3000)) + 1.0}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("funnel")
    return enginecases.opened(openvino.Worker(), folder, net, x=([None, 32, 32, 3], "float32"))


def runner(opened, variant, rows):
    return enginecases.bucket(*opened, variant, x=(rows, 32, 32, 3))


@needs_kernels
@pytest.mark.tensorflow
@pytest.mark.parametrize(("rows", "together"), [(4, 2), (6, 3), (16, 4)])
def test_a_batch_has_the_bits_of_the_same_kernels(opened, rows, together):
    x = floats(rows, 32, 32, 3)
    expected = runner(opened, "f32-blocked", rows)[0]({"x": x})
    run, wanted = runner(opened, "f32-blocked-funnel-s2", rows)
    found, worker = run({"x": x}), opened[0]
    np.testing.assert_array_equal(found["y"], expected["y"])
    served = openvino.Opener(worker._place, None).runner(dataclasses.replace(wanted, folder="s0/openvino"), print)
    np.testing.assert_array_equal(served({"x": x})["y"], found["y"])
    compiled = worker._device.model("s0/openvino")._compiled["f32-blocked-funnel-s2", (("x", (together, 32, 32, 3)),)]
    told = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    family = openvino_blocked.family()
    kernels = [i["primitiveType"].astype(str) for i in told if "Convolution" in i["layerType"].astype(str)]
    assert sorted(kernels) == sorted([f"{family}_f32", f"{family}_dw_f32"] * together)


@needs_kernels
@pytest.mark.tensorflow
def test_buckets_of_as_many_rows_together_share_one_model(opened):
    compiled = opened[0]._device.model("s0/openvino")._compiled
    compiled.clear()
    for rows in (8, 16, 32):
        runner(opened, "f32-blocked-funnel-s2", rows)
    assert list(compiled) == [("f32-blocked-funnel-s2", (("x", (4, 32, 32, 3)),))]


@needs_kernels
@pytest.mark.tensorflow
def test_what_it_is_not_for_is_refused_before_it_is_compiled(opened, monkeypatch):
    model = opened[0]._device.model("s0/openvino")
    for rows in (1, 2, 5, 10):
        with pytest.raises(NotLowerable, match="in twos, threes or fours"):
            runner(opened, "f32-blocked-funnel-s2", rows)
    monkeypatch.setattr(model, "_shared", True)
    with pytest.raises(NotLowerable, match="more than 64 MB"):
        runner(opened, "f32-blocked-funnel-s2", 8)
