"""Only what is read of a tensor is computed: the answers stay, the products shrink."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.engines import inferred
from tfopt_optimizer.passes import unread

pytestmark = pytest.mark.tensorflow

POSITIONS, WIDTH, HEADS = 16, 24, 3
PRODUCTS = ("MatMul", "BatchMatMulV2", "Einsum")


class Frozen:
    """A function as a frozen graph, whose variables are constants."""

    def __init__(self, function, *specs):
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
        frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        self.graph, self.inputs = frozen.graph.as_graph_def(), [t.name for t in frozen.inputs]
        self.outputs = [t.name for t in frozen.outputs]

    def run(self, graph, feeds):
        import tensorflow as tf

        with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
            tf.graph_util.import_graph_def(graph, name="")
            return session.run(self.outputs, dict(zip(self.inputs, feeds, strict=True)))

    def rewritten(self):
        """The graph after the pass, and what the pass said."""
        import tensorflow as tf

        graph = type(self.graph)()
        graph.CopyFrom(self.graph)
        keep = [name.partition(":")[0] for name in self.outputs]
        found = unread.run(graph, inferred.of_tensors(tf, graph), keep)
        if not found:
            assert graph.SerializeToString(deterministic=True) == self.graph.SerializeToString(deterministic=True)
        return graph, found


def sizes(graph, outputs, feeds):
    """Of the results of a graph's products, as they are for these feeds."""
    import tensorflow as tf

    with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
        tf.graph_util.import_graph_def(graph, name="")
        found = [op.outputs[0] for op in again.get_operations() if op.type in PRODUCTS]
        return sorted(value.size for value in session.run(found, feeds))


def check(frozen, draw, tolerance=2e-6):
    """The pass, with answers compared for 1 and 3 rows; what it said, and the sizes of all products for 3 rows before
    and after."""
    graph, found = frozen.rewritten()
    for rows in (1, 3):
        feeds = draw(rows)
        for before, after in zip(frozen.run(frozen.graph, feeds), frozen.run(graph, feeds), strict=True):
            assert before.shape == after.shape
            np.testing.assert_allclose(after, before, rtol=0, atol=tolerance * max(1, np.abs(before).max()))
    named = dict(zip(frozen.inputs, feeds, strict=True))
    return found, sizes(frozen.graph, frozen.outputs, named), sizes(graph, frozen.outputs, named)


def ids_and_mask(rows):
    random = np.random.default_rng(rows)
    mask = np.arange(POSITIONS) < random.integers(1, POSITIONS, (rows, 1))
    return random.integers(0, 30, (rows, POSITIONS), np.int32), mask.astype(np.int32)


class Weights:
    def __init__(self):
        self.random = np.random.default_rng(3)

    def variable(self, *shape):
        import tensorflow as tf

        return tf.Variable(self.random.normal(0, 1 / np.sqrt(shape[0]), shape).astype(np.float32))

    def dense(self, rows, columns):
        import tensorflow as tf

        kernel, bias = self.variable(rows, columns), self.variable(columns)
        return lambda x: tf.matmul(x, kernel) + bias

    def norm(self, size):
        import tensorflow as tf

        scale, shift = self.variable(size), self.variable(size)

        def apply(x):
            mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
            return tf.nn.batch_normalization(x, mean, variance, shift, scale, 1e-12)

        return apply


def block(weights, positions=POSITIONS):
    """As in benchmarks/build_models.py. `positions`: -1 where any number of them may come."""
    import tensorflow as tf

    query, key, value, out = (weights.dense(WIDTH, WIDTH) for _ in range(4))
    wide, narrow = weights.dense(WIDTH, 2 * WIDTH), weights.dense(2 * WIDTH, WIDTH)
    after_attention, after_hidden = weights.norm(WIDTH), weights.norm(WIDTH)
    size = WIDTH // HEADS

    def shape(x, *rest):
        return [-1, positions, *rest] if positions > 0 else [tf.shape(x)[0], tf.shape(x)[1], *rest]

    def apply(x, bias):
        def split(y):
            return tf.transpose(tf.reshape(y, shape(y, HEADS, size)), [0, 2, 1, 3])

        scores = tf.matmul(split(query(x)), split(key(x)), transpose_b=True) / np.float32(np.sqrt(size))
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores + bias), split(value(x))), [0, 2, 1, 3])
        x = after_attention(x + out(tf.reshape(mixed, shape(mixed, WIDTH))))
        return after_hidden(x + narrow(tf.nn.gelu(wide(x), approximate=False)))

    return apply


def encoder(depth=2, positions=POSITIONS):
    import tensorflow as tf

    weights = Weights()
    words, places, first = weights.variable(30, WIDTH), weights.variable(POSITIONS, WIDTH), weights.norm(WIDTH)
    blocks = [block(weights, positions) for _ in range(depth)]

    def encode(ids, mask):
        x = first(tf.gather(words, ids) + places[: tf.shape(ids)[1]])
        hidden_away = 1.0 - tf.cast(mask[:, None, None, :], tf.float32)
        for each in blocks:
            x = each(x, hidden_away * -10000.0)
        return x

    return encode, weights.dense(WIDTH, 2)


def text_specs(positions=POSITIONS):
    import tensorflow as tf

    return [tf.TensorSpec([None, positions], tf.int32, name=name) for name in ("ids", "mask")]


@pytest.mark.parametrize("place", [0, 5, -1])
def test_of_the_last_layer_one_token_is_computed_where_one_is_read(place):
    encode, head = encoder()
    frozen = Frozen(lambda ids, mask: head(encode(ids, mask)[:, place]), *text_specs())
    found, before, after = check(frozen, ids_and_mask)
    whole, one = 3 * POSITIONS * WIDTH, 3 * WIDTH
    attention = 3 * HEADS * POSITIONS * POSITIONS
    assert found == 6  # the query, both products of the attention, and three layers behind
    layer = [whole] * 6 + [2 * whole, attention]
    assert before == sorted([*layer, *layer, 3 * 2])
    assert after == sorted([*layer, whole, whole, *[one] * 4, 2 * one, attention // POSITIONS, 3 * 2])


def test_where_all_tokens_are_read_the_graph_is_as_it_was():
    import tensorflow as tf

    encode, head = encoder()
    pooled = Frozen(lambda ids, mask: head(tf.reduce_mean(encode(ids, mask), axis=1)), *text_specs())
    assert pooled.rewritten()[1] == 0

    def both(ids, mask):
        x = encode(ids, mask)
        return head(x[:, 0]), x

    assert Frozen(both, *text_specs()).rewritten()[1] == 0  # no product is computed twice
