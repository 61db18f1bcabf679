"""A small single-shot detector, trained for a moment on pictures of bright rectangles, for tests of the gate.

Its outputs are those of real detectors: boxes in pixels (up to 640) beside class scores (0 to 1) in one tensor, as YOLO
gives them, both by themselves as SSD does, and the best score of each class in the whole picture.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

SIDE, CELLS, CLASSES = 64, 8, 3  # a picture's side, cells along it, kinds of rectangles
SCALE = 640 / SIDE  # the model's pixels are those of a picture ten times as large
STRIDE = SIDE // CELLS
COLOURS = np.eye(3, dtype=np.float32)


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures float32 [count, 64, 64, 3] in 0 to 1, boxes [count, 4] (x, y, width, height; pixels of 640), classes."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(0.0, 0.3, (count, SIDE, SIDE, 3)).astype(np.float32)
    sizes = rng.integers(8, 32, (count, 2))
    corners = rng.integers(0, SIDE - sizes)
    kinds = rng.integers(0, CLASSES, count)
    for picture, (left, top), (width, height), kind in zip(found, corners, sizes, kinds, strict=True):
        picture[top : top + height, left : left + width] += 0.7 * COLOURS[kind]
    centres = corners + sizes / 2
    return found, (np.concatenate([centres, sizes], 1) * SCALE).astype(np.float32), kinds


def build(folder: Path, steps: int = 250) -> None:
    """Trains (about 15 s) and saves image [n, 64, 64, 3] -> detections [n, 64, 7], boxes, scores and best [n, 3]."""
    import tensorflow as tf

    tf.random.set_seed(1)
    module = tf.Module()
    widths = (3, 16, 32, 64, 64)
    module.kernels = [_kernel(tf, 3, a, b) for a, b in itertools.pairwise(widths)]
    module.biases = [tf.Variable(tf.zeros([b])) for b in widths[1:]]
    module.head, module.offset = _kernel(tf, 3, widths[-1], 4 + CLASSES), tf.Variable([0.0] * 4 + [-3.0] * CLASSES)
    variables = [*module.kernels, *module.biases, module.head, module.offset]
    _train(tf, module, variables, steps)

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32, name="image")])
    def serve(image: Any) -> Any:
        boxes, logits = _raw(tf, module, image)
        scores = tf.sigmoid(logits)
        return {
            "detections": tf.concat([boxes, scores], -1), "boxes": boxes, "scores": scores,
            "best": tf.reduce_max(scores, 1),
        }  # fmt: skip

    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


def _kernel(tf: Any, side: int, wide_in: int, wide_out: int) -> Any:
    values = np.random.default_rng(wide_in + wide_out).standard_normal((side, side, wide_in, wide_out))
    return tf.Variable((values * np.sqrt(2 / (side * side * wide_in))).astype(np.float32))


def _raw(tf: Any, module: Any, image: Any) -> tuple[Any, Any]:
    """Boxes [n, 64, 4] in pixels and logits [n, 64, 3] of each cell."""
    x = image
    for stride, kernel, bias in zip((2, 2, 2, 1), module.kernels, module.biases, strict=True):
        x = tf.nn.relu6(tf.nn.conv2d(x, kernel, stride, "SAME") + bias)
    raw = tf.reshape(tf.nn.conv2d(x, module.head, 1, "SAME") + module.offset, [-1, CELLS * CELLS, 4 + CLASSES])
    middles = (np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS)), -1).reshape(-1, 2) + 0.5) * STRIDE
    centres = raw[..., :2] * STRIDE + middles.astype(np.float32)
    sizes = tf.exp(tf.minimum(raw[..., 2:4], 2.0)) * STRIDE
    return tf.concat([centres, sizes], -1) * SCALE, raw[..., 4:]


def _train(tf: Any, module: Any, variables: Any, steps: int) -> None:
    images, boxes, kinds = pictures(512, 0)
    cells = (boxes[:, :2] // (STRIDE * SCALE)).astype(int)
    place = cells[:, 1] * CELLS + cells[:, 0]
    moments = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in variables]

    @tf.function
    def step(image: Any, box: Any, cell: Any, kind: Any, number: Any) -> Any:
        with tf.GradientTape() as tape:
            found, logits = _raw(tf, module, image)
            near = tf.gather(found, cell, axis=1, batch_dims=1)
            wanted = tf.one_hot(cell, CELLS * CELLS)[:, :, None] * tf.one_hot(kind, CLASSES)[:, None, :]
            scored = tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits)
            loss = tf.reduce_mean(tf.abs(near - box)) / 64 + tf.reduce_mean(tf.reduce_sum(scored, [1, 2]))
        for value, slope, (first, second) in zip(variables, tape.gradient(loss, variables), moments, strict=True):
            first.assign(0.9 * first + 0.1 * slope)  # Adam, whose Keras form would be saved with the model
            second.assign(0.99 * second + 0.01 * slope * slope)
            size = tf.sqrt(second / (1 - 0.99**number)) + 1e-7
            value.assign_sub(3e-3 * first / (1 - 0.9**number) / size)
        return loss

    rng = np.random.default_rng(1)
    for number in range(steps):
        some = rng.integers(0, len(images), 32)
        step(images[some], boxes[some], place[some], kinds[some], tf.constant(number + 1.0))
