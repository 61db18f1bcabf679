"""Graphs put together at random: whatever is read of them, the answers stay."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from frozengraphs import Frozen, check_unread

pytestmark = pytest.mark.tensorflow

TOKENS, WIDTH = 6, 8


class Layers:
    """Each takes one or two tensors [rows, TOKENS, WIDTH] and gives another."""

    def __init__(self, seed):
        import tensorflow as tf

        self.tf, self.random = tf, np.random.default_rng(seed)

    def _constant(self, *shape):
        return self.tf.constant(self.random.normal(0, 0.5, shape).astype(np.float32))

    def dense(self, x):
        return self.tf.matmul(x, self._constant(WIDTH, WIDTH))

    def tensordot(self, x):
        return self.tf.tensordot(x, self._constant(WIDTH, WIDTH), 1) + self._constant(WIDTH)

    def merged(self, x):
        y = self.tf.matmul(self.tf.reshape(x, [-1, WIDTH]), self._constant(WIDTH, WIDTH))
        return self.tf.reshape(y, self.tf.shape(x))

    def einsum(self, x):
        return self.tf.einsum("...ph,hk->...pk", x, self._constant(WIDTH, WIDTH))

    def headwise(self, x):
        heads = self.tf.reshape(x, [-1, TOKENS, 2, WIDTH // 2])
        y = self.tf.einsum("nphd,hde->nphe", heads, self._constant(2, WIDTH // 2, WIDTH // 2))
        return self.tf.reshape(y, [-1, TOKENS, WIDTH])

    def attention(self, x, y):
        return self.tf.matmul(self.tf.nn.softmax(self.tf.matmul(x, y, transpose_b=True)), y)

    def transposed(self, x):
        y = self.tf.matmul(self._constant(WIDTH, WIDTH), x, transpose_a=True, transpose_b=True)
        return self.tf.transpose(y, [0, 2, 1])

    def time_major(self, x):
        y = self.tf.matmul(self.tf.transpose(x, [1, 0, 2]), self._constant(WIDTH, WIDTH))
        return self.tf.transpose(y, [1, 0, 2])

    def token_mixing(self, x):
        return self.tf.matmul(self._constant(TOKENS, TOKENS), x)

    def normalized(self, x):
        mean, variance = self.tf.nn.moments(x, [-1], keepdims=True)
        return (x - mean) * self.tf.math.rsqrt(variance + 1e-3)

    def softmax(self, x):
        return self.tf.nn.softmax(x, axis=int(self.random.choice([1, 2])))

    def cumsum(self, x):
        return self.tf.cumsum(x, axis=int(self.random.choice([1, 2]))) * 0.2

    def convolution(self, x):
        return self.tf.nn.conv1d(x, self._constant(3, WIDTH, WIDTH), 1, "SAME") * 0.3

    def sum(self, x, y):
        return x + y

    def gelu(self, x):
        return self.tf.nn.gelu(x)

    def silu(self, x):
        return self.tf.nn.silu(x)

    def ensured(self, x):
        return self.tf.ensure_shape(x, [None, TOKENS, WIDTH])

    def gated(self, x):
        left, right = self.tf.split(self.tf.matmul(x, self._constant(WIDTH, 2 * WIDTH)), 2, axis=-1)
        return left * self.tf.sigmoid(right)

    def split_unevenly(self, x):
        left, right = self.tf.split(x, [3, WIDTH - 3], axis=-1)
        return self.tf.concat([right, left], -1)

    def unpacked(self, x):
        left, right = self.tf.unstack(self.tf.reshape(x, [-1, TOKENS, 2, WIDTH // 2]), axis=2)
        return self.tf.concat([left + right, left - right], -1)

    def widened(self, x):
        return (x[:, :, None] * self._constant(2, 1))[..., 1, :]

    def backward(self, x):
        return x[:, ::-1] + x[..., ::-1]

    def dotted(self, x):
        return x[..., None, 1:][:, :, 0, :1] + x[:, None, ..., :][:, 0]

    def places(self, x):
        return x * self._constant(TOKENS, 1) + self._constant(TOKENS, WIDTH)

    def centred(self, x):
        return x - self.tf.reduce_mean(x, axis=int(self.random.choice([1, 2])), keepdims=True)

    def selected(self, x, y):
        return self.tf.where(self.tf.logical_and(self.tf.ones_like(x, self.tf.bool), x > 0.1), y, x)

    def filled(self, x):
        return x * self.tf.fill(self.tf.shape(x), 0.5)

    def spread(self, x):
        return x + self.tf.broadcast_to(self._constant(TOKENS, 1), self.tf.shape(x))

    def joined(self, x, y):
        return self.tf.matmul(self.tf.concat([x, y], 2), self._constant(2 * WIDTH, WIDTH))

    def halves(self, x, y):
        return self.tf.concat([x[:, :2], y[:, 2:]], 1)

    def packed(self, x, y):
        return self.tf.stack([x, y], axis=2)[:, :, 1]

    def gathered(self, x):
        return self.tf.gather(x, [2, 1, 0, 3, 3, 5], axis=1)

    def padded(self, x):
        return self.tf.matmul(self.tf.pad(x, [[0, 0], [0, 0], [1, 2]]), self._constant(WIDTH + 3, WIDTH))

    def split_tokens(self, x):
        return self.tf.reshape(self.tf.reshape(x, [-1, 2, 3, WIDTH]) * self._constant(3, 1), [-1, TOKENS, WIDTH])

    def flattened(self, x):
        flat = self.tf.reshape(x, [-1, TOKENS * WIDTH])
        y = self.tf.matmul(flat, self._constant(TOKENS * WIDTH, TOKENS * WIDTH)) * 0.2
        return self.tf.reshape(y, [-1, TOKENS, WIDTH])

    def one_feature(self, x):
        return x * self.tf.sigmoid(self.dense(x)[:, :, 3:4])

    def one_token(self, x):
        return x + self.tf.expand_dims(self.dense(x)[:, int(self.random.integers(-TOKENS, TOKENS))], 1)

    def picked(self, x):
        place = int(self.random.integers(6))
        return [x[:, 0], x[:, -1], x[:, 2:4], self.tf.gather(x, 1, axis=1), x[..., 3], x[:, 0] + x[:, 2]][place]


NAMES = sorted({name for name in vars(Layers) if not name.startswith("_")} - {"picked"})


def put_together(seed, count):
    def serve(x):
        layers = Layers(seed)
        made = [x, layers.dense(x)]
        for _ in range(count):
            layer = getattr(layers, str(layers.random.choice(NAMES)))
            others = [
                made[-1 - int(layers.random.integers(min(4, len(made))))] for _ in inspect.signature(layer).parameters
            ]
            made.append(layer(made[-1], *others[1:]))
        answers = [layers.picked(made[-1])]
        if layers.random.random() < 0.25:  # something else reads one of them
            answers.append(layers.tf.reduce_sum(made[int(layers.random.integers(len(made)))], axis=-1))
        return [layers.tf.identity(answer) for answer in answers]

    return serve


@pytest.mark.parametrize("seed", range(30))
def test_answers_stay(seed):
    import tensorflow as tf

    tokens = None if seed % 3 == 2 else TOKENS
    frozen = Frozen(put_together(seed, 3 + seed % 7), tf.TensorSpec([None, tokens, WIDTH], tf.float32))

    def draw(rows):
        return (np.random.default_rng(rows).normal(size=(rows, TOKENS, WIDTH)).astype(np.float32),)

    check_unread(frozen, draw, tolerance=1e-5)
