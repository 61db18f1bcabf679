"""Pieces that text models are put together from at random, in plain TensorFlow."""

from __future__ import annotations

import numpy as np
from openedgraphs import SIZE, WORDS

WIDTH, HEADS = 6, 2


class Pieces:
    """What texts are made of; `mask` is [rows, SIZE, 1]."""

    def __init__(self, seed, ids, mask, segments):
        import tensorflow as tf

        self.tf, self.random = tf, np.random.default_rng(seed)
        self.ids, self.whole_mask, self.mask = ids, mask, tf.cast(mask, tf.float32)[:, :, None]
        self.segments = segments

    def weight(self, *shape):
        return self.tf.constant(self.random.normal(0, 0.5, shape).astype(np.float32))

    def either(self, *choices):
        return choices[int(self.random.integers(len(choices)))]

    def hidden(self, scores):
        """Scores [rows, SIZE, SIZE] or [rows, 1, SIZE] without what the mask leaves out. Not by adding -3: how much
        that lets through depends on the scores, and the proof missed 1.3e-4 in one of 200 requests."""
        real = self.tf.cast(self.whole_mask, self.tf.float32)[:, None]
        return self.either(
            lambda: scores + (1.0 - real) * self.either(-1e4, -1e9),
            lambda: self.tf.where(real > 0, scores, self.tf.constant(-1e9)),
            lambda: scores * real,
        )()

    def heads(self, x):
        """[rows, SIZE, WIDTH] -> [rows, HEADS, SIZE, a part of the width]."""
        parts = self.tf.reshape(x, [-1, SIZE, HEADS, WIDTH // HEADS])
        return self.tf.transpose(parts, [0, 2, 1, 3])

    def hidden_of_heads(self, scores):
        return scores + (1.0 - self.tf.cast(self.whole_mask, self.tf.float32)[:, None, None]) * -1e9


class Words(Pieces):
    """ids -> [rows, SIZE, WIDTH]."""

    def looked_up(self):
        return self.tf.gather(self.weight(WORDS, WIDTH), self.ids)

    def one_hot(self):
        return self.tf.matmul(self.tf.one_hot(self.ids, WORDS), self.weight(WORDS, WIDTH))

    def numbers(self):
        return self.tf.cast(self.ids, self.tf.float32)[:, :, None] * self.weight(WIDTH) * 0.1

    def zero_is_nothing(self):
        table = self.tf.concat([self.tf.zeros([1, WIDTH]), self.weight(WORDS - 1, WIDTH)], 0)
        return self.tf.gather(table, self.ids)

    def with_segments(self):
        return self.looked_up() + self.tf.gather(self.weight(2, WIDTH), self.segments)


class Layers(Pieces):
    """[rows, SIZE, WIDTH] -> the same."""

    def dense(self, x):
        return self.tf.matmul(x, self.weight(WIDTH, WIDTH)) + self.weight(WIDTH)

    def dense_of_all(self, x):
        """As Keras 2 does it: rows and positions are one axis."""
        flat = self.tf.matmul(self.tf.reshape(x, [-1, WIDTH]), self.weight(WIDTH, WIDTH))
        biased = self.either(lambda: self.tf.nn.bias_add(flat, self.weight(WIDTH)), lambda: self.tf.nn.relu(flat))()
        return self.tf.reshape(biased, self.either([-1, SIZE, WIDTH], self.tf.shape(x)))

    def dense_summed(self, x):
        return self.tf.nn.bias_add(self.tf.einsum("abc,cd->abd", x, self.weight(WIDTH, WIDTH)), self.weight(WIDTH))

    def dense_contracted(self, x):
        return self.tf.tensordot(x, self.weight(WIDTH, WIDTH), [[2], [0]])

    def dense_in_time(self, x):
        """Positions first."""
        turned = self.tf.transpose(x, [1, 0, 2])
        return self.tf.transpose(self.tf.matmul(turned, self.weight(WIDTH, WIDTH)), [1, 0, 2])

    def wide(self, x):
        inner = self.tf.nn.relu(self.tf.matmul(x, self.weight(WIDTH, 2 * WIDTH)))
        return self.tf.matmul(inner, self.weight(WIDTH, 2 * WIDTH), transpose_b=True)

    def divided(self, x):
        tf = self.tf
        one, other = tf.split(self.dense(x), self.either(2, [2, 4]), axis=-1)
        return tf.concat([tf.nn.sigmoid(other), one], axis=self.either(2, -1))

    def stacked(self, x):
        return self.tf.stack(self.tf.unstack(self.dense(x), axis=2)[::-1], axis=2)

    def rolled(self, x):
        return self.tf.concat([x[:, :, 2:], self.dense(x)[..., :2]], 2)

    def gated(self, x):
        gate = self.tf.squeeze(self.tf.matmul(x, self.weight(WIDTH, 1)), [2])
        return x * self.tf.sigmoid(self.either(lambda: gate[:, :, None], lambda: self.tf.expand_dims(gate, -1))())

    def softened(self, x):
        return x + self.either(self.tf.nn.softmax, self.tf.nn.log_softmax)(self.dense(x))

    def compared(self, x):
        tf, other = self.tf, self.dense(x)
        chosen = self.either(x > other, tf.logical_or(x < 0, other > 1), tf.not_equal(self.ids, 3)[:, :, None])
        return tf.where(chosen, x, other)

    def typed(self, x):
        return x + self.tf.gather(self.weight(2, WIDTH), self.tf.cast(self.ids > 5, self.tf.int64))

    def limited(self, x):
        return self.tf.clip_by_value(self.dense(x), -1.0, 1.0) + self.tf.add_n([x, self.tf.abs(x)])

    def in_groups(self, x):
        """Normalized by parts of the width."""
        parts = self.tf.reshape(x, [-1, SIZE, HEADS, WIDTH // HEADS])
        parts = parts - self.tf.reduce_mean(parts, self.either([3], [-1], [2, 3]), keepdims=True)
        return self.tf.reshape(self.tf.transpose(parts, self.either([0, 1, 3, 2], [0, 1, 2, 3])), [-1, SIZE, WIDTH])

    def told_of_row(self, x):
        mean = self.tf.reduce_sum(x * self.mask, 1) / self.tf.maximum(self.tf.reduce_sum(self.mask, 1), 1.0)
        row = self.tf.matmul(self.either(mean, x[:, 0]), self.weight(WIDTH, WIDTH))
        return self.tf.nn.tanh(x + row[:, None])

    def attended_in_heads(self, x):
        tf = self.tf
        query, key, value = (self.heads(self.either(self.dense, self.dense_of_all)(x)) for _ in range(3))
        mixed = tf.matmul(tf.nn.softmax(self.hidden_of_heads(tf.matmul(query, key, transpose_b=True))), value)
        return x + self.dense(tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, SIZE, WIDTH]))

    def attended_as_keras(self, x):
        tf, part = self.tf, WIDTH // HEADS
        query, key, value = (
            tf.einsum("abc,cde->abde", x, self.weight(WIDTH, HEADS, part)) + self.weight(HEADS, part) for _ in range(3)
        )
        scores = tf.nn.softmax(self.hidden_of_heads(tf.einsum("aecd,abcd->acbe", key, query * 0.5)))
        mixed = tf.einsum("acbe,aecd->abcd", scores, value)
        return x + tf.einsum("abcd,cde->abe", mixed, self.weight(HEADS, part, WIDTH))

    def gelu(self, x):
        return self.tf.nn.gelu(x)

    def normalized(self, x):
        mean, variance = self.tf.nn.moments(x, [-1], keepdims=True)
        return (x - mean) * self.tf.math.rsqrt(variance + 1e-3)

    def placed(self, x):
        return x + self.weight(SIZE, WIDTH)

    def attended(self, x):
        return x + self.tf.matmul(self.tf.nn.softmax(self.hidden(self.tf.matmul(x, x, transpose_b=True))), x)

    def attended_by_place(self, x):
        scores = self.tf.matmul(x, self.dense(x), transpose_b=True) + self.weight(SIZE, SIZE)
        return x + self.tf.matmul(self.tf.nn.softmax(self.hidden(scores)), x)

    def attended_before(self, x):
        below = np.tril(np.ones((SIZE, SIZE), np.float32))
        scores = self.tf.matmul(x, x, transpose_b=True) + (1 - below) * -1e9
        return self.tf.matmul(self.tf.nn.softmax(self.either(scores, self.hidden(scores))), x)

    def attended_to_all(self, x):
        return x + self.tf.matmul(self.tf.nn.softmax(self.tf.matmul(x, x, transpose_b=True)), x)

    def over_positions(self, x):
        return x + self.tf.nn.softmax(x, axis=1)

    def masked(self, x):
        return x * self.mask

    def chosen(self, x):
        return self.tf.where(self.mask > 0, x, self.weight(WIDTH))

    def summed_up(self, x):
        return self.tf.cumsum(x, axis=1) * 0.1

    def summed_up_backward(self, x):
        return self.tf.cumsum(x * self.mask, axis=1, reverse=True) * 0.1

    def reversed(self, x):
        return x + self.tf.reverse(x, [1])

    def sorted(self, x):
        return self.tf.sort(x, axis=1)

    def centred(self, x):
        return x - self.tf.reduce_mean(x, axis=1, keepdims=True)

    def per_token(self, x):
        return x / (self.tf.reduce_sum(self.mask, 1, keepdims=True) + 1.0)

    def first_for_all(self, x):
        return x + x[:, :1]


class Answers(Pieces):
    """[rows, SIZE, WIDTH] -> [rows, anything]."""

    def first(self, x):
        return x[:, 0]

    def pooled_first(self, x):
        return self.tf.tanh(self.tf.matmul(x[:, 0], self.weight(WIDTH, WIDTH)))

    def last(self, x):
        return x[:, -1]

    def mean(self, x):
        return self.tf.reduce_mean(x, 1)

    def mean_of_tokens(self, x):
        return self.tf.reduce_sum(x * self.mask, 1) / self.tf.reduce_sum(self.mask, 1)

    def mean_of_some(self, x):
        return self.tf.reduce_sum(x * self.mask, 1) / self.tf.maximum(self.tf.reduce_sum(self.mask, 1), 1e-9)

    def sum(self, x):
        return self.tf.reduce_sum(x, 1) * 0.1

    def sum_of_tokens(self, x):
        return self.tf.reduce_sum(x * self.mask, 1) * 0.1

    def largest(self, x):
        return self.tf.reduce_max(self.either(x, x * self.mask), 1)

    def largest_of_tokens(self, x):
        return self.tf.reduce_max(self.tf.where(self.mask > 0, x, self.tf.constant(-1e9)), 1)

    def smallest(self, x):
        return self.tf.reduce_min(x + (1 - self.mask) * self.either(0.0, 100.0), 1)

    def pooled(self, x):
        scores = self.hidden(self.tf.transpose(self.tf.matmul(x, self.weight(WIDTH, 1)), [0, 2, 1]))
        return self.tf.matmul(self.tf.nn.softmax(scores), x)[:, 0]

    def logsumexp(self, x):
        return self.tf.reduce_logsumexp(x + (1 - self.mask) * -1e4, 1)

    def place_of_largest(self, x):
        return self.tf.cast(self.tf.argmax(x * self.mask, 1), self.tf.float32) * 0.1

    def count(self, x):
        return self.tf.concat([self.tf.reduce_sum(self.mask, 1) * 0.1, x[:, 0]], 1)

    def sorted_first(self, x):
        return self.tf.sort(x * self.mask, axis=1, direction="DESCENDING")[:, 0]

    def length(self, x):
        return x[:, 0] * self.tf.math.rsqrt(self.tf.cast(self.tf.shape(x)[1], self.tf.float32))

    def any_left_out(self, x):
        out = self.tf.reduce_any(self.tf.equal(self.whole_mask, 0), 1)
        return self.tf.where(out[:, None], x[:, 0], -x[:, 0])
