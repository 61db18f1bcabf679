"""The kinds of models that the split must load: each is cut and answers as plain TensorFlow, or says why it is not."""

from __future__ import annotations

import numpy as np
import pytest
from splitcases import KEYS, WORDS, Model, table, tf1_loop, weights, words
from tfopt_optimizer import saved_model
from tfopt_optimizer.errors import NotLowerable

pytestmark = pytest.mark.tensorflow
KNOWN = np.array([b"red", b"blue", b"\xff", b"red", b"red"], object)


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


def opened(folder, key="serving_default"):
    """A model that lies in folder/model already."""
    return Model.__new__(Model).open(folder / "model", folder / f"plan-{key[:4]}", key)


def where(model):
    return [s.where for s in model.segments()]


def test_keras_3_saved_with_two_handles_for_every_variable(tf, tmp_path):
    """tf.saved_model.save of a Keras 3 model: a TF1 session would leave the handles that are read uninitialized."""
    import keras

    keras.utils.set_random_seed(3)
    word, x = keras.Input([], dtype="string", name="word"), keras.Input([3], name="x")
    ids = keras.layers.StringLookup(vocabulary=["red", "blue"])(word)
    joined = keras.layers.Concatenate()([keras.layers.Embedding(3, 8)(ids), x])
    net = keras.Model({"word": word, "x": x}, {"y": keras.layers.Dense(4, "softmax")(joined)})
    module = tf.Module()
    module.net = net

    def serve(word, x):
        return net({"word": word, "x": x})

    model = Model(tf, tmp_path, module, serve, words(tf), tf.TensorSpec([None, 3], tf.float32, name="x"))
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for engine, variant in (("xla", "pjrt"), ("litert", "t1"), ("openvino", "f32")):
        model.check({"word": WORDS, "x": x}, engine=engine, variant=variant)
    assert {t.dtype for s in model.segments() for t in s.takes if s.where == "device"} == {"int32", "float"}
    assert where(model) == ["host", "device"]


@pytest.mark.parametrize("resource", [False, True])
def test_tf1_variables_of_both_kinds_behind_parsing(tf, tmp_path, resource):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        text = v1.placeholder(tf.string, [None], name="text")
        names = v1.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(KEYS, tf.constant([0, 1, 2], tf.int64)), 3
        )
        tokens = tf.sparse.to_dense(v1.strings.split(text), default_value="")[:, :2]
        vectors = v1.get_variable("vectors", [4, 8], use_resource=resource)
        dense = v1.get_variable("dense", [8, 2], use_resource=resource)
        y = tf.matmul(tf.reduce_mean(tf.gather(vectors, names.lookup(tokens)), 1), dense, name="y")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info, utils = v1.saved_model.utils.build_tensor_info, v1.saved_model.signature_def_utils
        signature = utils.build_signature_def({"text": info(text)}, {"y": info(y)}, "tensorflow/serving/predict")
        saver = v1.saved_model.Builder(str(tmp_path / "model"))
        saver.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=v1.tables_initializer()
        )
        saver.save()
    model = opened(tmp_path)
    model.check({"text": np.array([b"red blue", b"blue nope", b"\xff red", b"red red"], object)})
    assert model.segments()[0].runs_on == "tensorflow"


def test_loops_and_branches_of_tf1_are_left_whole(tf, tmp_path):
    tf1_loop(tf, tmp_path / "model")
    model = opened(tmp_path)
    assert model.plain({"text": WORDS})["y"].shape == (5, 4)
    with pytest.raises(NotLowerable, match=r"its graph is TF1's \((Enter|Exit|Merge|NextIteration|Switch)\)"):
        model.runner({"text": WORDS})


def test_signatures_that_share_weights_are_cut_each_on_its_own(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 8), table(tf), weights(tf, 8, 2)

    def scores(word):
        return {"y": tf.gather(module.vectors, module.table.lookup(word)) @ module.dense}

    def both(word, sentence):
        first = tf.strings.split(sentence).to_tensor(shape=[None, 1])[:, 0]
        return {"y": scores(word)["y"], "z": scores(first)["y"]}

    signatures = {
        "serving_default": tf.function(scores, input_signature=[words(tf)]),
        "both/two:2": tf.function(both, input_signature=[words(tf), words(tf, "sentence")]),
    }
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)
    sentence = np.array([b"blue red", b"red", b"\xff", b"none at all", b"blue"], object)
    opened(tmp_path).check({"word": WORDS})
    model = opened(tmp_path, "both/two:2")
    model.check({"word": WORDS, "sentence": sentence})
    assert [s.runs_on for s in model.segments()] == ["tensorflow", ""]


def test_a_table_that_can_change_is_cut_where_nobody_changes_it(tf, tmp_path):
    module = tf.Module()
    module.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 3)
    module.table.insert(tf.constant(KEYS), tf.range(3, dtype=tf.int64))
    module.vectors, module.dense = weights(tf, 4, 8), weights(tf, 8, 2)

    def serve(word):
        ids = module.table.lookup(word)
        return {"y": tf.gather(module.vectors, ids) @ module.dense, "size": module.table.size() + 0 * ids[0]}

    model = Model(tf, tmp_path, module, serve, words(tf))
    model.independent = False
    model.check({"word": WORDS})
    assert model.segments()[0].runs_on == "tensorflow"  # Python looks up, but does not count


def test_a_model_that_writes_its_table_takes_part_with_plain_tensorflow_alone(tf, tmp_path):
    module = tf.Module()
    module.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 3)

    @tf.function(input_signature=[words(tf)])
    def serve(word):
        return {"id": module.table.lookup(word)}

    @tf.function(input_signature=[words(tf), tf.TensorSpec([None], tf.int64, name="id")])
    def learn(word, id):
        module.table.insert(word, id)
        return {"size": module.table.size()}

    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": serve, "learn": learn})
    assert saved_model.states(tmp_path)["learn"].writes  # tournament: only plain TensorFlow takes part


def test_control_flow_goes_where_all_of_it_can(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 8), table(tf), weights(tf, 8, 8)

    def serve(word, steps):
        def spell(w):  # a loop over text
            return tf.while_loop(lambda s: tf.strings.length(s) > 4, lambda s: (tf.strings.substr(s, 0, 4),), (w,))[0]

        x = tf.gather(module.vectors, module.table.lookup(tf.map_fn(spell, word)))
        y = tf.cond(steps > 1, lambda: tf.tanh(x @ module.dense), lambda: x)
        _, y = tf.while_loop(lambda i, y: i < steps, lambda i, y: (i + 1, tf.tanh(y @ module.dense)), (0, y))
        return {"y": y}

    model = Model(tf, tmp_path, module, serve, words(tf), tf.TensorSpec([], tf.int32, name="steps"))
    model.independent = False
    for steps in (0, 3):
        model.check({"word": WORDS, "steps": np.array(steps, np.int32)})
    host, device = model.segments()
    assert any("While" in kind for kind in host.kinds)
    assert any("While" in kind for kind in device.kinds)
    assert any("If" in kind for kind in device.kinds)


def test_a_loop_that_looks_up_what_was_sent_is_a_hosts(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.dense, module.table = weights(tf, 4, 8), weights(tf, 8, 8), table(tf)

    def serve(word, id):
        x = tf.gather(module.vectors, module.table.lookup(word))
        body = lambda i, y: (i + 1, y + tf.gather(module.vectors, id + i))  # noqa: E731
        _, y = tf.while_loop(lambda i, y: i < 2, body, (tf.constant(0, tf.int64), x))
        return {"y": tf.tanh(y @ module.dense)}

    model = Model(tf, tmp_path, module, serve, words(tf), tf.TensorSpec([None], tf.int64, name="id"))
    runner = model.check({"word": WORDS, "id": np.array([0, 1, 2, 0, 1])})
    whys = " ".join(o.why for s in model.segments() for o in s.operations if "While" in o.op)
    assert "looks up" in whys
    with pytest.raises(Exception, match="not in"):
        runner({"word": WORDS, "id": np.array([0, 1, 2, 0, 3])})


def test_sequences_of_two_inputs_behind_parsing(tf, tmp_path):
    """Inner dimensions that only a record can tell, on host and device."""
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 8), table(tf), weights(tf, 8, 4)

    def serve(tokens, weights):
        ids = module.table.lookup(tf.strings.regex_replace(tokens, "[0-9]+", ""))
        x = tf.gather(module.vectors, ids) * weights[:, :, None]
        return {"states": tf.tanh(x @ module.dense), "pooled": tf.reduce_sum(x, 1) @ module.dense}

    specs = (("tokens", tf.string), ("weights", tf.float32))
    model = Model(tf, tmp_path, module, serve, *(tf.TensorSpec([None, None], dtype, name=n) for n, dtype in specs))
    for rows, length in ((3, 2), (2, 5), (3, 5)):
        tokens = np.array([b"red", b"blue7", b"", b"\xff"], object)[np.arange(rows * length) % 4].reshape(rows, length)
        model.check({"tokens": tokens, "weights": np.full((rows, length), 0.5, np.float32)})
