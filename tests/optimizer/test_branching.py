"""Branches that a batch takes as a whole, found in real SavedModels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tfopt_optimizer import saved_model

BUILD = """
import sys
from tfopt_optimizer.absent import absent
with absent("jax", "sklearn"):  # half of its time
    import tensorflow as tf

class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def by_sum(self, x):
        return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x)}

    @tf.function
    def inner(self, x):
        return tf.cond(tf.reduce_max(x) > 3, lambda: x, lambda: x * 2)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def in_a_call(self, x):
        return {"y": self.inner(x + 1)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def by_shape(self, x):
        return {"y": tf.cond(tf.shape(x)[0] > 0, lambda: x, lambda: -x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def by_count(self, x):
        return {"y": tf.cond(tf.size(tf.where(x > 1e9)) > 0, lambda: x, lambda: -x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def by_shape_besides_a_count(self, x):
        kept = tf.reduce_sum(tf.boolean_mask(x, x[:, 0] > 0))
        return {"y": tf.cond(tf.shape(x)[0] > 0, lambda: x, lambda: -x) + kept}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def asserted(self, x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 1e6)]):
            return {"y": tf.identity(x) + 1}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def each_row(self, x):
        return {"y": tf.map_fn(lambda r: tf.cond(tf.reduce_sum(r) > 0, lambda: r, lambda: -r), x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def selected(self, x):
        return {"y": tf.where(x > 0, x, -x)}

m = Model()
names = ["by_sum", "in_a_call", "by_shape", "by_count", "by_shape_besides_a_count", "asserted", "each_row", "selected"]
tf.saved_model.save(m, sys.argv[1], signatures={n: getattr(m, n) for n in names})

with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    tf.compat.v1.disable_control_flow_v2()
    x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
    y = tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x)
    info = tf.compat.v1.saved_model.build_tensor_info
    method = "tensorflow/serving/predict"
    signature = tf.compat.v1.saved_model.build_signature_def({"x": info(x)}, {"y": info(y)}, method)
    builder = tf.compat.v1.saved_model.Builder(sys.argv[2])
    builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
    builder.save()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("branches")
    both = folder / "tf2", folder / "tf1"
    subprocess.run([sys.executable, "-c", BUILD, *map(str, both)], check=True, capture_output=True)
    return both


@pytest.mark.tensorflow
def test_branches_that_values_of_a_batch_decide_are_found_and_no_others(built: tuple[Path, Path]) -> None:
    found = {key: bool(state.decided) for key, state in saved_model.states(built[0]).items() if "__" not in key}
    assert found == {
        "by_sum": True, "in_a_call": True, "by_shape": False, "by_count": True, "by_shape_besides_a_count": False,
        "asserted": False, "each_row": False, "selected": False,
    }  # fmt: skip


@pytest.mark.tensorflow
def test_tf1s_switches_count_too(built: tuple[Path, Path]) -> None:
    assert saved_model.states(built[1])["serving_default"].decided
