"""A signature as one graph with its weights beside it: it answers as the signature does, filled or not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from enginecases import save
from tfopt_optimizer import saved_model
from tfopt_optimizer.engines import freeze, rewritten, tensorflow, weightless
from tfopt_optimizer.engines.base import Place
from tfopt_optimizer.errors import NotLowerable

pytestmark = pytest.mark.tensorflow
random = np.random.default_rng(2)


def read(folder, tmp_path):
    model = tensorflow.open_model(Place(folder, tmp_path, ("serve",), 1, 1), tensorflow.FUNCTION)
    infos = saved_model.read_signatures(folder, ("serve",))
    return model, next(info for info in infos if info.key == "serving_default")


def written(model, light):
    path = model._place.plan_dir / "graph.pb"
    weightless.write(model.tf, light, path)
    graph = model.tf.compat.v1.GraphDef()
    graph.ParseFromString(path.read_bytes())
    return graph


def same(model, info, light, feeds):
    tf = model.tf
    tensors = {name: tf.constant(array) for name, array in feeds.items()}
    expected = model.signature(info.key)(**tensors)
    whole = weightless.Weightless(dataclasses.replace(light.frozen, graph=written(model, light)), {})
    for graph in (light, whole):
        found = rewritten.callable_of(tf, graph)(**tensors)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_allclose(found[name].numpy(), tensor.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "feeds"),
    [
        ("mlp_keras", {"features": random.standard_normal((3, 32)).astype(np.float32)}),
        ("mlp_keras_saved", {"features": random.standard_normal((3, 32)).astype(np.float32)}),
        ("encoder", {"ids": np.array([[3, 5, 0]], np.int32), "mask": np.array([[1, 1, 0]], np.int32)}),
    ],
)
def test_it_answers_as_the_signature_does(savedmodel, tmp_path, name, feeds):
    model, info = read(savedmodel(name), tmp_path)
    light = weightless.of(model, info)
    feeds = {t.name: feeds.get(t.name, next(iter(feeds.values()))) for t in info.inputs}
    same(model, info, light, feeds)


def test_look_ups_and_small_variables_of_whole_numbers(tmp_path):
    """ResourceGather, a variable that is read twice, and one that says along which axis is summed."""

    def compute(tf, module, ids):
        if not hasattr(module, "table"):
            with tf.init_scope():
                module.table = tf.Variable(random.standard_normal((9, 4)).astype(np.float32))
                module.axis = tf.Variable(1)
        rows = tf.gather(module.table, ids)
        return {"y": tf.reduce_sum(rows @ tf.transpose(module.table), module.axis) + tf.reduce_mean(module.table)}

    save(tmp_path / "model", compute, ids=([None, 3], "int32"))
    model, info = read(tmp_path / "model", tmp_path)
    light = weightless.of(model, info)
    assert {node.op for node in light.frozen.graph.node} & {"ReadVariableOp", "ResourceGather", "VarHandleOp"} == set()
    assert sum(node.attr["value"].tensor.ByteSize() for node in light.frozen.graph.node if node.op == "Const") < 500
    same(model, info, light, {"ids": np.array([[1, 2, 8], [0, 0, 5]], np.int32)})


def test_tensors_that_a_model_has_captured(tmp_path):
    """As Keras keeps what was computed while a model was put together, the numbers of its positions for instance."""
    import tensorflow as tf

    places, table = tf.range(3), tf.constant(random.standard_normal((70, 4)).astype(np.float32))
    save(tmp_path / "model", lambda tf, module, ids: {"y": tf.gather(table, ids + places)}, ids=([None, 3], "int32"))
    model, info = read(tmp_path / "model", tmp_path)
    light = weightless.of(model, info)
    assert len(light.weights) == 2
    same(model, info, light, {"ids": np.array([[1, 2, 8], [0, 0, 5]], np.int32)})


def test_a_loop_that_takes_a_variable_is_refused(tmp_path):
    def looped(tf, module, x):
        if not hasattr(module, "weight"):
            with tf.init_scope():
                module.weight = tf.Variable(np.float32(1.5))
        return {"y": tf.while_loop(lambda y: tf.reduce_sum(y) < 100.0, lambda y: (y * module.weight + 1.0,), [x])[0]}

    save(tmp_path / "model", looped, x=([None], "float32"))
    model, info = read(tmp_path / "model", tmp_path)
    with pytest.raises(NotLowerable, match=r"takes a variable itself$"):
        weightless.of(model, info)


def test_what_does_not_fit_into_a_graph_is_refused_before_it_is_copied(savedmodel, tmp_path, monkeypatch):
    model, info = read(savedmodel("mlp_keras"), tmp_path)
    light = weightless.of(model, info)
    monkeypatch.setattr(freeze, "LARGEST", 1000)
    with pytest.raises(NotLowerable, match=r"of constants do not fit into a frozen graph$"):
        weightless.write(model.tf, light, tmp_path / "graph.pb")
    assert not (tmp_path / "graph.pb").exists()


def test_it_is_refused_by_no_less_than_its_size_and_written_whole(savedmodel, tmp_path, monkeypatch):
    model, info = read(savedmodel("mlp_keras"), tmp_path)
    light, asked = weightless.of(model, info), list[int]()
    monkeypatch.setattr(freeze, "refuse", asked.append)
    graph = written(model, light)
    (bound,) = asked
    assert graph.ByteSize() <= bound <= graph.ByteSize() + 2000
    assert [node.name for node in graph.node] == [node.name for node in light.frozen.graph.node]
    assert graph.library == light.frozen.graph.library
    assert graph.versions == light.frozen.graph.versions
