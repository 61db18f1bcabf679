"""Planted traps for the cut: what must not go to a device, what must not be lost, which models are not cut, and why."""

from __future__ import annotations

import numpy as np
import pytest
from splitcases import KEYS, WORDS, Model, table, weights, words
from tfopt_optimizer import saved_model
from tfopt_optimizer.errors import Declined
from tfopt_optimizer.split.worth import worth_splitting

pytestmark = pytest.mark.tensorflow

KNOWN = np.array([b"red", b"blue", b"\xff", b"red", b"red"], object)


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


def test_a_string_operation_in_the_middle_of_a_dense_net(tf, tmp_path):
    module = tf.Module()
    module.first, module.second, module.names = weights(tf, 4, 3), weights(tf, 5, 2), table(tf, ["0", "1", "2"])
    module.vectors = weights(tf, 4, 5)

    def serve(x):
        best = tf.argmax(x @ module.first, 1)
        vector = tf.gather(module.vectors, module.names.lookup(tf.strings.as_string(best)))
        return {"y": tf.nn.tanh(vector @ module.second), "name": tf.strings.join(["no. ", tf.strings.as_string(best)])}

    model = Model(tf, tmp_path, module, serve, tf.TensorSpec([None, 4], tf.float32, name="x"))
    model.check({"x": np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)})
    assert [s.where for s in model.segments()] == ["device", "host", "device"]


def test_hashed_words_and_odd_values(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.dense = weights(tf, 50, 8), weights(tf, 16, 3)

    def serve(a, b):
        ids = [tf.strings.to_hash_bucket_fast(tf.strings.lower(x), 50) for x in (a, b)]
        return {"y": tf.nn.softmax(tf.concat([tf.gather(module.vectors, i) for i in ids], 1) @ module.dense)}

    model = Model(tf, tmp_path, module, serve, words(tf, "a"), words(tf, "b"))
    for engine, variant in (("xla", "pjrt"), ("litert", "t1"), ("openvino", "f32")):
        model.check({"a": WORDS, "b": WORDS[::-1].copy()}, engine=engine, variant=variant)
    (device,) = (s for s in model.segments() if s.where == "device")
    assert [(t.dtype, t.shape) for t in device.takes] == [("int32", (None, 2))]


def test_a_loop_on_the_device(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.dense, module.table = weights(tf, 4, 8), weights(tf, 8, 8), table(tf)

    def serve(word):
        x = tf.gather(module.vectors, module.table.lookup(word))
        _, y = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.tanh(y @ module.dense)), (0, x))
        return {"y": y}

    model = Model(tf, tmp_path, module, serve, words(tf))
    model.check({"word": WORDS})
    assert any("While" in kind for s in model.segments() if s.where == "device" for kind in s.kinds)


def test_an_assertion_is_kept_and_its_failure_is_left_to_tensorflow(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 8), table(tf), weights(tf, 8, 2)

    def serve(word):
        ids = module.table.lookup(word)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(ids < 3), ["unknown word"])]):
            return {"y": tf.gather(module.vectors, tf.identity(ids)) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf))
    runner = model.check({"word": KNOWN})
    with pytest.raises(Declined, match="an assertion of the model fails"):
        runner({"word": WORDS})
    assert "Assert" in {o.op for s in model.segments() for o in s.operations}


@pytest.mark.parametrize("default", [-1, 4])
def test_a_word_that_is_looked_up_beyond_the_weights_is_left_to_tensorflow(tf, tmp_path, default):
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 8), table(tf, default=default), weights(tf, 8, 2)

    def serve(word):
        return {"y": tf.gather(module.vectors, module.table.lookup(word)) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf))
    for engine, variant in (("xla", "pjrt"), ("openvino", "f32")):
        runner = model.check({"word": KNOWN}, engine=engine, variant=variant)
        with pytest.raises(Declined, match="a look-up has 4 entries"):
            runner({"word": WORDS})


def test_every_packed_look_up_is_held_to_its_own_weights(tf, tmp_path):
    module = tf.Module()
    module.dense, module.table = weights(tf, 8, 2), table(tf, default=9)
    module.small, module.large = weights(tf, 4, 4), weights(tf, 10, 4)

    def serve(a, b):
        found = [tf.gather(w, module.table.lookup(x)) for w, x in ((module.small, a), (module.large, b))]
        return {"y": tf.concat(found, 1) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf, "a"), words(tf, "b"))
    runner = model.check({"a": KNOWN, "b": WORDS})
    assert [len(t.parts) for s in model.segments() for t in s.takes if s.where == "device"] == [2]
    with pytest.raises(Declined):
        runner({"a": WORDS, "b": KNOWN})


def test_what_a_device_segment_would_look_up_wrongly_is_looked_up_on_the_host(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.dense, module.table = weights(tf, 4, 8), weights(tf, 8, 2), table(tf)

    def serve(word):
        return {"y": tf.gather(module.vectors, module.table.lookup(word) * 2) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf))
    runner = model.check({"word": WORDS[[0, 1, 0]]})
    host = model.segments()[0]
    assert "looks up what it computes" in " ".join(o.why for o in host.operations if "Gather" in o.op)
    with pytest.raises(Declined, match="not in"):
        runner({"word": WORDS[:3]})


def test_columns_of_a_matrix_are_held_to_their_own_weights(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.table, module.dense = weights(tf, 4, 8), table(tf), weights(tf, 8, 2)
    module.small, module.large = weights(tf, 3, 8), weights(tf, 100, 8)

    def serve(word, ids):
        x = tf.gather(module.vectors, module.table.lookup(word))
        return {"y": (x + tf.gather(module.small, ids[:, 0]) * tf.gather(module.large, ids[:, 1])) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf), tf.TensorSpec([None, 2], tf.int64, name="ids"))
    runner = model.check({"word": WORDS[:2], "ids": np.array([[2, 99], [0, 3]])})
    for wrong in ([[3, 0], [0, 0]], [[0, 100], [0, 0]], [[0, 0], [0, -1]]):
        with pytest.raises(Declined, match="a look-up has"):
            runner({"word": WORDS[:2], "ids": np.array(wrong)})


@pytest.mark.parametrize("rows", [3, 8])
def test_the_best_of_more_than_a_table_has_is_looked_up_on_the_host(tf, tmp_path, rows):
    module = tf.Module()
    module.vectors, module.table = tf.Variable(np.eye(8, dtype=np.float32)[::2]), table(tf)
    module.best, module.dense = weights(tf, rows, 8), weights(tf, 8, 2)

    def serve(word):
        best = tf.argmax(tf.nn.relu(tf.gather(module.vectors, module.table.lookup(word))), -1)
        return {"y": tf.gather(module.best, best) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf))
    runner = model.check({"word": WORDS[[0, 1, 0]]})
    why = [o.why for s in model.segments() for o in s.operations if "Gather" in o.op]
    assert ["looks up what it computes" in each for each in why] == ([True] if rows == 3 else [])
    if rows == 3:  # the third word's best is the fifth of them
        with pytest.raises(Declined, match="not in"):
            runner({"word": KNOWN[[0, 1, 2]]})
    else:
        model.check({"word": KNOWN[:3]})


def test_an_int64_input_of_any_value_travels_in_64_bits(tf, tmp_path):
    module = tf.Module()
    module.ids = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant([1 << 40, -5], tf.int64), tf.constant([0, 1], tf.int64)), 2
    )
    module.vectors, module.dense = weights(tf, 3, 4), weights(tf, 4, 2)

    def serve(id, other):
        return {
            "y": tf.gather(module.vectors, module.ids.lookup(id)) @ module.dense,
            "sum": id + other * tf.constant(1 << 33, tf.int64),
        }

    spec = [tf.TensorSpec([None], tf.int64, name=n) for n in ("id", "other")]
    model = Model(tf, tmp_path, module, serve, *spec)
    feeds = {"id": np.array([1 << 40, -5, 7]), "other": np.array([3, -(1 << 20), 0])}
    for engine, variant in (("xla", "pjrt"), ("litert", "t1")):
        model.check(feeds, engine=engine, variant=variant)


def test_a_table_of_ids_beyond_32_bits_is_not_narrowed(tf, tmp_path):
    module = tf.Module()
    values = tf.constant([1 << 40, 2], tf.int64)
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(["red", "blue"]), values), -1
    )
    module.dense = weights(tf, 2, 2)

    def serve(a, b):
        ids = tf.stack([module.table.lookup(a), module.table.lookup(b)], 1)
        return {"big": ids, "y": tf.cast(ids % 7, tf.float32) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf, "a"), words(tf, "b"))
    for engine, variant in (("xla", "pjrt"), ("litert", "t1")):
        model.check({"a": WORDS, "b": WORDS[::-1].copy()}, engine=engine, variant=variant)


def test_columns_are_hashed_together_whatever_else_the_host_does_with_them(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.dense = weights(tf, 50, 4), weights(tf, 12, 3)

    def serve(a, b):
        first = tf.strings.to_hash_bucket_fast(a, 50)
        crossed = tf.strings.to_hash_bucket_fast(tf.strings.join([tf.strings.as_string(first), b], "_"), 50)
        ids = [first, tf.strings.to_hash_bucket_fast(tf.strings.lower(b), 7), crossed]
        return {"y": tf.concat([tf.gather(module.vectors, i) for i in ids], 1) @ module.dense}

    model = Model(tf, tmp_path, module, serve, words(tf, "a"), words(tf, "b"))
    for rows in (1, 5, 40):
        model.check({"a": np.resize(WORDS, rows), "b": np.resize(WORDS[::-1], rows)})


def test_sequences_of_words_keep_their_inner_dimension(tf, tmp_path):
    module = tf.Module()
    module.vectors, module.dense, module.table = weights(tf, 4, 8), weights(tf, 8, 2), table(tf)

    def serve(tokens):
        ids = module.table.lookup(tokens)
        mask = tf.cast(tokens != "", tf.float32)[:, :, None]
        x = tf.reduce_sum(tf.gather(module.vectors, ids) * mask, 1)
        return {"y": tf.reshape(x @ module.dense, [tf.shape(tokens)[0], 2])}

    model = Model(tf, tmp_path, module, serve, tf.TensorSpec([None, None], tf.string, name="tokens"))
    for length in (2, 5):
        model.check({"tokens": np.resize(WORDS, (3, length))})


def test_a_tf1_model_with_reference_variables_and_a_table(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        word = v1.placeholder(tf.string, [None], name="word")
        values = tf.constant([0, 1, 2], tf.int64)
        init = tf.lookup.KeyValueTensorInitializer(tf.constant(KEYS), values)
        names = v1.lookup.StaticHashTable(init, 3)
        vectors = v1.get_variable("vectors", [4, 8], use_resource=False)
        dense = v1.get_variable("dense", [8, 2], use_resource=False)
        y = tf.matmul(tf.gather(vectors, names.lookup(word)), dense, name="y")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info = v1.saved_model.utils.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {"word": info(word)}, {"y": info(y)}, "tensorflow/serving/predict"
        )
        saver = v1.saved_model.Builder(str(tmp_path / "model"))
        saver.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=v1.tables_initializer()
        )
        saver.save()
    model = Model.__new__(Model).open(tmp_path / "model", tmp_path / "plan")
    model.check({"word": WORDS})
    assert [s.where for s in model.segments()] == ["host", "device"]


def test_only_signatures_with_host_work_or_many_inputs_are_worth_a_cut(savedmodel):
    def worth(name):
        signatures = saved_model.read_signatures(savedmodel(name))
        return worth_splitting(savedmodel(name), ("serve",), signatures)

    assert worth("tabular") == {"serving_default"}
    assert worth("cnn") == frozenset()
    assert worth("shared") == frozenset()
    assert worth("dtypes") == {"serving_default"}  # six inputs
