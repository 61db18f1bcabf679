"""The onnxruntime engine: what is converted to it, what it refuses or declines, and where it takes part at all."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from enginecases import Prepared, agree, feeds, hammer, place, plain, save, steps_of_another_thread, target
from tfopt_optimizer.engines import onnxruntime, onnxruntime_convert
from tfopt_optimizer.engines.base import Target
from tfopt_optimizer.errors import Declined, NeedsConversion, NotLowerable
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.servable import Servable

pytestmark = pytest.mark.tensorflow
TOKENS = np.random.default_rng(3).integers(0, 50, (9, 24)).astype(np.int32)


@pytest.fixture
def engine(tmp_path):
    return lambda name: Prepared(name, tmp_path / name, onnxruntime.Worker(), onnxruntime_convert.Converter)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """made(name, compute, dtype): a model of one input x and the output y = compute(tf, x)."""

    def save_and_aim(name, compute, dtype="float32"):
        save(tmp_path / name, lambda tf, module, x: {"y": compute(tf, x)}, x=([None], dtype))
        monkeypatch.setattr("savedmodels.path", lambda wanted: tmp_path / wanted)
        return target(name, "serving_default", "t1", 3)

    return save_and_aim


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("recurrent", "serving_default"),
        ("cnn", "serving_default"),
        ("sequence", "serving_default"),
        ("multi", "serving_default"),
        ("scalar", "serving_default"),
        ("dtypes", "serving_default"),  # 64-bit integers and floats are computed as such
        ("no_batch_outputs", "serving_default"),
        ("shared", "v2/top:1"),
        ("mlp_keras_saved", "serving_default"),
    ],
)
def test_a_signature_is_converted_once_and_answers_as_plain_tensorflow_does(engine, name, key):
    prepared = engine(name)
    for batch in (1, 3, 8):
        prepared.check(target(name, key, "t1", batch), seed=batch)
    assert prepared.converted == 1
    assert prepared.prepared.artifact == "s0/onnxruntime"
    folder = prepared.place.plan_dir / "s0" / "onnxruntime"
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.onnx"]


def test_keras_loops_become_recurrent_operations(engine):
    import onnx

    prepared = engine("recurrent")
    prepared.runner(target("recurrent", "serving_default", "t1", 1))
    model = onnx.load(prepared.place.plan_dir / "s0" / "onnxruntime" / "model.onnx")
    assert "LSTM" in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("name", "compute"),
    [("gelu", lambda tf, x: tf.nn.gelu(x)), ("log1p", lambda tf, x: tf.math.log1p(tf.abs(x)))],
)
def test_operations_that_onnx_lacks_are_rewritten(engine, made, name, compute):
    wanted = made(name, compute)
    engine(name).check(wanted)


@pytest.mark.parametrize(
    ("name", "compute", "dtype", "reason"),
    [
        ("lgamma", lambda tf, x: tf.math.lgamma(x), "float32", "ONNX has no operation for Lgamma"),
        ("divided", lambda tf, x: 7 // x, "int32", r"it divides integers by what comes in \(Div\)"),
        ("complex", lambda tf, x: tf.math.real(x), "complex64", "input 'x' is of type complex64"),
    ],
)
def test_what_has_no_safe_form_is_refused(engine, made, name, compute, dtype, reason):  # noqa: PLR0917
    wanted, prepared = made(name, compute, dtype), engine(name)
    for _ in range(2):  # the second time from memory
        with pytest.raises(NotLowerable, match=reason):
            prepared.runner(wanted)


def test_integers_are_divided_by_constants(engine, made):
    wanted = made("halved", lambda tf, x: x // 2, "int64")
    engine("halved").check(wanted)


def in_a_loop(step):
    def compute(tf, x):
        return tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, step(y)), (0, x))[1]

    return compute


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("quotient", lambda x: x // 3),
        ("of_a_negative", lambda x: x // -7),
        ("remainder", lambda x: x % 7),
        ("by_a_negative", lambda x: x % -7),
        ("both", lambda x: x // 24 * 100 + x % 24),
    ],
)
def test_whole_numbers_are_divided_downward(engine, made, name, step, dtype):
    """ONNX's division is toward zero, and its remainder by default has the dividend's sign."""
    held = np.iinfo(dtype)
    for where, compute in (("outside", lambda tf, x: step(x)), ("inside", in_a_loop(step))):
        model = f"onnx_{name}_{dtype}_{where}"
        wanted = made(model, compute, dtype)
        runner = engine(model).runner(wanted)
        for row in ([-1, -7, -8], [7, 8, 23], [0, -24, -25], [held.min, held.min + 1, held.max]):
            given = {"x": np.array(row, dtype)}
            np.testing.assert_array_equal(runner(given)["y"], plain(model, wanted, given)["y"])


def test_sums_of_whole_numbers_wrap_around(engine, made):
    wanted = made("sum", lambda tf, x: tf.reduce_sum(x) + x, "int32")
    runner, held = engine("sum").runner(wanted), np.iinfo("int32")
    half = held.max // 2
    for row in ([1, 2, 3], [held.max, held.max, held.max], [held.min, -1, held.min], [half, half, 9]):
        given = {"x": np.array(row, np.int32)}
        np.testing.assert_array_equal(runner(given)["y"], plain("sum", wanted, given)["y"])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_no_class_is_zeros(engine, made, where, dtype):
    """ONNX counts -1 from the last class."""

    def coded(x):
        import tensorflow as tf

        return x + tf.cast(tf.argmax(tf.one_hot(x, 3) * [1.0, 2.0, 3.0] + 0.5, -1), dtype) - 1

    model = f"onnx_coded_{where}_{dtype}"
    wanted = made(model, (lambda tf, x: tf.one_hot(x, 3)) if where == "outside" else in_a_loop(coded), dtype)
    given = {"x": np.array([-1, 2, 3], dtype)}
    agree(plain(model, wanted, given), engine(model).runner(wanted)(given))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int32", [16777217, 16777216, -(1 << 31)]),
        ("int64", [(1 << 40) + 1, 1 << 40, -5]),
        ("float64", [1 + 1e-12, 1, 2]),
    ],
)
def test_the_best_are_found_in_their_own_type(engine, made, dtype, values):
    """As float32 the first two were one number."""

    def best(tf, x):
        return tf.nn.top_k(x, 2).values[0] + tf.sort(x)

    model, given = f"onnx_best_{dtype}", {"x": np.array(values, dtype)}
    wanted = made(model, best, dtype)
    found = engine(model).runner(wanted)(given)
    np.testing.assert_array_equal(found["y"], plain(model, wanted, given)["y"])


def test_indices_that_tensorflow_refuses_are_declined(engine):
    """ONNX counts negative indices from the end of the table."""
    runner = engine("sequence").runner(target("sequence", "serving_default", "t1", 1))
    for tokens in ([[-1, 3]], [[3, 50]]):
        with pytest.raises(Declined, match=r"ONNX Runtime: .*indices") as declined:
            runner({"tokens": np.array(tokens, np.int32)})
        assert declined.value.code == "INVALID_ARGUMENT"


def table(tf, x):
    return tf.gather(tf.constant([10.0, 20.0, 30.0]), x)


@pytest.mark.parametrize(
    ("name", "compute", "dtype", "right", "wrong"),
    [
        ("shifted", lambda tf, x: table(tf, x - 1), "int32", [1, 2, 3], [1, 2, 0]),
        ("product", lambda tf, x: table(tf, x * x - 1), "int64", [1, -1, 2 - 1], [1, 1, 0]),
        ("clipped", lambda tf, x: table(tf, tf.minimum(x, 2)), "int64", [1, 9, 0], [1, 9, -1]),
        ("columns", lambda tf, x: tf.gather_nd(tf.constant([1.0, 2.0]), x[:, None] - 5), "int32", [5, 6, 5], [5, 6, 4]),
        ("of_floats", lambda tf, x: table(tf, tf.cast(tf.round(x), tf.int32)), "float32", [0, 1.2, 2], [0, 1, -0.7]),
    ],
)
def test_computed_indices_below_zero_are_declined(engine, made, name, compute, dtype, right, wrong):  # noqa: PLR0917
    wanted, model = made(f"onnx_{name}", compute, dtype), f"onnx_{name}"
    runner, given = engine(model).runner(wanted), {"x": np.array(right, dtype)}
    agree(plain(model, wanted, given), runner(given))
    with pytest.raises(Declined, match=r"ONNX Runtime: .*(indices|index)"):
        runner({"x": np.array(wrong, dtype)})


def test_many_threads_share_a_session(engine):
    prepared, calls = engine("recurrent"), []
    for batch in (1, 4, 4):
        wanted = target("recurrent", "serving_default", "t2", batch)
        given = feeds(wanted, seed=batch)
        expected, runner = plain("recurrent", wanted, given), prepared.runner(wanted)
        calls += [lambda r=runner, g=given, e=expected: agree(e, r(g))] * 2
    hammer(calls)


def test_a_call_lets_other_threads_run(engine):
    wanted = target("cnn", "serving_default", "t1", 256)
    runner, given = engine("cnn").runner(wanted), feeds(wanted)
    assert steps_of_another_thread(lambda: runner(given)) > 0


def test_outputs_can_be_asked_for_by_name(engine):
    wanted = target("multi", "serving_default", "t1", 2)
    runner = engine("multi").runner(wanted)
    assert list(runner(feeds(wanted), ["product"])) == ["product"]


def test_a_model_is_asked_for_and_a_missing_file_named(tmp_path):
    wanted = target("cnn", "serving_default", "t1", 1)
    worker = onnxruntime.Worker()
    worker.open(place("cnn", tmp_path))
    with pytest.raises(NeedsConversion, match="there is no ONNX model yet"):
        worker.prepare(wanted)
    opener = onnxruntime.Opener(place("cnn", tmp_path), None)
    with pytest.raises(FileNotFoundError, match=r"s0/onnxruntime/model\.json"):
        opener.runner(Target(wanted.signature, "t1", wanted.shapes, "s0/onnxruntime"), print)


@pytest.mark.slow
def test_it_wins_a_recurrent_model_and_is_served_without_tensorflow(savedmodel, tmp_path):
    """LiteRT cannot take the loop; OpenVINO is out here, as it may or may not leave TensorFlow behind."""
    flags = OptimizerFlags(allowed_batch_sizes=(1, 4), engines=("litert", "onnxruntime"))
    job = OptimizeJob(
        savedmodel("recurrent"), tmp_path / "a", ("serve",), flags, {"serving_default": ({"tokens": TOKENS},)}, "warmup"
    )
    plan = optimize(job, lambda _: None)
    assert {b.engine for b in plan.signature("serving_default").buckets} == {"onnxruntime"}
    assert plan.weights_bytes > 0
    code = """
import json, sys
from pathlib import Path
import numpy as np
from tfopt_optimizer import plan as plans
from tfopt_optimizer.servable import Servable
servable = Servable.open(Path(sys.argv[1]), Path(sys.argv[2]), plans.read(Path(sys.argv[2])))
answer = servable.signatures["serving_default"].run({"tokens": np.load(sys.argv[3])})
heavy = [m for m in ("tensorflow", "onnx", "tf2onnx") if m in sys.modules]
print(json.dumps({"scores": answer["scores"].tolist(), "heavy": heavy}))
"""
    np.save(tmp_path / "tokens.npy", TOKENS)
    arguments = [str(job.model_dir), str(tmp_path / "a"), str(tmp_path / "tokens.npy")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, check=True)
    told = json.loads(done.stdout)
    assert told["heavy"] == []
    servable = Servable.open(job.model_dir, tmp_path / "a", plan)
    expected = plain("recurrent", target("recurrent", "serving_default", "t1", 9), {"tokens": TOKENS})
    np.testing.assert_allclose(told["scores"], expected["scores"], rtol=1e-4)
    np.testing.assert_allclose(servable.signatures["serving_default"].run({"tokens": TOKENS})["scores"], told["scores"])
    servable.close()


@pytest.mark.slow
def test_it_is_not_converted_to_where_another_engine_leaves_tensorflow_behind(savedmodel, tmp_path, monkeypatch):
    monkeypatch.setattr("tfopt_optimizer.contest.SERVED", 0.0)
    samples = {"serving_default": ({"features": np.ones([4, 32], np.float32)},)}
    flags = OptimizerFlags(allowed_batch_sizes=(1,), engines=("litert", "onnxruntime"))
    plan = optimize(
        OptimizeJob(savedmodel("mlp_keras"), tmp_path / "plan", ("serve",), flags, samples, "warmup"), lambda _: None
    )
    (bucket,) = plan.signature("serving_default").buckets
    tried = {c.status: c.reason for c in bucket.candidates if c.engine == "onnxruntime"}
    assert list(tried) == ["skipped"]
    assert re.fullmatch(r"not converted: litert/t\d is [\d.]+x faster than plain TF already", tried["skipped"])
