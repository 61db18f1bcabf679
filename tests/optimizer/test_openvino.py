"""The openvino engine: what it reads by itself, what it has frozen for it, what it refuses, and that it keeps quiet."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from enginecases import Prepared, agree, feeds, hammer, place, plain, save, steps_of_another_thread, target
from paced import PLAIN_US, paced
from tfopt_optimizer.engines import openvino, openvino_freeze
from tfopt_optimizer.engines.base import Target
from tfopt_optimizer.errors import Declined, NeedsConversion, NotLowerable
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def engine(tmp_path):
    return lambda name: Prepared(name, tmp_path / name, openvino.Worker(), openvino_freeze.Converter)


@pytest.mark.parametrize(
    ("name", "key", "frozen"),
    [
        ("cnn", "serving_default", 0),
        ("multi", "serving_default", 0),
        ("scalar", "serving_default", 0),
        ("sequence", "serving_default", 0),
        ("no_batch_outputs", "serving_default", 0),
        ("mlp_keras_saved", "serving_default", 0),
        ("half_plus_two_v1", "serving_default", 1),  # its other signatures confuse OpenVINO's reader
        ("shared", "v2/top:1", 1),  # not serving_default
    ],
)
def test_a_signature_is_read_once_and_answers_as_plain_tensorflow_does(engine, name, key, frozen):
    prepared = engine(name)
    for batch in (1, 3, 8):
        prepared.check(target(name, key, "f32", batch), seed=batch)
    assert prepared.converted == frozen
    assert prepared.prepared.artifact == "s0/openvino"
    assert sorted(p.name for p in (prepared.place.plan_dir / "s0" / "openvino").iterdir()) == ["model.bin", "model.xml"]


def test_large_models_share_one_compiled_model(engine, monkeypatch):
    monkeypatch.setattr(openvino, "SHARED_ABOVE", 0)
    prepared = engine("cnn")
    first, second = (prepared.check(target("cnn", "serving_default", "f32", batch)) for batch in (2, 5))
    model = prepared.worker._device.model("s0/openvino")
    assert list(model._compiled) == [("f32", (("image", (-1, 16, 16, 3)),))]
    prepared.worker.release(target("cnn", "serving_default", "f32", 2))
    given = feeds(target("cnn", "serving_default", "f32", 5))
    agree(plain("cnn", target("cnn", "serving_default", "f32", 5), given), second(given))
    first.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("strings", "input 'text' is of type string, which OpenVINO has no exact form of"),
        ("dtypes", "input 'f64' is of type double, which OpenVINO has no exact form of"),
    ],
)
def test_types_without_an_exact_form_are_refused(engine, name, reason):
    with pytest.raises(NotLowerable) as refused:
        engine(name).runner(target(name, "serving_default", "f32", 1))
    assert str(refused.value) == reason


def test_what_freezing_does_not_cure_is_refused_with_openvinos_reason(engine):
    with pytest.raises(NotLowerable, match="VariableV2: Variable or resource `a` is not initialized"):
        engine("half_plus_two_v1_ref").runner(target("half_plus_two_v1_ref", "serving_default", "f32", 1))


def test_a_graph_is_asked_for_with_the_reason(tmp_path):
    worker = openvino.Worker()
    worker.open(place("shared", tmp_path))
    with pytest.raises(NeedsConversion, match="OpenVINO reads serving_default alone"):
        worker.prepare(target("shared", "embed", "f32", 1))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """made(name, compute, dtype): a model of one integer input x and the output y = compute(tf, x)."""

    def save_and_aim(name, compute, dtype="int64"):
        save(tmp_path / name, lambda tf, module, x: {"y": compute(tf, x)}, x=([None], dtype))
        monkeypatch.setattr("savedmodels.path", lambda wanted: tmp_path / wanted)
        return target(name, "serving_default", "f32", 3)

    return save_and_aim


def looked_up(tf, x):
    return tf.gather(tf.constant([10.0, 20.0]), x)


def hashed(tf, x):
    return tf.math.floormod(tf.abs(x) * 40503, 97)


def lengths(tf, x):
    return tf.reduce_sum(tf.cast(tf.stack([x, x - 5], 1) != 1, tf.int64), 1)


def positions(tf, x):
    """As RoBERTa counts the words that are there: from 1 on, 0 for padding."""
    there = tf.cast(tf.stack([x, x + 1], 1) != 1, tf.int64)
    return tf.reduce_sum(tf.gather(tf.constant([9.0, 1.0, 2.0]), tf.cumsum(there, 1) * there), 1)


def bucketized(tf, x):
    return looked_up(tf, tf.raw_ops.Bucketize(input=x, boundaries=[3.0]))


LIMITED = {
    "clipped": (lambda tf, x: tf.minimum(x, 7), "int64"),
    "looked_up": (looked_up, "int32"),
    "cast": (lambda tf, x: looked_up(tf, tf.cast(x, tf.int32)), "int64"),
    "keras": (lambda tf, x: looked_up(tf, tf.where(x < 0, x + 2, x)), "int32"),
    "keras64": (lambda tf, x: looked_up(tf, tf.where(x < 0, x + 2, x)), "int64"),
    "shifted": (lambda tf, x: looked_up(tf, x - 1), "int64"),
    "doubled": (lambda tf, x: looked_up(tf, x * 2), "int64"),
    "held": (lambda tf, x: looked_up(tf, tf.clip_by_value(x, 0, 1)), "int32"),
    "of_floats": (lambda tf, x: looked_up(tf, tf.cast(x, tf.int32)), "float32"),
    "hashed": (hashed, "int64"),
    "summed": (lambda tf, x: x + 7, "int64"),
    "twice": (lambda tf, x: x - -x, "int64"),
    "squared": (lambda tf, x: x * x, "int32"),
    "halved": (lambda tf, x: x // 2, "int32"),
    "same": (lambda tf, x: tf.cast(tf.equal(x, x - 1), tf.int32), "int32"),
    "handed_on": (lambda tf, x: tf.reshape(x, [-1]), "int64"),
    "lengths": (lengths, "int64"),
    "positions": (positions, "int64"),
    "bucketized": (bucketized, "int32"),
    "remainder": (lambda tf, x: looked_up(tf, x % 2), "int64"),
    "days": (lambda tf, x: x % 31, "int32"),
}
INT32, EXACT = "-2147483648 to 2147483647", "-16777216 to 16777216"


@pytest.mark.parametrize(
    ("name", "right", "outside", "bounds"),
    [
        ("clipped", {-5: -5, 1 << 24: 7}, [(1 << 24) + 1, 1 << 40], EXACT),
        ("looked_up", {0: 10, 1: 20}, [2, -1], "0 to 1"),
        ("cast", {1: 20}, [2], "0 to 1"),
        ("keras", {-2: 10, 1: 20}, [2, -3], "-2 to 1"),
        ("keras64", {-2: 10, 1: 20}, [2, -3, 1 << 32], "-2 to 1"),
        ("shifted", {1: 10, 2: 20}, [0, 3], "1 to 2"),
        ("doubled", {0: 10}, [1, -1], "0 to 0"),
        ("held", {9: 20, -9: 10}, [], ""),
        ("of_floats", {1: 20, 0.5: 10}, [2, -1, float("nan")], "0 to 1"),
        ("hashed", {0: 0, 1: 40503 % 97, -414: 414 * 40503 % 97}, [415, -415], "-414 to 414"),
        ("summed", {0: 7, (1 << 24) - 7: 1 << 24}, [(1 << 24) - 6, -(1 << 31)], "-16777216 to 16777209"),
        ("twice", {3: 6, -(1 << 23): -(1 << 24)}, [(1 << 23) + 1], "-8388608 to 8388608"),
        ("squared", {3: 9, -4096: 1 << 24}, [4097], "-4096 to 4096"),
        ("halved", {-3: -2, 1 << 24: 1 << 23}, [(1 << 24) + 1], EXACT),
        ("same", {5: 0}, [(1 << 24) + 1], "-16777215 to 16777216"),
        ("handed_on", {-(1 << 31): -(1 << 31), 16777217: 16777217}, [1 << 31], INT32),
        ("lengths", {0: 2, 1: 1, 6: 1}, [-(1 << 31)], "-16777211 to 16777216"),
        ("positions", {0: 10, 3: 3, 1: 10}, [], ""),
        ("bucketized", {-7: 10, 3: 20, 1 << 30: 20}, [], ""),
        ("remainder", {7: 20, -2: 10}, [1 << 32], "-16777214 to 16777216"),
        ("days", {-16777185: 15, 40: 9}, [-16777186, -(1 << 24)], "-16777185 to 16777216"),
    ],
)
def test_values_that_openvino_treats_otherwise_are_declined(engine, made, name, right, outside, bounds):  # noqa: PLR0917
    """It holds int64 in 32 bits, computes integers in floats where it likes to, and gives zeros for what is not in a
    table."""
    model, dtype = f"openvino_{name}", LIMITED[name][1]
    wanted = made(model, *LIMITED[name])
    runner = engine(model).runner(wanted)
    least = min(right, key=abs)
    for value, expected in right.items():
        given = {"x": np.array([least, least, value], dtype)}
        assert runner(given)["y"][2] == expected
        agree(plain(model, wanted, given), runner(given))
    for value in outside:
        with pytest.raises(Declined, match=f"input 'x' has values outside {bounds}$"):
            runner({"x": np.array([least, least, value], dtype)})


@pytest.mark.parametrize(
    ("name", "compute", "dtype", "reason"),
    [
        ("product", lambda tf, x: x * tf.reverse(x, [0]), "int64", r"that may be large \(Multiply\)"),
        ("rounded", lambda tf, x: tf.cast(tf.round(x * 1e9), tf.int64), "float32", r"that may be large \(Convert\)"),
        ("far", lambda tf, x: looked_up(tf, tf.cast(tf.round(x), tf.int32)), "float32", "computes from its inputs"),
        ("best", lambda tf, x: looked_up(tf, tf.argmax(tf.stack([x, x + 1, -x], 1), 1)), "float32", "it computes from"),
        (
            "many",
            lambda tf, x: tf.gather_nd(tf.constant([1.0, 2.0]), tf.abs(x * 2 - x)[:, None]),
            "int32",
            "computes from its",
        ),
    ],
)
def test_what_no_limit_of_an_input_covers_is_refused(engine, made, name, compute, dtype, reason):  # noqa: PLR0917
    wanted = made(f"openvino_{name}", compute, dtype)
    with pytest.raises(NotLowerable, match=reason):
        engine(f"openvino_{name}").runner(wanted)


def test_the_best_of_as_many_as_a_table_has_needs_no_limit(engine, made):
    wanted = made("openvino_best", lambda tf, x: looked_up(tf, tf.argmax(tf.stack([x, -x], 1), 1)), "float32")
    assert engine("openvino_best").runner(wanted)({"x": np.array([3, -2, 1e9], np.float32)})["y"].tolist() == [
        10,
        20,
        10,
    ]


def test_columns_are_held_to_their_own_tables(engine, tmp_path, monkeypatch):
    tables = [np.arange(100, dtype=np.float32), np.arange(7, dtype=np.float32)]

    def serve(tf, module, x):
        first, second, _ = tf.unstack(x, axis=1)
        return {"y": tf.gather(tables[0], first) + tf.gather(tables[1], second) + tf.gather(tables[0], x[..., -1] + 1)}

    save(tmp_path / "openvino_columns", serve, x=([None, 3], "int64"))
    monkeypatch.setattr("savedmodels.path", lambda wanted: tmp_path / wanted)
    runner = engine("openvino_columns").runner(target("openvino_columns", "serving_default", "f32", 2))
    assert runner({"x": np.array([[99, 6, 98], [0, 0, -1]])})["y"].tolist() == [204, 0]
    for where, value in (((0, 0), 100), ((0, 1), 7), ((1, 2), 99), ((1, 2), -2)):
        wrong = np.array([[99, 6, 98], [0, 0, -1]])
        wrong[where] = value
        with pytest.raises(Declined, match=r"input 'x' \(axis"):
            runner({"x": wrong})


def test_a_length_that_a_bucket_has_tells_how_long_a_table_is(engine, tmp_path, monkeypatch):
    """Positions that are counted, and the word at a place that is sent, in sequences of any length."""
    table = np.arange(14, dtype=np.float32).reshape(7, 2)

    def serve(tf, module, tokens, place):
        there = tf.cast(tokens != 1, tf.int64)
        positions = tf.gather(table, tf.cumsum(there, 1) * there + 1)
        return {"y": tf.gather(positions, place - 1, batch_dims=1, axis=1)}

    save(tmp_path / "openvino_length", serve, tokens=([None, None], "int64"), place=([None], "int32"))
    monkeypatch.setattr("savedmodels.path", lambda wanted: tmp_path / wanted)
    prepared, wanted = engine("openvino_length"), target("openvino_length", "serving_default", "f32", 2)
    runner, right = (
        prepared.runner(wanted),
        {"tokens": np.array([[5, 1, 5, 5, 5]] * 2), "place": np.array([1, 5], np.int32)},
    )
    agree(plain("openvino_length", wanted, right), runner(right))
    for outside in (0, 6):
        with pytest.raises(Declined, match="'place' has values outside 1 to 5"):
            runner({**right, "place": np.array([1, outside], np.int32)})
    longer = dataclasses.replace(wanted, shapes={"tokens": (2, 7), "place": (2,)}, folder="s0/b2x7")
    with pytest.raises(NotLowerable, match="looks up what it computes"):
        prepared.runner(longer)
    with pytest.raises(
        NotLowerable, match=r"a table per row .* wrongly for one row"
    ):  # it crashes, or answers anything
        prepared.runner(target("openvino_length", "serving_default", "f32", 1))


@pytest.mark.slow
def test_columns_of_ids_take_part_in_batches(tmp_path):
    """The rows that are put beside a record must be such that the model takes them."""
    tables = [np.arange(2000, dtype=np.float32).reshape(1000, 2), np.arange(10, dtype=np.float32).reshape(5, 2)]

    def serve(tf, module, ids):
        return {"y": tf.gather(tables[0], ids[:, 0]) * tf.gather(tables[1], ids[:, 1])}

    save(tmp_path / "m", serve, ids=([None, 2], "int64"))
    samples = {"serving_default": ({"ids": np.array([[700, 4], [800, 1], [900, 0], [999, 2]])},)}
    flags = OptimizerFlags(allowed_batch_sizes=(4,), engines=("openvino",))
    job = OptimizeJob(tmp_path / "m", tmp_path / "plan", ("serve",), flags, samples, "warmup")
    with paced(lambda label: PLAIN_US / 10 if label == "openvino/f32" else PLAIN_US):
        plan = optimize(job, lambda _: None)
    (bucket,) = plan.signature("serving_default").buckets
    assert (bucket.engine, bucket.variant) == ("openvino", "f32")


def test_many_threads_share_a_runner(engine):
    prepared, calls = engine("mlp_keras_saved"), []
    for batch in (1, 4, 4):
        wanted = target("mlp_keras_saved", "serving_default", "f32", batch)
        given = feeds(wanted, seed=batch)
        expected, runner = plain("mlp_keras_saved", wanted, given), prepared.runner(wanted)
        calls += [lambda r=runner, g=given, e=expected: agree(e, r(g))] * 2
    hammer(calls)


def test_a_call_lets_other_threads_run(engine):
    wanted = target("cnn", "serving_default", "f32", 1024)
    runner, given = engine("cnn").runner(wanted), feeds(wanted)
    assert steps_of_another_thread(lambda: runner(given)) > 0


def test_outputs_are_the_callers_own(engine):
    wanted = target("multi", "serving_default", "f32", 2)
    runner = engine("multi").runner(wanted)
    first = runner(feeds(wanted, 1), ["product"])
    kept = first["product"].copy()
    runner(feeds(wanted, 2))
    assert list(first) == ["product"]
    np.testing.assert_array_equal(first["product"], kept)


def test_a_file_that_is_missing_says_so(tmp_path):
    opener, wanted = openvino.Opener(place("cnn", tmp_path), None), target("cnn", "serving_default", "f32", 1)
    with pytest.raises(FileNotFoundError, match=r"s0/openvino/model\.bin"):
        opener.runner(Target(wanted.signature, "f32", wanted.shapes, "s0/openvino"), print)


def test_nobody_is_told_that_openvino_is_used():
    """Importing the package as it is starts a thread that reports to a web service."""
    code = """
import json, sys, threading
from tfopt_optimizer.engines import openvino
openvino.library().Core()
loaded = [m for m in sys.modules if "telemetry" in m or m.split(".")[0] == "tensorflow"]
print(json.dumps({"loaded": loaded, "threads": threading.active_count()}))
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout) == {"loaded": [], "threads": 1}


def test_a_part_that_is_declined_leaves_nothing_behind(engine, made):
    """The parts before it have been started; the next call's answers are its own."""
    rows = dataclasses.replace(made("looked_up", *LIMITED["looked_up"]), variant="f32-s2p1", rows=3)
    runner = engine("looked_up").runner(rows)
    for last in (1, 0) * 20:
        with pytest.raises(Declined, match=r"input 'x' has values outside 0 to 1$"):
            runner({"x": np.array([1, 0, 2], np.int32)})
        found = runner({"x": np.array([0, 1, last], np.int32)})
        np.testing.assert_array_equal(found["y"], [10, 20, 10 + 10 * last])


def test_above_64_mb_one_model_serves_buckets_of_all_rows_and_inner_sizes():
    declared, shape = (None, None, 3), (8, 128, 3)
    assert openvino._dimensions(declared, shape, shared=False, varying=True) == shape
    assert openvino._dimensions(declared, shape, shared=True, varying=False) == (-1, 128, 3)
    assert openvino._dimensions(declared, shape, shared=True, varying=True) == (-1, -1, 3)
    assert openvino._dimensions(None, shape, shared=True, varying=True) == (-1, 128, 3)
    assert openvino._dimensions((1, None), (1, 128), shared=True, varying=False) == (1, 128)
