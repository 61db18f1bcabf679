"""Values that TensorFlow refuses and XLA would compute with: found in the graph, declined or refused."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.engines import guards
from tfopt_optimizer.engines.limits import ANY, Part

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


def found(tf, call, *specs):
    concrete = tf.function(call, autograph=False).get_concrete_function(*specs)
    return guards.read(tf, concrete, [f"x{i}" for i in range(len(specs))])


def _rows(tf, table):
    """As Keras counts them: a slice of a constant."""
    return tf.cast(tf.constant(table.shape.as_list())[0], tf.int64)


def test_limits_of_what_is_looked_up(tf):
    table, small = tf.Variable(np.zeros((100, 4), np.float32)), tf.constant(np.zeros((7, 4), np.float32))
    ids, numbers = tf.TensorSpec((2, 3), tf.int64), tf.TensorSpec((2, 3), tf.float32)

    @tf.function
    def nested(x):
        return tf.gather(table, x)

    cases = {
        "a variable": (lambda x: tf.nn.embedding_lookup(table, x), (0, 99)),
        "in a function": (nested, (0, 99)),
        "carried": (lambda x: tf.gather(table, tf.cast(tf.reshape(x, [6]), tf.int32)[:2]), (0, 99)),
        "a constant": (lambda x: tf.gather(small, x), (0, 6)),
        "the tighter of two": (lambda x: tf.gather(small, x) + tf.gather(table, x), (0, 6)),
        "clipped above": (lambda x: tf.gather(table, tf.minimum(x, 99)), (0, ANY[1])),
        "clipped below": (lambda x: tf.gather(table, tf.maximum(x, 0)), (ANY[0], 99)),
        "clipped to another table's size": (lambda x: tf.gather(small, tf.clip_by_value(x, 0, 99)), (ANY[0], 6)),
        "the smaller of two": (lambda x: tf.gather(table, tf.minimum(x[0], x[1])), (0, 99)),
        "chosen by a mask": (lambda x: tf.gather(table, tf.where(x > 5, x, 98)), (0, 99)),
        "rows that are picked": (lambda x: tf.gather(table, tf.gather(x, [1, 0])), (0, 99)),
        "shifted": (lambda x: tf.gather(table, x + 1) + tf.gather(table, 3 + x - 5), (2, 98)),
        "from the end": (lambda x: tf.gather(table, tf.where(x < 0, x + 100, x)), (-100, 99)),
        "by the table's own shape": (lambda x: tf.gather(table, tf.where(x < 0, x + _rows(tf, table), x)), (-100, 99)),
        "the largest of them": (lambda x: tf.gather(table, tf.math.top_k(x, 2).values), (0, 99)),
        "each of them once": (lambda x: tf.gather(table, tf.unique(tf.reshape(x, [6])).y), (0, 99)),
        "another axis": (lambda x: tf.gather(table, x, axis=1), (0, 3)),
    }
    assert {name: found(tf, call, ids) for name, (call, _) in cases.items()} == {
        name: guards.Guards({Part("x0"): limits}) for name, (_, limits) in cases.items()
    }
    harmless = (
        lambda x: tf.gather(table, tf.argmax(x, -1)),
        lambda x: tf.gather(table, tf.math.top_k(x, 2).indices),
        lambda x: tf.gather(table, tf.range(3)),
        lambda x: tf.gather(table, tf.cast(x, tf.int64) % 100),
        lambda x: x * 2,
    )
    assert [found(tf, call, numbers) for call in harmless] == [guards.Guards({})] * len(harmless)


def test_what_can_only_be_small_needs_no_limit(tf):
    table, small = tf.Variable(np.zeros((100, 4), np.float32)), tf.constant(np.zeros((7, 4), np.float32))
    ids = tf.TensorSpec((2, 5), tf.int64)

    def there(x):
        return tf.cast(x != 1, tf.int64)

    cases = {
        "positions of words": lambda x: tf.cumsum(there(x), 1) * there(x) + 1,
        "lengths": lambda x: tf.reduce_sum(tf.cast(x > 3, tf.int32), -1),
        "a choice": lambda x: tf.where(x > 3, tf.constant(6, tf.int64), there(x)),
        "a remainder less one": lambda x: tf.maximum(x % 7 - 1, 0),
        "minutes of an hour": lambda x: (x % 60) // 10,
    }
    for call in cases.values():
        assert found(tf, lambda x, call=call: tf.gather(small, call(x)), ids) == guards.Guards({})
    for call in (lambda x: tf.cumsum(there(x), 1) + 2, lambda x: x % 7 + 1, lambda x: tf.cumsum(there(x) * 2, 1)):
        refused = found(tf, lambda x, call=call: tf.gather(small, call(x)), ids)
        assert "looks up what it computes" in refused.refusal
        assert found(tf, lambda x, call=call: tf.gather(table, call(x)), ids) == guards.Guards({})


def test_columns_have_limits_of_their_own(tf):
    table, small = tf.Variable(np.zeros((100, 4), np.float32)), tf.constant(np.zeros((7, 4), np.float32))
    ids = tf.TensorSpec((2, 3), tf.int64)
    first, second, last, rest = (Part("x0", 1, 0, 1), Part("x0", 1, 1, 2), Part("x0", 1, 2, 3), Part("x0", 1, 1, None))

    def unstacked(x):
        a, b, c = tf.unstack(tf.cast(x, tf.int32), axis=1)
        return tf.gather(table, a) + tf.gather(small, b) + tf.gather(table, c + 1)

    def wrapped(x):
        column = x[:, 1]
        return tf.gather(small, tf.where(column < 0, column + 7, column))

    def split(x):
        a, *_, c = tf.split(x, 3, axis=1)
        return tf.gather(table, a) + tf.gather(small, c[:, 0][:, None])

    cases = {
        "columns": (
            lambda x: tf.gather(table, x[:, 0]) + tf.gather(small, x[:, 1]), {first: (0, 99), second: (0, 6)},
        ),
        "several": (lambda x: tf.gather(small, x[:, :1]) + tf.gather(table, x[:, 1:]), {first: (0, 6), rest: (0, 99)}),
        "from the end": (lambda x: tf.gather(small, x[..., -1]), {Part("x0", -1, -1, None): (0, 6)}),
        "unstacked": (unstacked, {first: (0, 99), second: (0, 6), last: (-1, 98)}),
        "split": (split, {first: (0, 99), last: (0, 6)}),
        "wrapped": (wrapped, {second: (-7, 6)}),
        "of other places": (lambda x: tf.gather(small, tf.transpose(x)[:, 0]), {Part("x0"): (0, 6)}),
        "rows": (lambda x: tf.gather(small, x[1]), {Part("x0"): (0, 6)}),
        "every second": (lambda x: tf.gather(small, x[:, ::2]), {Part("x0"): (0, 6)}),
        "in a branch": (
            lambda x: tf.cond(x[0, 2] > 3, lambda: tf.gather(table, x[:, 0]), lambda: tf.gather(small, x[:, 1])),
            {first: (0, 99), second: (0, 6)},
        ),
    }  # fmt: skip
    assert {name: found(tf, call, ids) for name, (call, _) in cases.items()} == {
        name: guards.Guards(limits) for name, (_, limits) in cases.items()
    }


def test_rows_of_indices_have_a_limit_per_column(tf):
    table, cube = tf.Variable(np.zeros((100, 4), np.float32)), tf.constant(np.zeros((9, 8, 7), np.float32))
    ids, first, second = tf.TensorSpec((2, 3), tf.int64), Part("x0", -1, 0, 1), Part("x0", -1, 1, 2)
    third, places = Part("x0", -1, 2, 3), tf.range(2, dtype=tf.int64)

    cases = {
        "as sent": (lambda x: tf.gather_nd(cube, x), {first: (0, 8), second: (0, 7), third: (0, 6)}),
        "cast": (lambda x: tf.gather_nd(cube, tf.cast(x, tf.int32)), {first: (0, 8), second: (0, 7), third: (0, 6)}),
        "of a variable": (lambda x: tf.gather_nd(table, x[:, :1]), {Part("x0", 1, 0, 1): (0, 99)}),
        "one axis": (lambda x: tf.gather_nd(cube, x[..., None]), {Part("x0"): (0, 8)}),
        "beside their places": (
            lambda x: tf.gather_nd(table, tf.stack([places, x[:, 2]], -1)), {Part("x0", 1, 2, 3): (0, 3)},
        ),
        "joined": (
            lambda x: tf.gather_nd(cube, tf.concat([places[:, None], x[:, 1:], x[:, :0]], 1)),
            {Part("x0", 1, 1, None): (0, 6)},
        ),
        "joined in another order": (
            lambda x: tf.gather_nd(cube, tf.concat([x, places[:, None]], 1)[:, 1:]), {Part("x0"): (0, 6)},
        ),
        "one table per row": (
            lambda x: tf.gather_nd(cube[:2], x[:, :1], batch_dims=1), {Part("x0", 1, 0, 1): (0, 7)},
        ),
        "twice": (lambda x: tf.gather_nd(table, tf.stack([x[:, 0]] * 2, -1)), {Part("x0", 1, 0, 1): (0, 3)}),
        "in a branch": (
            lambda x: tf.cond(x[0, 0] > 3, lambda: tf.gather_nd(cube, x), lambda: tf.zeros([2])),
            {first: (0, 8), second: (0, 7), third: (0, 6)},
        ),
    }  # fmt: skip
    assert {name: found(tf, call, ids) for name, (call, _) in cases.items()} == {
        name: guards.Guards(limits) for name, (_, limits) in cases.items()
    }
    computed = (lambda x: tf.gather_nd(table, x[:, :2] * 2), lambda x: tf.gather_nd(table, x[:, :2] + [[0, 1]]))
    assert all("looks up what it computes" in found(tf, call, ids).refusal for call in computed)


def test_what_no_limit_covers_is_refused(tf):
    table, small = tf.Variable(np.zeros((100, 4), np.float32)), tf.constant(np.zeros((7, 4), np.float32))
    ids = tf.TensorSpec((2, 3), tf.int64)

    def asserting(x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), [x])]):
            return tf.identity(x)

    refused = {
        "computes from its inputs": lambda x: tf.gather(table, x * 2),
        "looks up what it computes from its inputs": lambda x: tf.gather(table, tf.where(x < 0, x + 200, x)),
        "computes from its input": lambda x: tf.gather(table, tf.where(x > 5, x, 100)),
        "looks up what it computes from its input": lambda x: tf.gather(small, tf.gather(tf.range(9), x)),
        "unknown size": lambda x: tf.gather_nd(tf.where(x > 0), x[:, :1]),
        "asserts something": asserting,
        "(ScatterNd)": lambda x: tf.scatter_nd(x, tf.ones([2]), [100, 100, 100]),
        "(CheckNumerics)": lambda x: tf.debugging.check_numerics(tf.cast(x, tf.float32), "odd"),
        "divides integers": lambda x: 10 // x,
        "raises integers": lambda x: tf.pow(x, x),
        "(MatrixInverse)": lambda x: tf.linalg.inv(tf.cast(x[:, :2], tf.float32)),
        "(SparseSoftmaxCrossEntropyWithLogits)": (
            lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits(x[:, 0], tf.zeros([2, 5]))
        ),
        "(TensorListGetItem)": lambda x: tf.TensorArray(tf.float32, 7).unstack(small).read(tf.cast(x[0, 0], tf.int32)),
        "(Slice)": lambda x: tf.slice(small, [x[0, 0], 0], [2, 4]),
        "looks up what it computes": lambda x: tf.gather(table, x % 101),
    }
    for words, call in refused.items():
        assert words in found(tf, call, ids).refusal
    numbers = tf.TensorSpec((2, 9), tf.float32)
    places = {
        "the largest": lambda x: tf.argmax(x, -1),
        "the smallest": lambda x: tf.argmin(x, 1),
        "the best two": lambda x: tf.math.top_k(x, 2).indices,
        "those above": lambda x: tf.where(x[0] > 0)[:, 0],
        "in any axis": lambda x: tf.where(x > 0)[:, 0],
        "of which kind": lambda x: tf.unique(x[0]).idx,
        "shifted": lambda x: tf.argmax(x[:, :7], -1) + 1,
    }
    for call in places.values():
        assert "looks up what it computes" in found(tf, lambda x, call=call: tf.gather(small, call(x)), numbers).refusal
        assert found(tf, lambda x, call=call: tf.gather(table, call(x)), numbers) == guards.Guards({})
    counted = found(tf, lambda x: tf.gather(table, tf.size(tf.where(x > 0))), numbers)
    assert "looks up what it computes" in counted.refusal
    wide = tf.Variable(np.zeros((9, 8), np.float32))
    fits = (lambda x: tf.argmax(x @ wide[:, :6], -1), lambda x: tf.argmax(tf.gather(wide, tf.argmax(x, -1)), 0) - 2 + 2)
    fits += (lambda x: tf.argmax(x, 0), lambda x: tf.argmax(x[:, :6], -1) + 1, lambda x: tf.size(x[0, :3]))
    for call in fits:
        assert found(tf, lambda x, call=call: tf.gather(small, call(x)), numbers) == guards.Guards({})
    shapes = found(tf, lambda x: 10 // tf.shape(x)[0], ids)
    assert shapes == guards.Guards({})


def test_loops_branches_and_calls_are_looked_into(tf):
    table, small = tf.Variable(np.zeros((100, 4), np.float32)), tf.constant(np.zeros((7, 4), np.float32))
    ids = tf.TensorSpec((2, 3), tf.int64)

    def loop(step):
        def call(x):
            turns = tf.cast(x[0, 0], tf.int32)  # as often as a request says
            start = (0, x, tf.zeros([2, 3, 4]))
            return tf.while_loop(lambda i, x, y: i < turns, lambda i, x, y: (i + 1, *step(i, x, y)), start)[2]

        return call

    def adding(weights):
        return lambda i, x, y: (x, y + tf.gather(weights, x))

    def checked(i, x, y):
        tf.debugging.Assert(tf.reduce_all(x > 0), [x])
        return x, y

    limited = {
        "a branch": (lambda x: tf.cond(x[0, 0] > 3, lambda: tf.gather(table, x), lambda: tf.gather(small, x)), (0, 6)),
        "kept in a loop": (loop(adding(table)), (0, 99)),
        "a loop in a branch": (
            lambda x: tf.cond(x[0, 0] > 3, lambda: loop(adding(small))(x), lambda: tf.gather(table, x)),
            (0, 6),
        ),
    }
    assert {name: found(tf, call, ids) for name, (call, _) in limited.items()} == {
        name: guards.Guards({Part("x0"): limits}) for name, (_, limits) in limited.items()
    }
    harmless = loop(lambda i, x, y: (x, y + tf.gather(small, i % 7) + tf.gather(small, tf.argmax(y[0, 0]))))
    assert found(tf, harmless, ids) == guards.Guards({})
    fits = loop(lambda i, x, y: (x, tf.cast(x, tf.float32)[..., None] + tf.gather(small, tf.argmax(y[0, 0]))))
    assert found(tf, fits, ids) == guards.Guards({})
    counted = loop(lambda i, x, y: (x, y + tf.gather(small, i)))
    assert "looks up what a loop computes" in found(tf, counted, ids).refusal  # the eighth turn is no row's
    refused = {
        "looks up what a loop computes": loop(lambda i, x, y: (x + 1, y + tf.gather(table, x))),
        "looks up what it computes": loop(lambda i, x, y: (x, y + tf.gather(table, x * 2))),
        "looks up what it computes from": loop(
            lambda i, x, y: (x, tf.cast(x, tf.float32)[..., None] + tf.gather(small, tf.argmax(tf.repeat(y[0, 0], 2))))
        ),
        "divides integers": loop(lambda i, x, y: (100 // x, y)),
        "asserts something": loop(checked),
    }
    for words, call in refused.items():
        refusal = found(tf, call, ids)
        assert words in refusal.refusal
        assert "while" in refusal.node
