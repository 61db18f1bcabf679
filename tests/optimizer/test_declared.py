"""What parsers of Examples declare, read off a graph: names, types and lengths, and the words of the model's tables."""

from __future__ import annotations

import pytest
from tfopt_optimizer import graphs, saved_model
from tfopt_optimizer.declared import NOTHING, declared
from tfopt_optimizer.examples import Feature

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


def context(name, dtype, size=None, step=1):
    return Feature(("context", name), dtype, size, step)


def listed(name, dtype, size=None, step=1):
    return Feature(("list", name), dtype, size, step)


def saved(tf, to, serve, module=None, *specs):
    """Saves `serve` of serialized Examples and reads what its parsers declare."""
    module = module or tf.Module()
    given = specs or (tf.TensorSpec([None], tf.string, name="examples"),)
    function = tf.function(serve, input_signature=given, autograph=False)
    tf.saved_model.save(module, str(to), signatures={"serving_default": function})
    return read(to)


def read(folder):
    graph = graphs.Graph(saved_model.meta_graph(folder, ("serve",)))
    (info,) = (s for s in saved_model.read_signatures(folder) if s.key == "serving_default")
    outputs, fed = [t.tensor for t in info.outputs], [t.tensor for t in info.inputs]
    return declared(graph, outputs, fed, folder / "assets")


def test_features_of_every_kind(tf, tmp_path):
    io = tf.io
    spec = {
        "fixed": io.FixedLenFeature([2, 3], tf.float32, [[0.0] * 3] * 2), "scalar": io.FixedLenFeature([], tf.int64),
        "any": io.VarLenFeature(tf.string), "ragged": io.RaggedFeature(tf.int64),
        "steps": io.FixedLenSequenceFeature([4], tf.float32, allow_missing=True),
    }  # fmt: skip

    def serve(examples):
        found = io.parse_example(examples, spec)
        return {"y": tf.reduce_sum(found["fixed"]) + tf.cast(tf.size(found["any"]), tf.float32)}

    expected = (
        context("any", "string"), context("fixed", "float", 6, 6), context("ragged", "int64"),
        context("scalar", "int64", 1), context("steps", "float", None, 4),
    )  # fmt: skip
    assert saved(tf, tmp_path / "m", serve).features == expected


def test_sequence_examples_have_lists_and_a_context(tf, tmp_path):
    io = tf.io
    about = {"n": io.FixedLenFeature([], tf.int64, 0), "tags": io.VarLenFeature(tf.string)}
    lists = {"frames": io.FixedLenSequenceFeature([4], tf.float32), "words": io.RaggedFeature(tf.string)}

    def serve(examples):
        found, steps, _ = io.parse_sequence_example(examples, about, lists)
        return {"y": tf.reduce_sum(steps["frames"], [1, 2]) + tf.cast(found["n"], tf.float32)}

    assert saved(tf, tmp_path / "m", serve).features == (
        context("n", "int64", 1), context("tags", "string"), listed("frames", "float", 4, 4), listed("words", "string"),
    )  # fmt: skip


def test_one_example_at_a_time_and_the_ops_of_tf1(tf, tmp_path):
    def single(examples):
        spec = {"x": tf.io.FixedLenFeature([2], tf.float32), "tags": tf.io.VarLenFeature(tf.string)}
        parse = lambda one: tf.io.parse_single_example(one, spec)["x"]  # noqa: E731
        return {"y": tf.map_fn(parse, examples, fn_output_signature=tf.float32)}

    assert saved(tf, tmp_path / "single", single).features == (context("tags", "string"), context("x", "float", 2, 2))

    def old(examples):
        found = tf.raw_ops.ParseExample(
            serialized=examples, names=[], sparse_keys=["s"], dense_keys=["d", "e"],
            dense_defaults=[[0.0], tf.constant([1, 2], tf.int64)],
            sparse_types=[tf.int64], dense_shapes=[[1], [2]],
        )  # fmt: skip
        return {"y": found.dense_values[0] + tf.cast(found.dense_values[1], tf.float32)[:, :1]}

    expected = (context("d", "float", 1), context("e", "int64", 2, 2), context("s", "int64"))
    assert saved(tf, tmp_path / "old", old).features == expected

    def sequence(examples):
        found = tf.map_fn(
            lambda one: tf.raw_ops.ParseSingleSequenceExample(
                serialized=one, feature_list_dense_missing_assumed_empty=[], context_sparse_keys=["s"],
                context_dense_keys=["d"], feature_list_sparse_keys=[], feature_list_dense_keys=["f"],
                context_dense_defaults=[[0.0]], debug_name="", context_sparse_types=[tf.int64],
                feature_list_dense_types=[tf.float32], context_dense_shapes=[[1]], feature_list_sparse_types=[],
                feature_list_dense_shapes=[[3]],
            ).context_dense_values[0],
            examples, fn_output_signature=tf.float32,
        )  # fmt: skip
        return {"y": found}

    assert saved(tf, tmp_path / "sequence", sequence).features == (
        context("d", "float", 1), context("s", "int64"), listed("f", "float", 3, 3),
    )  # fmt: skip


def test_words_are_those_of_the_models_tables(tf, tmp_path):
    module = tf.Module()
    keys = tf.constant(["red", "blue", "green"])
    module.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.range(3)), -1)
    (tmp_path / "words.txt").write_text("zwei\ndrei\nvier\n")
    module.file = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(tmp_path / "words.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, -1
        ),
        1,
    )

    def serve(examples):
        found = tf.io.parse_example(examples, {"a": tf.io.FixedLenFeature([], tf.string, "")})
        return {"y": module.table.lookup(found["a"]) + tf.cast(module.file.lookup(found["a"]), tf.int32)}

    found = saved(tf, tmp_path / "m", serve, module)
    assert found.features == (context("a", "string", 1),)
    assert set(found.words) == {b"red", b"blue", b"zwei", b"drei"}


def test_names_may_come_as_arguments_and_what_is_no_constant_is_told(tf, tmp_path):
    @tf.function
    def parsed(examples, names):
        found = tf.raw_ops.ParseExampleV2(
            serialized=examples, names=[], sparse_keys=[], dense_keys=names, ragged_keys=[], dense_defaults=[[0.0]],
            num_sparse=0, sparse_types=[], ragged_value_types=[], ragged_split_types=[], dense_shapes=[[1]],
        )  # fmt: skip
        return found.dense_values[0]

    found = saved(tf, tmp_path / "given", lambda examples: {"y": parsed(examples, tf.constant(["x"]))})
    assert found.features == (context("x", "float", 1),)
    asked = tf.TensorSpec([None], tf.string, name="names"), tf.TensorSpec([None], tf.string, name="examples")
    found = saved(
        tf, tmp_path / "asked", lambda names, examples: {"y": parsed(examples, tf.strings.lower(names))}, None, *asked
    )
    assert found.features == ()
    assert len(found.unread) == 1


def test_a_model_that_parses_nothing_declares_nothing(savedmodel):
    assert read(savedmodel("half_plus_two")) == NOTHING
