"""Signatures whose host part only TensorFlow can run: parsing, decoding, sparse tensors, strings cut into words."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from splitcases import WORDS, Model, table, weights, words
from tfopt_optimizer.engines.base import Target
from tfopt_optimizer.engines.split import Opener
from tfopt_optimizer.errors import Declined, NotLowerable

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


def example(tf, **features):
    def feature(value):
        if isinstance(value[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
        kind = tf.train.FloatList if isinstance(value[0], float) else tf.train.Int64List
        return tf.train.Feature(**{"float_list" if kind is tf.train.FloatList else "int64_list": kind(value=value)})

    found = {name: feature(value) for name, value in features.items() if value}
    return tf.train.Example(features=tf.train.Features(feature=found)).SerializeToString()


@pytest.fixture(scope="module")
def parsing(tf, tmp_path_factory):
    """Examples of a word, an id below 6 and four numbers."""
    module = tf.Module()
    module.vectors, module.others, module.table = weights(tf, 4, 8), weights(tf, 6, 8), table(tf)
    module.dense = weights(tf, 20, 3)

    def serve(examples):
        fixed = tf.io.FixedLenFeature
        spec = {"word": fixed([], tf.string), "id": fixed([], tf.int64), "x": fixed([4], tf.float32)}
        found = tf.io.parse_example(examples, spec)
        parts = [tf.gather(module.vectors, module.table.lookup(found["word"])), tf.gather(module.others, found["id"])]
        return {"y": tf.nn.softmax(tf.concat([*parts, found["x"]], 1) @ module.dense)}

    return Model(tf, tmp_path_factory.mktemp("parsing"), module, serve, words(tf, "examples"))


def examples(tf, *ids):
    found = [example(tf, word=[WORDS[i % 5]], id=[n], x=[0.5, float(i), 2.0, -1.0]) for i, n in enumerate(ids)]
    return {"examples": np.array(found, object)}


def test_examples_are_parsed_on_the_host_for_every_engine(tf, parsing):
    for engine, variant in (("xla", "pjrt"), ("litert", "t1"), ("openvino", "f32")):
        for ids in ((1, 2, 3), (5,), (0, 1, 2, 3, 4, 5, 0)):
            parsing.check(examples(tf, *ids), engine=engine, variant=variant)
    host, device = parsing.segments()
    assert (host.runs_on, device.where) == ("tensorflow", "device")
    assert "ParseExampleV2" in host.kinds
    assert sorted((t.dtype, t.shape) for t in device.takes) == [
        ("float", (None, 4)),
        ("int32", (None,)),
        ("int64", (None,)),
    ]


def test_what_tensorflow_refuses_in_an_example_is_left_to_it(tf, parsing):
    runner = parsing.check(examples(tf, 1, 2))
    with pytest.raises(Declined, match="a look-up has 6 entries"):
        runner(examples(tf, 1, 6))  # XLA would take the last row
    for wrong in (b"no example", example(tf, word=[b"red"], id=[1])):
        with pytest.raises(Declined, match="the host part"):
            runner({"examples": np.array([wrong, wrong], object)})


def test_a_server_opens_it_without_the_model(tf, parsing, tmp_path):
    feeds = examples(tf, 1, 2, 3)
    runner, artifact = parsing.runner(feeds), parsing.prepared.artifact
    assert parsing.prepared.tensorflow
    shutil.copytree(parsing.place.plan_dir / artifact, tmp_path / artifact)
    place = dataclasses.replace(parsing.place, plan_dir=tmp_path, model_dir=tmp_path / "nowhere")
    target = Target(parsing.info, "pjrt", {"examples": (3,)}, artifact, 3, "host+xla")
    opened = Opener(place, lambda: pytest.fail("the model itself is not asked for")).runner(target, print)
    np.testing.assert_array_equal(opened(feeds)["y"], runner(feeds)["y"])


def test_sparse_ids_are_averaged_on_the_host_and_text_in_the_middle_stays_there(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.dense, module.last = weights(tf, 50, 8), weights(tf, 9, 4), weights(tf, 4, 4)

    def serve(examples):
        spec = {"ids": tf.io.VarLenFeature(tf.int64), "x": tf.io.FixedLenFeature([1], tf.float32, 0.0)}
        found = tf.io.parse_example(examples, spec)
        ids = tf.sparse.fill_empty_rows(found["ids"], tf.constant(0, tf.int64))[0]
        vector = tf.nn.embedding_lookup_sparse(module.vectors, ids, None, combiner="mean")
        y = tf.nn.tanh(tf.concat([vector, found["x"]], -1) @ module.dense)
        z = tf.strings.to_number(tf.strings.as_string(y[:, :1], precision=3))
        return {"y": tf.nn.softmax((y + z) @ module.last)}

    model = Model(tf, tmp_path, module, serve, words(tf, "examples"))
    feeds = {"examples": np.array([example(tf, ids=i, x=[0.5]) for i in ([1, 2, 3], [], [4])], object)}
    model.check(feeds)
    model.check({"examples": feeds["examples"][:2]}, engine="openvino", variant="f32")
    assert [s.where for s in model.segments()] == ["host", "device", "host", "device"]


def test_pictures_are_decoded_on_the_host(tf, tmp_path):
    module = tf.Module()
    module.kernel, module.dense = weights(tf, 3, 3, 3, 4), weights(tf, 4, 2)

    def picture(data):
        return tf.image.resize(tf.image.decode_png(data, 3), [8, 8])

    def serve(pictures):
        x = tf.map_fn(picture, pictures, tf.float32) / 255.0
        x = tf.nn.relu(tf.nn.conv2d(x, module.kernel, 1, "SAME"))
        return {"y": tf.reduce_mean(x, [1, 2]) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf, "pictures"))
    random = np.random.default_rng(0)
    shapes = ((5, 7, 3), (8, 8, 3), (4, 9, 3))
    pictures = [tf.io.encode_png(random.integers(0, 255, s).astype(np.uint8)).numpy() for s in shapes]
    model.check({"pictures": np.array(pictures, object)})
    model.check({"pictures": np.array(pictures[:1], object)}, engine="litert", variant="t1")
    (device,) = (s for s in model.segments() if s.where == "device")
    assert "Conv2D" in device.kinds
    assert [t.shape for t in device.takes] == [(None, 8, 8, 3)]


def test_text_is_cut_into_words_of_which_as_many_as_the_model_wants_are_looked_up(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 8), table(tf), weights(tf, 8, 2)

    def serve(text):
        tokens = tf.strings.split(tf.strings.regex_replace(text, "[^a-z ]", "")).to_tensor(shape=[None, 6])
        return {"y": tf.reduce_mean(tf.gather(module.vectors, module.table.lookup(tokens)), 1) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf, "text"))
    model.check({"text": np.array([b"red blue", b"", b"!red red red red red red red red"], object)})


def test_what_has_another_shape_in_every_call_stays_on_the_host(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 4), table(tf), weights(tf, 4, 4)

    def serve(word):
        x = tf.gather(module.vectors, module.table.lookup(word)) @ module.dense
        best = tf.image.non_max_suppression(x, x[:, 0], 3, iou_threshold=0.0)
        return {"picked": tf.gather(x, tf.where(x[:, 0] > 0)[:, 0]) @ module.dense, "best": tf.gather(x, best)}

    model = Model(tf, tmp_path, module, serve, words(tf))
    for row in ([0, 1, 2, 3, 4], [0, 0, 0, 0, 0]):
        model.check({"word": WORDS[row]})
    *_, host = model.segments()
    whys = {o.op: o.why for o in host.operations}
    assert whys["Where"] == "the shape of Where's result depends on values"
    assert whys["MatMul"] == "the shape of what GatherV2 gives depends on values"


def test_a_segment_begins_where_shapes_no_longer_depend_on_values(tf, tmp_path):
    module = tf.Module()
    module.dense, module.vectors, module.table = weights(tf, 8, 2), weights(tf, 4, 8), table(tf)

    def serve(text):
        tokens = tf.strings.split(text).to_tensor()  # as many as the longest text has
        return {"y": tf.reduce_mean(tf.gather(module.vectors, module.table.lookup(tokens)), 1) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf, "text"))
    for text in ([b"red blue", b"red", b"red red blue"], [b"red", b"", b"blue"]):
        model.check({"text": np.array(text, object)})
    (device,) = (s for s in model.segments() if s.where == "device")
    assert device.kinds == {"MatMul": 1}


def test_what_never_has_a_shape_is_not_cut(tf, tmp_path):
    module = tf.Module()
    module.dense = weights(tf, 1, 2)

    def serve(text):
        lengths = tf.cast(tf.strings.length(tf.strings.split(text).flat_values), tf.float32)
        return {"y": lengths[:, None] @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf, "text"))
    with pytest.raises(NotLowerable, match=r"no part of it is worth a device: .*depends on values"):
        model.runner({"text": np.array([b"red blue", b"red", b"red red blue"], object)})


def test_what_is_printed_is_printed_once(tf, tmp_path, capfd):
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 4), table(tf), weights(tf, 4, 4)

    def serve(word):
        x = tf.gather(module.vectors, module.table.lookup(word)) @ module.dense
        with tf.control_dependencies([tf.print("words:", tf.size(word))]):
            return {"y": tf.identity(x)}

    model = Model(tf, tmp_path, module, serve, words(tf))
    runner = model.check({"word": WORDS})
    capfd.readouterr()
    runner({"word": WORDS})
    assert capfd.readouterr().err.count("words: 5") == 1
