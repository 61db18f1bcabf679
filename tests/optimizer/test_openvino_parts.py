"""The openvino engine's batches that run as parts side by side, and the variants of one bucket beside each other."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from enginecases import Prepared, agree, feeds, hammer, plain, save, target
from tfopt_optimizer import saved_model
from tfopt_optimizer.engines import openvino, openvino_freeze
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.errors import Declined

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def engine(tmp_path):
    return lambda name: Prepared(name, tmp_path / name, openvino.Worker(), openvino_freeze.Converter)


@pytest.mark.parametrize(("variant", "rows"), [("f32-s2", 1), ("f32-s2", 4), ("f32-s2", 5), ("f32-s2p1", 6)])
def test_a_batch_runs_as_parts_side_by_side(engine, variant, rows):
    """Where the rows divide; else whole on one stream. Calls at the same time do not mix."""
    wanted, prepared = dataclasses.replace(target("cnn", "serving_default", variant, rows), rows=rows), engine("cnn")
    runner, batches = prepared.runner(wanted), [feeds(wanted, seed) for seed in range(4)]
    expected = [plain("cnn", wanted, given) for given in batches]
    hammer([functools.partial(_agrees, runner, *pair) for pair in zip(batches, expected, strict=True)])


def test_parts_are_equal_shares_or_single_rows():
    four = dataclasses.replace(target("cnn", "serving_default", "f32-s2", 4), rows=4)
    assert openvino.parts(four)["image"][0] == 2
    assert openvino.parts(dataclasses.replace(four, variant="f32-s2p1"))["image"][0] == 1
    assert openvino.parts(dataclasses.replace(four, variant="f32"))["image"][0] == 4
    assert [openvino.streams_of(v) for v in ("f32", "bf16", "f32-blocked", "f32-s2", "f32-s2p1", "f32-blocked-s2")] == [
        *(1, 1, 1, 2, 2, 2)
    ]


@pytest.mark.parametrize("variant", ["f32", "f32-s2", "f32-s2p1"])
def test_one_open_model_takes_fewer_rows_and_shorter_ones_as_they_are(engine, variant):
    """At the same time too: nothing of one call is left in another's."""
    prepared, wanted = engine("sequence"), target("sequence", "serving_default", variant, 6)
    wanted = dataclasses.replace(wanted, rows=6, varying=True, open=True)
    runner = prepared.runner(wanted)
    assert prepared.prepared.any_rows
    asked = [_of_shape(wanted, rows, length, seed=rows) for rows, length in [(6, 5), (1, 5), (5, 3), (2, 1), (3, 4)]]
    expected = [plain("sequence", wanted, given) for given in asked]
    hammer([functools.partial(_agrees, runner, *pair) for pair in zip(asked, expected, strict=True)])
    (compiled,) = prepared.worker._device.model("s0/openvino")._compiled
    assert compiled[1] == (("tokens", (-1, -1)),)


def test_rows_of_any_shapes_run_side_by_side(engine):
    """All in the same runner, more than it has requests too, and beside whole batches."""
    prepared, wanted = engine("sequence"), target("sequence", "serving_default", "f32-s2p1", 4)
    wanted = dataclasses.replace(wanted, rows=4, varying=True, open=True)
    runner = prepared.runner(wanted)
    longer = dataclasses.replace(wanted, shapes={"tokens": (4, 9)}, folder="s0/b4x9")
    assert prepared.runner(longer) is runner
    assert runner.streams == 2
    calls = [_of_shape(wanted, 1, length, seed=length) for length in (9, 1, 5, 7, 5, 2, 8, 3, 4, 6)]
    expected = [plain("sequence", wanted, given) for given in calls]

    def each():
        for found, known in zip(runner.each(calls), expected, strict=True):
            agree(known, found)
        assert [sorted(found) for found in runner.each(calls[:2], ["pooled"])] == [["pooled"]] * 2

    batch = _of_shape(wanted, 3, 6, seed=0)
    hammer([each, each, functools.partial(_agrees, runner, batch, plain("sequence", wanted, batch))])
    assert not hasattr(prepared.runner(dataclasses.replace(wanted, variant="f32")), "each")


def _of_shape(wanted, rows, length, seed):
    shapes = {name: (rows, length, *shape[2:]) for name, shape in wanted.shapes.items()}
    return feeds(dataclasses.replace(wanted, shapes=shapes), seed)


def test_a_model_that_is_not_open_refuses_other_shapes(engine):
    wanted = target("sequence", "serving_default", "f32", 6)
    runner = engine("sequence").runner(wanted)
    with pytest.raises(Declined):
        runner(_of_shape(wanted, 5, 5, seed=0))


def test_what_is_not_rows_is_not_cut_into_parts(engine, tmp_path):
    """Half of the scales went to each half of the rows, or nothing to the second: "could not broadcast input array"."""

    def compute(tf, module, x, scale, one):
        return {"y": x * tf.reduce_sum(scale) + one, "sum": tf.reduce_sum(scale, keepdims=True)}

    save(tmp_path / "scaled", compute, x=([None, 3], "float32"), scale=([4], "float32"), one=([1], "float32"))
    worker = openvino.Worker()
    worker.open(Place(tmp_path / "scaled", tmp_path / "plan", ("serve",), 2, 2))
    (info,) = saved_model.read_signatures(tmp_path / "scaled")
    wanted = Target(info, "f32-s2", {"x": (4, 3), "scale": (4,), "one": (1,)}, "s0/b4", 4)
    assert openvino.parts(wanted) is wanted.shapes
    worker.prepare(wanted)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = worker.runner(wanted)({"x": x, "scale": np.float32([1, 2, 3, 4]), "one": np.float32([1])})
    np.testing.assert_array_equal(found["y"], x * 10 + 1)
    np.testing.assert_array_equal(found["sum"], [10])


def _agrees(runner, given, expected):
    agree(expected, runner(given))


def test_both_variants_of_a_bucket_are_there_at_a_time(engine):
    one = dataclasses.replace(target("cnn", "serving_default", "f32", 4), rows=4)
    two, prepared = dataclasses.replace(one, variant="f32-s2"), engine("cnn")
    prepared.check(one)
    runner = prepared.check(two)
    prepared.worker.release(one)
    given = feeds(one, 7)
    agree(plain("cnn", two, given), runner(given))
    prepared.worker.release(two)
    assert prepared.worker._device.model("s0/openvino")._compiled == {}


def test_a_part_that_is_declined_declines_the_batch_and_harms_no_later_one(engine, tmp_path):
    save(tmp_path / "gather", lambda tf, module, x: {"y": tf.gather(tf.range(9.0), x)}, x=([None], "int32"))
    worker = openvino.Worker()
    worker.open(Place(tmp_path / "gather", tmp_path / "plan", ("serve",), 2, 2))
    (info,) = saved_model.read_signatures(tmp_path / "gather")
    wanted = Target(info, "f32-s2", {"x": (4,)}, "s0/b4", 4)
    worker.prepare(wanted)
    runner = worker.runner(wanted)
    with pytest.raises(Declined):
        runner({"x": np.array([0, 1, 2, 99], np.int32)})
    assert runner({"x": np.array([0, 1, 2, 3], np.int32)})["y"].tolist() == [0, 1, 2, 3]
