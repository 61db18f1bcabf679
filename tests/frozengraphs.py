"""Functions frozen to graphs, a pass over them, and what TensorFlow computes before and after it."""

from __future__ import annotations

import numpy as np
from tfopt_optimizer.engines import inferred
from tfopt_optimizer.passes import unread

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
        return run(graph, self.outputs, dict(zip(self.inputs, feeds, strict=True)))

    def sizes(self, graph, feeds):
        """Of the results of all products, smallest first."""
        found = [f"{node.name}:0" for node in graph.node if node.op in PRODUCTS]
        return sorted(value.size for value in run(graph, found, dict(zip(self.inputs, feeds, strict=True))))

    def unread(self):
        """The graph after the pass, and what the pass said."""
        import tensorflow as tf

        graph = type(self.graph)()
        graph.CopyFrom(self.graph)
        found = unread.run(graph, inferred.of_tensors(tf, graph), [name.partition(":")[0] for name in self.outputs])
        if not found:
            assert graph.SerializeToString(deterministic=True) == self.graph.SerializeToString(deterministic=True)
        return graph, found


def run(graph, outputs, feeds):
    import tensorflow as tf

    with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
        tf.graph_util.import_graph_def(graph, name="")
        return session.run(outputs, feeds)


def check_unread(frozen, draw, tolerance=2e-6):
    """Runs the pass and compares the answers for 1 and 3 rows. What the pass said, and for 3 rows the sizes of all
    products before and after it. `draw`: number of rows -> what is fed."""
    graph, found = frozen.unread()
    for rows in (1, 3):
        feeds = draw(rows)
        for before, after in zip(frozen.run(frozen.graph, feeds), frozen.run(graph, feeds), strict=True):
            assert before.shape == after.shape
            np.testing.assert_allclose(after, before, rtol=0, atol=tolerance * max(1, np.abs(before).max()))
    assert len(frozen.sizes(graph, feeds)) <= len(frozen.sizes(frozen.graph, feeds)), "computed twice"
    return found, frozen.sizes(frozen.graph, feeds), frozen.sizes(graph, feeds)
