"""Loops and branches in OpenVINO: what is computed with whole numbers in there is TensorFlow's, what is looked up in
there is in its table, or the values are declined, or the model is refused."""

from __future__ import annotations

import numpy as np
import pytest
from enginecases import Prepared, plain, save, target
from tfopt_optimizer.engines import openvino, openvino_freeze
from tfopt_optimizer.errors import Declined, EngineError, NotLowerable

pytestmark = pytest.mark.tensorflow

TABLE = np.arange(1, 8, dtype=np.float32)
MATRIX = np.arange(21, dtype=np.float32).reshape(7, 3)
LARGE = (1 << 24) + 1
HOSTILE = (0, 1, 5, 6, 7, 8, -1, -7, -8, 999, 4096, 1 << 24, LARGE, (1 << 30) + 7, (1 << 31) - 9, -LARGE, -(1 << 31))


def turned(step, start, turns=3):
    """A loop that carries y on."""

    def compute(tf, x):
        return tf.while_loop(lambda i, y: i < turns, lambda i, y: (i + 1, step(tf, x, y)), (0, start(tf, x)))[1]

    return compute


def sent(tf, x):
    return x


def zeros(tf, x):
    return tf.zeros([3])


def nested(tf, x):
    return tf.cond(x[0] > 0, lambda: looked_up(tf, x), lambda: tf.cast(x, tf.float32))


def carried(tf, x):
    """The ids go from turn to turn as they are."""
    start = (0, x, tf.zeros([3]))
    return tf.while_loop(lambda i, z, y: i < 3, lambda i, z, y: (i + 1, z, y + tf.gather(TABLE, z)), start)[2]


def row_of_a_sequence(tf, x):
    """As Keras steps through time: the turn's own row is looked up."""
    rows = tf.stack([x, x], 0)
    start = (0, tf.zeros([3]))
    return tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, y + tf.gather(TABLE, tf.gather(rows, i))), start)[1]


def until(tf, x, most):
    turns, start = tf.cast(x[0], tf.int32), (0, tf.zeros([3]))
    return tf.while_loop(lambda i, y: (i < most) & (i < turns), lambda i, y: (i + 1, y + tf.gather(TABLE, i)), start)[1]


def as_often_as_sent(tf, x):
    """It adds up the numbers of its turns: 6000 of them leave what floats hold."""
    turns = tf.cast(x[0], tf.int32)
    return tf.while_loop(lambda i, y: i < turns, lambda i, y: (i + 1, y + i), (0, tf.zeros([3], tf.int32)))[1]


def as_long_as_they_differ(tf, x):
    most = tf.reduce_max(x) + 3
    return tf.while_loop(lambda i, y: tf.reduce_all(y < most), lambda i, y: (i + 1, y + 1), (0, x))[1]


def last_of(tf, x):
    """No turn reads what the one before has computed."""
    turns, start = tf.cast(x[0], tf.int32), (0, tf.cast(x, tf.float32))
    return tf.while_loop(lambda i, y: (i < 2) & (i < turns), lambda i, y: (i + 1, tf.gather(TABLE, x)), start)[1]


def shaped_like_the_last(tf, x):
    turns, start = tf.cast(x[0], tf.int32), (0, tf.cast(x, tf.float32))
    return tf.while_loop(lambda i, y: (i < 2) & (i < turns), lambda i, y: (i + 1, tf.ones_like(y)), start)[1]


def after_a_loop(tf, x):
    """What leaves a loop is computed with outside."""
    return turned(lambda tf, x, y: tf.reverse(y, [0]) % 1000, lambda tf, x: x % 1000)(tf, x) * 16000


looked_up = turned(lambda tf, x, y: y + tf.gather(TABLE, x), zeros)
EXACT = (-(1 << 24), 1 << 24)
# What is computed, the values that are taken; () where there are none that could be told.
CASES = {
    "hashed": (
        turned(lambda tf, x, y: (y * 31 + x) % 1000, lambda tf, x: x % 1000), (1000 - (1 << 24), (1 << 24) - 30969),
    ),
    "of_floats": (turned(lambda tf, x, y: y + tf.cast(x % 7, tf.float32), zeros), (7 - (1 << 24), 1 << 24)),
    "divided_in_a_branch": (lambda tf, x: tf.cond(x[0] > 5, lambda: x // 3 + 1, lambda: x), EXACT),
    "summed_in_a_branch": (lambda tf, x: tf.cond(x[0] > 5, lambda: x + x[::-1], lambda: x), (-(1 << 23), 1 << 23)),
    "as_it_is_in_a_branch": (lambda tf, x: tf.cond(x[0] > 5, lambda: tf.reverse(x, [0]), lambda: -x), EXACT),
    "looked_up": (looked_up, (0, 6)),
    "shifted": (turned(lambda tf, x, y: y + tf.gather(TABLE, x - 1), zeros), (1, 7)),
    "carried": (carried, (0, 6)),
    "row_of_a_sequence": (row_of_a_sequence, (0, 6)),
    "in_a_branch": (
        lambda tf, x: tf.cond(x[0] > 3, lambda: tf.gather(TABLE, x), lambda: tf.cast(x, tf.float32)), (0, 6),
    ),
    "nested": (nested, (0, 6)),
    "many": (turned(lambda tf, x, y: y + tf.gather_nd(TABLE, x[:, None]), zeros), (0, 6)),
    "beside": (
        turned(lambda tf, x, y: y + tf.gather_nd(MATRIX, tf.stack([tf.range(3, dtype=x.dtype), x], 1)), zeros), (0, 2),
    ),
    "until": (lambda tf, x: until(tf, x, 7), EXACT),
    "after_a_loop": (after_a_loop, (1000 - (1 << 24), 1 << 24)),
    "last_of": (last_of, ()),
    "shaped_like_the_last": (shaped_like_the_last, ()),
    "until_the_eighth": (lambda tf, x: until(tf, x, 8), ()),
    "as_often_as_sent": (as_often_as_sent, ()),
    "added": (turned(lambda tf, x, y: y + x, sent), ()),
    "multiplied": (turned(lambda tf, x, y: y * 3, sent), ()),
    "remainder": (turned(lambda tf, x, y: y % 1000003 + x, sent), ()),
    "sum": (turned(lambda tf, x, y: y - tf.reduce_sum(y) + 5, sent), ()),
    "compared": (turned(lambda tf, x, y: tf.where(tf.equal(y, y - 1), y, y + 1), sent), ()),
    "reversed": (turned(lambda tf, x, y: tf.reverse(y, [0]), sent), ()),
    "as_long_as_they_differ": (as_long_as_they_differ, ()),
    "counted_down": (
        lambda tf, x: tf.while_loop(
            lambda i, k, y: i < 3, lambda i, k, y: (i + 1, k - 1, y + tf.gather(TABLE, k)), (0, x, tf.zeros([3]))
        )[2],
        (),
    ),
}  # fmt: skip


@pytest.fixture
def made(tmp_path, monkeypatch):
    """made(name, dtype): what makes OpenVINO's runner of a case with one input x, and plain TensorFlow."""

    def prepared(name, dtype):
        model = f"bodies_{name}_{dtype}"
        save(tmp_path / model, lambda tf, module, x: {"y": CASES[name][0](tf, x)}, x=([3], dtype))
        monkeypatch.setattr("savedmodels.path", lambda wanted: tmp_path / wanted)
        wanted = target(model, "serving_default", "f32", 3)
        engine = Prepared(model, tmp_path / "plan", openvino.Worker(), openvino_freeze.Converter)
        return lambda: engine.runner(wanted), lambda given: plain(model, wanted, given)

    return prepared


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("name", [name for name, (_, limits) in CASES.items() if limits])
def test_values_are_answered_as_tensorflow_does_or_declined(made, name, dtype):
    prepare, expected = made(name, dtype)
    runner, (low, high) = prepare(), CASES[name][1]
    held = np.iinfo(dtype)
    values = {v for v in (*HOSTILE, low, high, low - 1, high + 1, held.min, held.max) if held.min <= v <= held.max}
    least = max(low, 0)
    answered = 0
    for row in [row for v in values for row in ([v, least, v], [least, v, high], [high, least, v], [least, least, v])]:
        given = {"x": np.array(row, dtype)}
        if not low <= min(row) <= max(row) <= high:
            with pytest.raises(Declined, match=r"input 'x'.* has values outside"):
                runner(given)
            continue
        np.testing.assert_array_equal(runner(given)["y"], expected(given)["y"])
        answered += 1
    assert answered


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("name", [name for name, (_, limits) in CASES.items() if not limits])
def test_what_no_limit_covers_is_refused(made, name, dtype):
    prepare, _ = made(name, dtype)
    with pytest.raises(NotLowerable, match=r"^it (computes with whole numbers that may be large|looks up|has a loop)"):
        prepare()


@pytest.mark.parametrize("name", ["looked_up", "in_a_branch", "nested", "many", "beside"])
def test_tensorflow_refuses_what_is_declined_in_loops_and_branches(made, name):
    prepare, expected = made(name, "int32")
    runner = prepare()
    for beyond in (7, -1, 1 << 30):
        given = {"x": np.array([5, 1, beyond], np.int32)}
        with pytest.raises(EngineError):
            expected(given)
        with pytest.raises(Declined):
            runner(given)
