"""Graphs that leave filling out: what treats positions apart is computed for those that rows have, and what does not
is not; the answers are the whole model's."""

from __future__ import annotations

import numpy as np
import pytest
from openedgraphs import SIZE, WORDS, Opened

pytestmark = pytest.mark.tensorflow

WIDTH = 6
random = np.random.default_rng(5)


def weight(*shape):
    return random.normal(0, 0.5, shape).astype(np.float32)


TABLE, KERNEL, BIAS, PLACES = weight(WORDS, WIDTH), weight(WIDTH, WIDTH), weight(WIDTH), weight(SIZE, WIDTH)


class Text:
    """What a rule's example is given: `x` [rows, SIZE, WIDTH] is a product's result."""

    def __init__(self, ids, mask):
        import tensorflow as tf

        self.tf, self.ids, self.mask = tf, ids, mask
        self.real = tf.cast(mask, tf.float32)[:, :, None]
        self.x = tf.matmul(tf.gather(TABLE, ids), KERNEL, name="first")

    def of_row(self):
        """[rows, 1, WIDTH]"""
        return self.tf.reduce_sum(self.x * self.real, 1, keepdims=True)


def of(example):
    """A model that sums what the example makes of each token."""

    def serve(ids, mask):
        text = Text(ids, mask)
        y = text.tf.cast(example(text.tf, text.x, text), text.tf.float32)
        flat = text.tf.reshape(y, [-1, SIZE, np.prod(y.shape[2:], dtype=int)])
        return text.tf.reduce_sum(flat * text.real, 1)

    return Opened(serve)


PACKED = {
    "a table": ("GatherV2", lambda tf, x, t: x + tf.gather(TABLE, t.ids, name="it")),
    "a product": ("BatchMatMulV2", lambda tf, x, t: tf.matmul(tf.nn.relu(x), KERNEL, name="it")),
    "a turned product": ("BatchMatMulV2", lambda tf, x, t: tf.matmul(x, weight(2, WIDTH), transpose_b=True, name="it")),
    "a flat product": ("MatMul", lambda tf, x, t: back(tf, tf.matmul(flat(tf, x), KERNEL, name="it"))),
    "a flat turned product": (
        "MatMul",
        lambda tf, x, t: back(tf, tf.matmul(flat(tf, x), weight(2, WIDTH), transpose_b=True, name="it")),
    ),
    "letters": ("Einsum", lambda tf, x, t: einsum(tf, "abc,cd->abd", x, KERNEL)),
    "letters of heads": ("Einsum", lambda tf, x, t: einsum(tf, "abc,cde->abde", x, weight(WIDTH, 2, 3))),
    "letters of heads joined": (
        "Einsum",
        lambda tf, x, t: einsum(tf, "abcd,cde->abe", parts(tf, x), weight(2, 3, 5)),
    ),
    "letters turned": ("Einsum", lambda tf, x, t: einsum(tf, "abcd,ed->abec", parts(tf, x), weight(4, 3))),
    "a bias": ("BiasAdd", lambda tf, x, t: tf.nn.bias_add(x, BIAS, name="it")),
    "a flat bias": ("BiasAdd", lambda tf, x, t: back(tf, tf.nn.bias_add(flat(tf, x), BIAS, name="it"))),
    "one number": ("Mul", lambda tf, x, t: tf.multiply(x, 3.0, name="it")),
    "one vector": ("AddV2", lambda tf, x, t: tf.add(BIAS, x, name="it")),
    "one vector of three axes": ("AddV2", lambda tf, x, t: tf.add(x, BIAS[None, None], name="it") @ KERNEL),
    "a vector per position": ("AddV2", lambda tf, x, t: tf.add(x, PLACES, name="it")),
    "a vector per position of three axes": ("AddV2", lambda tf, x, t: tf.add(PLACES[None], x, name="it")),
    "a number per position": ("Mul", lambda tf, x, t: tf.multiply(x, PLACES[:, :1], name="it")),
    "a vector per row": ("Sub", lambda tf, x, t: tf.subtract(x, t.of_row(), name="it")),
    "a number per row": ("Mul", lambda tf, x, t: tf.multiply(x, t.of_row()[:, :, :1], name="it")),
    "the mask": ("Mul", lambda tf, x, t: tf.multiply(t.real, x, name="it")),
    "a choice": ("SelectV2", lambda tf, x, t: tf.where(tf.greater(x, 0.1), x, tf.constant(-1.0), name="it")),
    "a choice by the mask": ("SelectV2", lambda tf, x, t: tf.where(t.real > 0, x, BIAS, name="it")),
    "a choice by ids": ("SelectV2", lambda tf, x, t: tf.where(tf.not_equal(t.ids, 3)[:, :, None], x, -x, name="it")),
    "a sum of several": ("AddN", lambda tf, x, t: tf.add_n([x, -x, tf.abs(x)], name="it")),
    "a cast": ("Cast", lambda tf, x, t: tf.cast(x, tf.int64, name="it")),
    "a norm": ("SquaredDifference", lambda tf, x, t: norm(tf, x)),
    "a softmax": ("Softmax", lambda tf, x, t: tf.nn.softmax(x, name="it")),
    "a sum": ("Sum", lambda tf, x, t: tf.reduce_sum(x, -1, name="it")),
    "a largest that stays an axis": ("Max", lambda tf, x, t: tf.reduce_max(x, [2], keepdims=True, name="it")),
    "a mean over two axes": ("Mean", lambda tf, x, t: tf.reduce_mean(parts(tf, x), [-1, 2], name="it")),
    "a mean over the axis in front": ("Mean", lambda tf, x, t: tf.reduce_mean(parts(tf, x), 2, name="it")),
    "the place of the largest": ("ArgMax", lambda tf, x, t: tf.argmax(parts(tf, x), 2, name="it")),
    "turned parts": ("Transpose", lambda tf, x, t: tf.transpose(parts(tf, x), [0, 1, 3, 2], name="it") * weight(3, 2)),
    "another shape": ("Reshape", lambda tf, x, t: tf.reshape(x, [-1, SIZE, 3, 2], name="it") * weight(3, 2)),
    "an axis more": ("ExpandDims", lambda tf, x, t: tf.expand_dims(x, 2, name="it") * weight(3, 1)),
    "a last axis more": ("ExpandDims", lambda tf, x, t: tf.expand_dims(x, -1, name="it") * weight(1, 3)),
    "an axis less": ("Squeeze", lambda tf, x, t: tf.squeeze(tf.expand_dims(x, 3), [-1], name="it") * BIAS),
    "pieces joined": ("ConcatV2", lambda tf, x, t: tf.concat([x, -x, x[..., :2]], -1, name="it") * weight(14)),
    "equal pieces": ("Split", lambda tf, x, t: tf.split(x, 3, 2, name="it")[1] * weight(2)),
    "uneven pieces": ("SplitV", lambda tf, x, t: tf.split(x, [1, 5], -1, name="it")[1] * weight(5)),
}  # fmt: skip


def flat(tf, x):
    return tf.reshape(x, [-1, WIDTH])


def back(tf, x):
    return tf.reshape(x, [-1, SIZE, x.shape[1]])


def parts(tf, x):
    return tf.reshape(x, [-1, SIZE, 2, 3])


def of_each(tf, x):
    """[rows, SIZE]"""
    return tf.squeeze(tf.matmul(x, KERNEL[:, :1]), [2])


def einsum(tf, equation, x, kernel):
    return tf.raw_ops.Einsum(inputs=[x, kernel], equation=equation, name="it")


def norm(tf, x):
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, tf.stop_gradient(mean), name="it"), -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-3) * BIAS


@pytest.mark.parametrize("name", PACKED)
def test_what_treats_positions_apart_is_packed(name):
    op, example = PACKED[name]
    opened = of(example)
    assert opened.packed_ops().get("it") == {"BatchMatMulV2": "MatMul"}.get(op, op)
    opened.check_packed()


NOT_PACKED = {
    "a transpose of positions": lambda tf, x, t: tf.transpose(tf.transpose(x, [1, 0, 2], name="it") * BIAS, [1, 0, 2]),
    "a transpose into heads": lambda tf, x, t: tf.transpose(
        tf.transpose(parts(tf, x), [0, 2, 1, 3], name="it"), [0, 2, 1, 3]
    ),
    "a sum over positions": lambda tf, x, t: x + tf.reduce_sum(x * t.real, 1, keepdims=True, name="it"),
    "a sum over everything": lambda tf, x, t: x + tf.reduce_sum(x * t.real, [1, 2], keepdims=True, name="it"),
    "a product between positions": lambda tf, x, t: tf.matmul(
        tf.matmul(x * t.real, x * t.real, transpose_b=True, name="it"), x * t.real
    ),
    "letters between positions": lambda tf, x, t: tf.matmul(
        einsum(tf, "abc,adc->abd", x * t.real, x * t.real), x * t.real
    ),
    "letters that move positions": lambda tf, x, t: tf.einsum(
        "bad,de->abe", einsum(tf, "abc,cd->bad", x, KERNEL), KERNEL
    ),
    "a product of four axes": lambda tf, x, t: tf.matmul(parts(tf, x), weight(3, 4), name="it"),
    "a product of three axes": lambda tf, x, t: tf.matmul(x, KERNEL[None], name="it"),
    "a band": lambda tf, x, t: tf.linalg.band_part(x, 2, 0, name="it"),
    "a softmax of a number per position": lambda tf, x, t: x
    * tf.nn.softmax(of_each(tf, x) - (1 - t.real[..., 0]) * 1e9, name="it")[:, :, None],
    "a bias per position": lambda tf, x, t: x * tf.nn.bias_add(of_each(tf, x), PLACES[:, 0], name="it")[:, :, None],
    "a softmax over positions": lambda tf, x, t: x * tf.transpose(
        tf.nn.softmax(tf.transpose(x - (1 - t.real) * 1e9, [0, 2, 1]), name="it"), [0, 2, 1]
    ),
    "a sum up to each": lambda tf, x, t: tf.cumsum(x, 1, name="it"),
    "an axis before the positions": lambda tf, x, t: tf.squeeze(tf.expand_dims(x, 1, name="it") * 2.0, [1]),
    "the first position": lambda tf, x, t: x
    + tf.strided_slice(x, [0, 0, 0], [0, 1, 0], [1, 1, 1], begin_mask=7, end_mask=5, name="it"),
    "a product with a kernel per row": lambda tf, x, t: tf.matmul(
        x, tf.matmul(x * t.real, x * t.real, transpose_a=True), name="it"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PACKED)
def test_what_joins_positions_is_not(name):
    opened = of(NOT_PACKED[name])
    assert opened.products
    assert "first" in opened.packed_ops()
    assert "it" not in opened.packed_ops()
    opened.check_packed()


BACK = {
    "truths": lambda tf, x, t: tf.reduce_any(tf.logical_and(t.real > 0, x > 1.0), 1),
    "compared": lambda tf, x, t: tf.reduce_any(tf.greater(x * t.real, 1.0), 1),
    "places": lambda tf, x, t: tf.reduce_sum(tf.argmax(x, 2)[:, :, None] * tf.cast(t.mask, tf.int64)[:, :, None], 1),
    "whole numbers": lambda tf, x, t: tf.reduce_max(tf.cast(tf.round(x * t.real * 10.0), tf.int64), 1),
}


@pytest.mark.parametrize("name", BACK)
def test_what_goes_back_to_rows_and_positions_keeps_its_type(name):
    """A comparison's own T is that of what it compares."""

    def serve(ids, mask):
        text = Text(ids, mask)
        return text.tf.cast(BACK[name](text.tf, text.x, text), text.tf.float32)

    opened = Opened(serve)
    assert "first" in opened.packed_ops()
    opened.check_packed()


def test_filling_is_its_own_rows():
    """Sums up to each position: behind a text's end they stay as they are there, and are no other text's."""

    def serve(ids, mask):
        text = Text(ids, mask)
        tf = text.tf
        return tf.reduce_max(tf.matmul(tf.cumsum(text.x * text.real, 1), KERNEL), 1)

    opened = Opened(serve)
    assert opened.products == 2
    opened.check_packed()
