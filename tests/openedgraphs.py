"""Functions of texts of a fixed length, frozen, and the same graph with its length opened, or with filling left out."""

from __future__ import annotations

import numpy as np
from tfopt_optimizer.engines import inferred, openvino_packed
from tfopt_optimizer.passes import lengths, packing, unread
from tfopt_optimizer.plan import Filled, Shortening

SIZE, WORDS = 32, 30


def texts(longest, rows):
    """ids and mask of texts, one of them as long as is said."""
    counts = np.random.default_rng(longest).integers(1, longest + 1, rows)
    counts[-1] = longest
    mask = (np.arange(SIZE)[None] < counts[:, None]).astype(np.int32)
    return np.random.default_rng(rows).integers(1, WORDS, mask.shape).astype(np.int32) * mask, mask


def ragged(*counts):
    """ids and mask of texts of these lengths."""
    mask = (np.arange(SIZE)[None] < np.array(counts)[:, None]).astype(np.int32)
    return np.random.default_rng(len(counts)).integers(1, WORDS, mask.shape).astype(np.int32) * mask, mask


RAGGED = (ragged(5, 32, 1, 17), ragged(3), ragged(32, 32), ragged(8, 8, 8), ragged(0, 9), ragged(0))


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
        self.graph = self._copy(self.whole)
        if slices:
            assert unread.run(self.graph, inferred.of_tensors(tf, self.graph), keep)
        axes = {name.partition(":")[0]: 1 for name in self.inputs}
        shapes = inferred.of_tensors(tf, self.graph)
        opening = lengths.run(self.graph, shapes, axes, dict.fromkeys(keep, "answer"), SIZE)
        self.packed, self.graph = self.graph, self._copy(self.graph)
        self.products = packing.run(self.packed, opening, keep)  # that are smaller in the packed graph

    @staticmethod
    def _copy(graph):
        found = type(graph)()
        found.CopyFrom(graph)
        return found

    def pinned(self, size):
        graph = self._copy(self.graph)
        lengths.pin(graph, size)
        return graph

    def run(self, graph, feeds, added=()):
        import tensorflow as tf

        with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
            tf.graph_util.import_graph_def(graph, name="")
            return session.run(self.outputs, dict(zip(self.inputs, feeds, strict=True)) | dict(added))

    def run_packed(self, feeds):
        """Rows as clients send them; zeros at their ends are filling."""
        plan = Shortening(tuple(Filled(name, 1, 0.0, False) for name in self.inputs), SIZE, (), "")
        given = openvino_packed.packed(plan, dict(zip(self.inputs, feeds, strict=True)))
        there = {node.name for node in self.packed.node}
        added = {f"{name}:0": given[name] for name in packing.INPUTS & there}
        return self.run(self.packed, [given[name] for name in self.inputs], added)

    def packed_ops(self):
        """Of the nodes that are computed for packed positions, by the name that they had."""
        ending = "/tfopt_packed"
        return {n.name.removesuffix(ending): n.op for n in self.packed.node if n.name.endswith(ending)}

    def check_packed(self, batches=RAGGED):
        for feeds in batches:
            for found, wanted in zip(self.run_packed(feeds), self.run(self.whole, feeds), strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)

    def check(self, feeds_of=texts):
        for longest in (1, 5, 16, 31, 32):
            for rows in (1, 3):
                feeds = feeds_of(longest, rows)
                short = [each[:, :longest] for each in feeds]
                expected = self.run(self.whole, feeds)
                for graph in (self.graph, self.pinned(longest)):
                    for found, wanted in zip(self.run(graph, short), expected, strict=True):
                        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
