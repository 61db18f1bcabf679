"""Functions of texts of a fixed length, frozen, and the same graph with its length opened."""

from __future__ import annotations

import numpy as np
from tfopt_optimizer.engines import inferred
from tfopt_optimizer.passes import lengths, unread

SIZE, WORDS = 32, 30


def texts(longest, rows):
    """ids and mask of texts, one of them as long as is said."""
    counts = np.random.default_rng(longest).integers(1, longest + 1, rows)
    counts[-1] = longest
    mask = (np.arange(SIZE)[None] < counts[:, None]).astype(np.int32)
    return np.random.default_rng(rows).integers(1, WORDS, mask.shape).astype(np.int32) * mask, mask


class Opened:
    """A function of ids and mask, frozen, and the same with its length opened."""

    def __init__(self, function, *, slices=False, inputs=2):
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        specs = [tf.TensorSpec([None, SIZE], tf.int32) for _ in range(inputs)]
        concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
        frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
        self.whole = frozen.graph.as_graph_def()
        self.inputs, self.outputs = [t.name for t in frozen.inputs], [t.name for t in frozen.outputs]
        keep = [name.partition(":")[0] for name in self.outputs]
        self.graph = type(self.whole)()
        self.graph.CopyFrom(self.whole)
        if slices:
            assert unread.run(self.graph, inferred.of_tensors(tf, self.graph), keep)
        axes = {name.partition(":")[0]: 1 for name in self.inputs}
        shapes = inferred.of_tensors(tf, self.graph)
        lengths.run(self.graph, shapes, axes, dict.fromkeys(keep, "answer"), SIZE)

    def pinned(self, size):
        graph = type(self.graph)()
        graph.CopyFrom(self.graph)
        lengths.pin(graph, size)
        return graph

    def run(self, graph, feeds):
        import tensorflow as tf

        with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
            tf.graph_util.import_graph_def(graph, name="")
            return session.run(self.outputs, dict(zip(self.inputs, feeds, strict=True)))

    def check(self, feeds_of=texts):
        for longest in (1, 5, 16, 31, 32):
            for rows in (1, 3):
                feeds = feeds_of(longest, rows)
                short = [each[:, :longest] for each in feeds]
                expected = self.run(self.whole, feeds)
                for graph in (self.graph, self.pinned(longest)):
                    for found, wanted in zip(self.run(graph, short), expected, strict=True):
                        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
