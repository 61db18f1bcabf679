"""Values that plain TensorFlow refuses are refused by every engine too, or the engine does not take the signature."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import savedmodels
from enginecases import Prepared, plain, save, target
from tfopt_optimizer import saved_model
from tfopt_optimizer.engines import (
    jit,
    litert,
    litert_convert,
    onnxruntime,
    onnxruntime_convert,
    openvino,
    openvino_freeze,
    unchecked,
)
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.errors import Declined, EngineError, NotLowerable
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.servable import Servable

pytestmark = pytest.mark.tensorflow

ENGINES = {
    "litert": ("t1", litert.Worker, litert_convert.Converter),
    "openvino": ("f32", openvino.Worker, openvino_freeze.Converter),
    "onnxruntime": ("t1", onnxruntime.Worker, onnxruntime_convert.Converter),
}
TABLE = np.arange(1, 8, dtype=np.float32)


def asserted(tf, x):
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), [x])]):
        return tf.identity(x)


def asserted_in_a_branch(tf, x):
    tf.debugging.assert_less(x, 5)
    return x + 1


def asserted_and_looked_up(below, used=True):
    """What Hugging Face's models say of their ids before they look them up in a variable of seven rows."""

    def compute(tf, x):
        table = tf.Variable(TABLE)

        @tf.function(autograph=False)
        def inside(x):
            tf.debugging.assert_less(x, below)
            found = tf.gather(table, x)
            return found if used else tf.cast(x, tf.float32) + 0.0 * tf.cast(tf.shape(found)[0], tf.float32)

        return table, inside

    return compute


def asserted_in_a_loop(tf, x):
    def step(i, y):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(y < 9), [y])]):
            return i + 1, y + 1

    return tf.while_loop(lambda i, y: i < 3, step, (0, x))[1]


def scattered(tf, x):
    return tf.tensor_scatter_nd_update(TABLE, x[:, None], tf.ones([3]))


def by_label(tf, x):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(x, tf.zeros([3, 4]))


def reversed_(tf, x):
    return tf.reverse_sequence(tf.reshape(tf.range(12.0), [3, 4]), x, seq_axis=1)


def checked_numbers(tf, x):
    return tf.debugging.check_numerics(1 / tf.cast(x, tf.float32), "odd")


def in_a_list(tf, x):
    return tf.TensorArray(tf.float32, 7).unstack(TABLE).read(x[0])[None]


def looked_up_in_a_loop(tf, x):
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + tf.gather(TABLE, x)), (0, tf.zeros([3])))[1]


def counted_in_a_loop(tf, x):
    """What a loop counts, no request decides."""
    start = (0, tf.cast(x, tf.float32))
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + tf.gather(TABLE, i)), start)[1]


def looked_up_in_a_branch(tf, x):
    return tf.cond(x[0] > 0, lambda: tf.gather(TABLE, x), lambda: tf.cast(x, tf.float32))


def looked_up_in_both(tf, x):
    return tf.cond(x[0] > 0, lambda: looked_up_in_a_loop(tf, x), lambda: tf.cast(x, tf.float32))


def many_looked_up_in_a_loop(tf, x):
    start = (0, tf.zeros([3]))
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + tf.gather_nd(TABLE, x[:, None])), start)[1]


def counted_as_often_as_sent(tf, x):
    start = (0, tf.zeros([3]))
    return tf.while_loop(lambda i, y: i < x[0], lambda i, y: (i + 1, y + tf.gather(TABLE, i)), start)[1]


def counted_down(tf, x):
    start = (0, x, tf.zeros([3]))
    return tf.while_loop(lambda i, k, y: i < 3, lambda i, k, y: (i + 1, k - 1, y + tf.gather(TABLE, k)), start)[2]


def written_as_often_as_sent(tf, x):
    start = (0, tf.TensorArray(tf.float32, 7).unstack(TABLE))
    return tf.while_loop(lambda i, y: i < x[0], lambda i, y: (i + 1, y.write(i, 5.0)), start)[1].stack()


ALL = frozenset(ENGINES)
# What a signature computes, values that TensorFlow refuses, the engines that would not.
CHECKS = {
    "asserted": (asserted, [[1, 0, 3]], ALL),
    "asserted_in_a_branch": (asserted_in_a_branch, [[1, 0, 7]], ALL),
    "asserted_in_a_loop": (asserted_in_a_loop, [[7, 0, 3]], ALL),
    "checked_numbers": (checked_numbers, [[1, 0, 3]], ALL),
    "scattered": (scattered, [[0, 1, -2], [0, 1, 7]], ALL),
    "by_label": (by_label, [[0, 1, -2], [0, 1, 7]], ALL),
    "single_index": (lambda tf, x: tf.stack([tf.constant(TABLE)[x[i]] for i in range(3)]), [[0, 1, 9]], ALL),
    "permuted": (lambda tf, x: tf.math.invert_permutation(x), [[0, 0, 0], [0, 1, 7]], ALL),
    "reversed": (reversed_, [[0, 1, -2], [0, 1, 7]], {"litert"}),
    "sliced": (lambda tf, x: tf.slice(TABLE, x[:1], [3]), [[6, 1, 2], [-2, 1, 2]], {"openvino", "onnxruntime"}),
    "raised": (lambda tf, x: tf.pow(2, x), [[0, 1, -2]], {"openvino", "onnxruntime"}),
    "divided": (lambda tf, x: 7 // x, [[1, 0, 2]], {"openvino"}),
    "remainder": (lambda tf, x: 7 % x, [[1, 0, 2]], {"openvino"}),
    "segments": (lambda tf, x: tf.math.segment_sum(tf.ones([3]), x), [[0, 1, -1]], {"openvino", "onnxruntime"}),
    "any_segments": (
        lambda tf, x: tf.math.unsorted_segment_sum(tf.ones([3]), x, 4), [[0, 1, 9]], {"openvino", "onnxruntime"},
    ),
    "placed": (lambda tf, x: tf.scatter_nd(x[:, None], tf.ones([3]), [4]), [[0, 1, -2]], {"openvino", "onnxruntime"}),
    "in_a_list": (in_a_list, [[9, 1, 1], [-2, 1, 1]], {"openvino", "onnxruntime"}),
    "looked_up_in_a_loop": (looked_up_in_a_loop, [[0, 1, -2], [0, 1, 7], [0, -7, 1], [1 << 30, 0, 0]], set()),
    "looked_up_in_a_branch": (looked_up_in_a_branch, [[1, 1, -2], [1, 1, 7], [1, -7, 1]], set()),
    "looked_up_in_both": (looked_up_in_both, [[1, 1, -1], [7, 1, 1]], set()),
    "many_looked_up_in_a_loop": (many_looked_up_in_a_loop, [[1, 1, -1], [7, 1, 1]], set()),
    "counted_as_often_as_sent": (counted_as_often_as_sent, [[8, 1, 1], [1 << 20, 1, 1]], set()),
    "counted_down": (counted_down, [[1, 1, 1], [2, 7, 2]], set()),
    "written_as_often_as_sent": (written_as_often_as_sent, [[8, 1, 1]], ALL),
    "looked_up": (lambda tf, x: tf.gather(TABLE, x), [[1, 1, -2], [1, 1, 7]], set()),
    "counted_in_a_loop": (counted_in_a_loop, [], set()),
    "by_shape": (lambda tf, x: x // tf.shape(x)[0] + asserted(tf, tf.shape(x))[0], [], set()),
    "by_a_constant": (lambda tf, x: x // 2 + tf.pow(x, 2), [], set()),
    "of_a_fixed_length": (lambda tf, x: tf.stack([x[0], x[2]]), [], set()),
}  # fmt: skip


@functools.cache
def _saved(name, folder):
    save(folder / f"unchecked_{name}", lambda tf, module, x: {"y": CHECKS[name][0](tf, x)}, x=([3], "int32"))
    return saved_model.read_signatures(folder / f"unchecked_{name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unchecked")


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_that_an_engine_does_not_make_keeps_it_out(name, folder):
    found = unchecked.reasons(folder / f"unchecked_{name}", ("serve",), _saved(name, folder))["serving_default"]
    assert set(found) == set(CHECKS[name][2])
    assert all("TensorFlow checks" in why or "inputs" in why for why in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_no_engine_answers_where_tensorflow_refuses(name, folder, tmp_path, monkeypatch):
    """What the table says of each engine is true: who is not kept out declines, or cannot be converted to."""
    _saved(name, folder)
    monkeypatch.setattr(savedmodels, "path", lambda wanted: folder / wanted)
    _, wrong, out = CHECKS[name]
    model = f"unchecked_{name}"
    for engine, (variant, worker, converter) in ENGINES.items():
        wanted = target(model, "serving_default", variant, 3)
        if engine in out:
            continue
        try:
            runner = Prepared(model, tmp_path / engine, worker(), converter).runner(wanted)
        except NotLowerable:
            continue
        for values in wrong:
            given = {"x": np.array(values, np.int32)}
            with pytest.raises(EngineError):
                plain(model, wanted, given)
            with pytest.raises(Declined):
                runner(given)


@pytest.mark.parametrize(
    ("below", "used", "out"), [(7, True, set()), (9, True, set()), (6, True, ALL), (7, False, ALL)]
)
def test_an_assertion_that_a_look_up_makes_as_well_keeps_nobody_out(below, used, out, tmp_path):
    """Where the look-up asks for less, or may not be computed, the assertion counts."""

    def compute(tf, module, x):
        if not hasattr(module, "inside"):
            module.table, module.inside = asserted_and_looked_up(below, used)(tf, x)
        return {"y": module.inside(x)}

    save(tmp_path / "m", compute, x=([3], "int32"))
    found = unchecked.reasons(tmp_path / "m", ("serve",), saved_model.read_signatures(tmp_path / "m"))
    assert set(found["serving_default"]) == out


def test_only_the_engine_named_refuses_and_not_its_device_segments():
    info, reasons = SignatureInfo("s", "", (), ()), {"litert": "it asserts something"}
    assert [Entrant(e, "v", "w").refuses(info, reasons) for e in ("litert", "host+litert", "openvino", "xla")] == [
        "it asserts something", "", "", "",
    ]  # fmt: skip


@pytest.fixture
def jitted(tmp_path):
    """jitted(compute): the runner of a model of one input x, compiled by XLA inside TensorFlow."""

    def made(compute):
        save(tmp_path / "m", lambda tf, module, x: {"y": compute(tf, x)}, x=([None], "int32"))
        place = Place(tmp_path / "m", tmp_path, ("serve",), 2, 2)
        model = tensorflow_engine.open_model(place, tensorflow_engine.FUNCTION)
        return jit.open_runner(model, Target(saved_model.read_signatures(tmp_path / "m")[0], "jit", {"x": (3,)}))

    return made


def test_xla_inside_tensorflow_declines_what_it_would_clamp(jitted):
    runner = jitted(lambda tf, x: tf.gather(TABLE, x - 1))
    assert runner({"x": np.array([1, 2, 7], np.int32)})["y"].tolist() == [1, 2, 7]
    with pytest.raises(Declined, match="'x' has values outside 1 to 7"):
        runner({"x": np.array([1, 2, 8], np.int32)})


def test_xla_inside_tensorflow_declines_rows_of_indices_beyond_their_axes(jitted):
    runner = jitted(lambda tf, x: tf.gather_nd(TABLE[:6].reshape(3, 2), tf.stack([tf.range(3), x], -1)))
    assert runner({"x": np.array([0, 1, 1], np.int32)})["y"].tolist() == [1, 4, 6]
    for beyond in (2, -1, 1 << 30):
        with pytest.raises(Declined, match="'x' has values outside 0 to 1"):
            runner({"x": np.array([0, beyond, 1], np.int32)})


@pytest.mark.parametrize("name", ["counted_as_often_as_sent", "written_as_often_as_sent"])
def test_xla_inside_tensorflow_refuses_what_a_loop_reaches_as_often_as_is_sent(jitted, name):
    """TensorFlow refuses the eighth turn, XLA takes the seventh row again."""
    with pytest.raises(NotLowerable, match=r"looks up what|TensorFlow checks what"):
        jitted(CHECKS[name][0])


def test_xla_inside_tensorflow_refuses_what_no_limit_covers(jitted):
    with pytest.raises(NotLowerable, match="looks up what it computes"):
        jitted(lambda tf, x: tf.gather(TABLE, x * 2))


@pytest.mark.slow
def test_a_whole_engine_is_kept_out_of_the_contest_and_the_cut_asserts(tmp_path):
    """The host checks what the device segment's engine would not; TensorFlow tells the client."""
    weights = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    save(tmp_path / "m", lambda tf, module, x: {"y": tf.nn.relu(asserted(tf, x) @ weights)}, x=([None, 8], "float32"))
    rows = np.random.default_rng(1).random((5, 8), np.float32) + 0.1
    flags = OptimizerFlags(allowed_batch_sizes=(2,), engines=("litert",))
    samples = {"serving_default": ({"x": rows},)}
    job = OptimizeJob(tmp_path / "m", tmp_path / "plan", ("serve",), flags, samples, "warmup")
    plan = optimize(job, lambda _: None)
    (bucket,) = plan.signature("serving_default").buckets
    whole = {c.reason for c in bucket.candidates if c.engine == "litert"}
    assert len(whole) == 1
    assert "asserts something of its inputs" in whole.pop()
    cut = [c for c in bucket.candidates if c.engine == "host+litert"]
    assert cut
    assert all("asserts" not in c.reason for c in cut)
    servable = Servable.open(job.model_dir, job.plan_dir, plan)
    with pytest.raises(EngineError, match="assertion failed"):
        servable.signatures["serving_default"].run({"x": np.array([[1] * 8, [-1] * 8], np.float32)})
    servable.close()
