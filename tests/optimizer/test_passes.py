"""Each pass leaves the operation it is named after out of the graph, and the function that it computes unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer.passes import erfc, log1p, roots, softplus

pytestmark = pytest.mark.tensorflow

# name -> (pass, values where digits are easily lost, largest error relative to 1 for x, else to the value)
X = np.array([-0.999, -1e-3, -1e-8, 0.0, 1e-30, 1e-8, 1e-7, 1e-3, 0.5, 1.0, 1.5, 1e4, 3e38], np.float64)


def rewritten(name, rewrite, dtype, x):
    """What TensorFlow computes before and after the pass."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder(dtype, [None], name="x")
        tf.identity(getattr(tf.raw_ops, name)(x=given), name="y")
    definition = graph.as_graph_def()
    assert rewrite.run(definition) == 1
    assert name not in {node.op for node in definition.node}
    assert rewrite.run(definition) == 0
    answers = []
    for each in (graph.as_graph_def(), definition):
        with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
            tf.import_graph_def(each, name="")
            answers.append(session.run("y:0", {"x:0": x.astype(dtype)}))
    return answers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log1p_keeps_the_digits_of_small_values(dtype):
    exact, found = rewritten("Log1p", log1p, dtype, X)
    np.testing.assert_allclose(found, exact, rtol=8 * np.finfo(dtype).eps)
    edges = np.array([np.inf, -1.0, -2.0, np.nan])
    exact, found = rewritten("Log1p", log1p, dtype, edges)
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_erfc_is_right_to_the_rounding_of_one(dtype):
    exact, found = rewritten("Erfc", erfc, dtype, np.array([-4.0, -1.0, 0.0, 0.3, 1.0, 4.0, 9.0]))
    np.testing.assert_allclose(found, exact, rtol=0, atol=2 * np.finfo(dtype).eps)


def test_what_ran_before_a_rewritten_operation_still_does():
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.constant([1.0], name="x")
        with tf.control_dependencies([tf.no_op(name="first")]):
            tf.math.erfc(x, name="y")
    definition = graph.as_graph_def()
    erfc.run(definition)
    (node,) = (node for node in definition.node if node.name == "y")
    assert (node.op, list(node.input)) == ("Sub", ["y/tfopt_one", "y/tfopt_erf", "^first"])


def graphed(compute, x):
    """A graph that computes y of x, by itself and in the branch of a function."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder("float32", [None], name="x")
        inside = tf.cond(tf.size(given) > 0, lambda: compute(tf, given), lambda: given)
        tf.stack([compute(tf, given), inside], name="y")
    return graph.as_graph_def()


def answered(definition, x):
    import tensorflow as tf

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(definition, name="")
        return session.run("y:0", {"x:0": np.array(x, np.float32)})


ROOTS = [0.0, 1e-30, 1e-3, 1.0, 7.0, 1e30, np.inf, np.nan, -1.0]


@pytest.mark.parametrize(
    ("rewrite", "compute", "x"),
    [
        (roots, lambda tf, x: tf.math.rsqrt(x), ROOTS),
        (roots, lambda tf, x: tf.minimum(1.0, 1 / tf.sqrt(x)), ROOTS),
        (roots, lambda tf, x: tf.pow(x, -0.5), ROOTS),
        (roots, lambda tf, x: tf.math.rsqrt(x + np.array([0.0, 1.0, 1.0], np.float32)[:1]), ROOTS),
        (softplus, lambda tf, x: tf.nn.softplus(x), [0.0, 1.0, -1.0, 20.0, -20.0, 100.0, -100.0, np.inf, np.nan]),
    ],
)
def test_what_litert_computes_otherwise_is_computed_alike(rewrite, compute, x):
    before = graphed(compute, x)
    after = type(before).FromString(before.SerializeToString())
    assert rewrite.run(after) == 2
    assert rewrite.run(after) == 0
    np.testing.assert_allclose(answered(after, x), answered(before, x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "compute",
    [
        lambda tf, x: tf.math.rsqrt(x + 1e-6),
        lambda tf, x: 1 / tf.sqrt(tf.maximum(1e-6, tf.identity(x))),
        lambda tf, x: x * tf.math.rsqrt(tf.add(x, np.array([1e-3], np.float32))),
        lambda tf, x: tf.pow(x, 2.0) + tf.pow(x[:, None], [0.5, 2.0])[:, 0],
        lambda tf, x: tf.cast(tf.sqrt(tf.cast(x, tf.float64)), tf.float32),
    ],
)
def test_roots_of_what_is_not_0_and_of_doubles_are_left(compute):
    graph = graphed(compute, ROOTS)
    before = graph.SerializeToString(deterministic=True)
    roots.run(graph)
    assert graph.SerializeToString(deterministic=True) == before
