"""Only what is read of a tensor is computed: the answers stay, the products shrink."""

from __future__ import annotations

import numpy as np
import pytest
from frozengraphs import Frozen, check_unread
from textencoders import HEADS, POSITIONS, WIDTH, Weights, encoder, ids_and_mask, text_specs
from tfopt_optimizer.passes import unread
from tfopt_protos import messages

pytestmark = pytest.mark.tensorflow

WHOLE, ONE = 3 * POSITIONS * WIDTH, 3 * WIDTH  # sizes of results, for 3 rows
ATTENTION = 3 * HEADS * POSITIONS * POSITIONS
LAYER = [WHOLE] * 6 + [2 * WHOLE, ATTENTION]
LOGITS = 3 * 2


def last_layer(count):
    """The sizes of the last layer's products where `count` tokens of it are read: keys and values are whole."""
    return [WHOLE, WHOLE, *[count * ONE] * 4, 2 * count * ONE, count * ATTENTION // POSITIONS]


def tokens(rows):
    return (np.random.default_rng(rows).normal(size=(rows, POSITIONS, WIDTH)).astype(np.float32),)


def token_specs():
    import tensorflow as tf

    return [tf.TensorSpec([None, POSITIONS, WIDTH], tf.float32, name="x")]


def picks():
    import tensorflow as tf

    return {
        "first": (1, lambda x: x[:, 0]),
        "sixth": (1, lambda x: x[:, 5]),
        "last": (1, lambda x: x[:, -1]),
        "gathered": (1, lambda x: tf.gather(x, 3, axis=1)),
        "sliced": (1, lambda x: tf.squeeze(tf.slice(x, [0, 2, 0], [-1, 1, -1]), 1)),
        "a short range": (3, lambda x: tf.reduce_mean(x[:, 1:4], axis=1)),
        "two": (2, lambda x: x[:, 0] - x[..., 1, :]),
    }


@pytest.mark.parametrize("name", ["first", "sixth", "last", "gathered", "sliced", "a short range", "two"])
def test_of_the_last_layer_the_tokens_are_computed_that_are_read(name):
    encode, head = encoder()
    count, pick = picks()[name]
    found, before, after = check_unread(
        Frozen(lambda ids, mask: head(pick(encode(ids, mask))), *text_specs()), ids_and_mask
    )
    assert found == 6  # the query, both products of the attention, and three layers behind
    assert before == sorted([*LAYER, *LAYER, LOGITS])
    assert after == sorted([*LAYER, *last_layer(count), LOGITS])


ENDS = {"x[:, 0]": np.s_[:, 0], "x[:, :1]": np.s_[:, :1], "x[:, -1]": np.s_[:, -1], "x[:, -1:]": np.s_[:, -1:]}


@pytest.mark.parametrize("name", ENDS)
def test_texts_of_any_length_have_a_first_and_a_last_token(name):
    import tensorflow as tf

    encode, head = encoder(positions=-1)

    def serve(ids, mask):
        return head(tf.reshape(encode(ids, mask)[ENDS[name]], [-1, WIDTH]))

    frozen = Frozen(serve, *text_specs(None))
    found, _, after = check_unread(frozen, ids_and_mask)
    assert found == 6
    assert after == sorted([*LAYER, *last_layer(1), LOGITS])


def test_where_all_tokens_are_read_the_graph_is_as_it_was():
    import tensorflow as tf

    encode, head = encoder()
    pooled = Frozen(lambda ids, mask: head(tf.reduce_mean(encode(ids, mask), axis=1)), *text_specs())
    assert pooled.unread()[1] == 0

    def both(ids, mask):
        x = encode(ids, mask)
        return head(x[:, 0]), x

    assert Frozen(both, *text_specs()).unread()[1] == 0  # no product is computed twice


def test_what_is_read_whole_elsewhere_is_computed_once_and_cut():
    import tensorflow as tf

    weights = Weights()
    first, second = weights.dense(WIDTH, WIDTH), weights.dense(WIDTH, WIDTH)

    def serve(x):
        y = first(x)
        return second(y)[:, 0], tf.reduce_mean(y, axis=1)

    assert check_unread(Frozen(serve, *token_specs()), tokens) == (1, [WHOLE, WHOLE], [ONE, WHOLE])


def mixers():
    import tensorflow as tf

    kernel = tf.constant(np.random.default_rng(1).normal(size=(3, WIDTH, WIDTH)).astype(np.float32))
    return {
        "softmax": lambda x: tf.nn.softmax(x, axis=1),
        "cumsum": lambda x: tf.cumsum(x, axis=1),
        "reverse": lambda x: tf.reverse(x, [1]),
        "convolution": lambda x: tf.nn.conv1d(x, kernel, 1, "SAME"),
        "mean": lambda x: x - tf.reduce_mean(x, axis=1, keepdims=True),
    }


@pytest.mark.parametrize("name", ["softmax", "cumsum", "reverse", "convolution", "mean"])
def test_what_mixes_tokens_needs_all_of_them(name):
    dense, behind, mix = Weights().dense(WIDTH, WIDTH), Weights().dense(WIDTH, WIDTH), mixers()[name]
    assert check_unread(Frozen(lambda x: mix(dense(x))[:, 0], *token_specs()), tokens) == (0, [WHOLE], [WHOLE])
    frozen = Frozen(lambda x: behind(mix(dense(x)))[:, 0], *token_specs())
    assert check_unread(frozen, tokens) == (1, [WHOLE, WHOLE], [ONE, WHOLE])


def test_without_a_product_nothing_is_done():
    import tensorflow as tf

    assert Frozen(lambda x: tf.exp(x)[:, 0], *token_specs()).unread()[1] == 0


def test_who_asks_for_the_shape_is_told_that_of_the_whole():
    import tensorflow as tf

    dense = Weights().dense(WIDTH, WIDTH)

    def serve(x):
        y = dense(x)
        return y[:, 0], tf.shape(y), tf.shape(y, tf.int64)[1] * 2

    assert check_unread(Frozen(serve, *token_specs()), tokens) == (1, [WHOLE], [ONE])


def test_layer_normalization_as_tf_keras_does_it():
    """A batch normalization in training, of all tokens as channels."""
    import tensorflow as tf

    dense = Weights().dense(WIDTH, WIDTH)

    def serve(x):
        y = dense(x)
        count = tf.shape(y)[0] * tf.shape(y)[1]
        channels = tf.reshape(y, [1, count, WIDTH, 1])
        ones, zeros = tf.fill([count], 1.0), tf.fill([count], 0.0)
        z, *_ = tf.compat.v1.nn.fused_batch_norm(channels, ones, zeros, data_format="NCHW", is_training=True)
        return tf.reshape(z, tf.shape(y))[:, 0]

    assert check_unread(Frozen(serve, *token_specs()), tokens) == (1, [WHOLE], [ONE])


def test_a_gate_of_two_halves_with_a_gradient_of_its_own():
    import tensorflow as tf

    first, second, wide = (
        Weights().dense(WIDTH, WIDTH),
        Weights().dense(WIDTH, WIDTH),
        Weights().dense(WIDTH, 2 * WIDTH),
    )

    def gated(x):
        left, right = tf.split(wide(first(x)), 2, axis=-1)
        return second(tf.nn.silu(left) * right)  # an IdentityN

    expected = (3, [WHOLE, WHOLE, 2 * WHOLE], [ONE, ONE, 2 * ONE])
    assert check_unread(Frozen(lambda x: gated(x)[:, 0], *token_specs()), tokens) == expected
    assert Frozen(lambda x: tf.reduce_sum(gated(x), axis=1), *token_specs()).unread()[1] == 0


def test_query_key_and_value_of_one_product():
    import tensorflow as tf

    together, out = Weights().dense(WIDTH, 3 * WIDTH), Weights().dense(WIDTH, WIDTH)

    def serve(x):
        query, key, value = tf.split(together(x), 3, axis=-1)
        return out(tf.matmul(tf.nn.softmax(tf.matmul(query, key, transpose_b=True)), value))[:, 0]

    found, _, after = check_unread(Frozen(serve, *token_specs()), tokens)
    assert (found, after) == (3, sorted([3 * WHOLE, 3 * POSITIONS, ONE, ONE]))


def test_weights_that_come_later_are_cut_when_they_are_there():
    """As of engines/weightless.py: constants without content, by whose names it is known what they stand for."""
    dense, places = Weights().dense(WIDTH, WIDTH), Weights().variable(POSITIONS, WIDTH).numpy()
    frozen = Frozen(lambda x: (dense(x) + places)[:, 0], *token_specs())
    weights = {n.name: n.attr["value"].tensor.tensor_content for n in frozen.graph.node if n.op == "Const"}
    weights = {name: content for name, content in weights.items() if len(content) > 4 * WIDTH}
    whole = frozen.graph
    frozen.graph = type(whole).FromString(whole.SerializeToString())
    for node in frozen.graph.node:
        if node.name in weights:
            node.attr["value"].tensor.ClearField("tensor_content")
    graph, found = frozen.unread()
    for node in graph.node:
        if node.name in weights:
            node.attr["value"].tensor.tensor_content = weights[node.name]
    assert found == 1
    np.testing.assert_allclose(frozen.run(graph, tokens(3)), frozen.run(whole, tokens(3)), atol=2e-6)


def test_names_inputs_and_what_ran_before_stay():
    import tensorflow as tf

    weights = Weights()
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, POSITIONS, WIDTH], name="x")
        tf.compat.v1.placeholder(tf.float32, [None], name="unused")
        kernel = tf.constant(weights.random.normal(size=(WIDTH, WIDTH)).astype(np.float32))
        with tf.control_dependencies([tf.no_op(name="first")]):
            y = tf.matmul(x, kernel, name="dense")
        tf.identity(y[:, 0], name="y")
    definition = graph.as_graph_def()
    shapes = {t.name: tuple(t.shape.as_list()) for op in graph.get_operations() for t in op.outputs}
    assert unread.run(definition, shapes, ["y"]) == 1
    nodes = {node.name: node for node in definition.node}
    assert {"x", "unused", "first", "y"} <= set(nodes)
    assert "dense" not in nodes
    assert list(nodes["dense/tfopt_read"].input) == ["x/tfopt_read:0", "Const:0", "^first"]


def test_a_loop_of_tensorflow_1_is_left_alone():
    graph = messages.GraphDef()
    graph.node.add(name="merge", op="Merge", input=["next"])
    graph.node.add(name="next", op="NextIteration", input=["merge"])
    assert unread.run(graph, {}, ["merge"]) == 0
