"""Requests at the edges of what a model is asked, and candidates that fall there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from enginecases import save
from tfopt_optimizer import edges, testing, verify
from tfopt_optimizer.edges import Edge, Question
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize

GATE = verify.Gate(verify.lossless(1e-4))
BASE = {
    "ids": np.array([[5, 0]]),
    "mask": np.array([[1, 0]]),
    "seen": np.array([[True]]),
    "x": np.array([[3.0]], np.float32),
    "word": np.array([[b"a"]], object),
}


def told(found):
    """What stands in each edge, and what it is called."""
    return [(e.what, {n: e.feeds[n].ravel().tolist() for n in ("ids", "mask", "seen", "x")}, e.same) for e in found]


def test_masks_and_numbers_are_taken_to_their_edges_and_words_stay():
    found = edges.edges(BASE, [BASE])
    assert told(found) == [
        ("an empty mask", {"ids": [5, 0], "mask": [0, 0], "seen": [False], "x": [3.0]}, True),
        ("zeros", {"ids": [5, 0], "mask": [1, 0], "seen": [True], "x": [0.0]}, False),
        ("zeros alone", {"ids": [0, 0], "mask": [0, 0], "seen": [False], "x": [0.0]}, False),
        ("numbers far from all records", {"ids": [5, 0], "mask": [1, 0], "seen": [True], "x": [40000.0]}, False),
    ]
    assert [e.far for e in found] == [False, False, False, True]
    assert all(e.feeds["word"] is BASE["word"] for e in found)


def test_what_counts_further_than_one_in_any_record_is_no_mask():
    counted = {**BASE, "mask": np.array([[2, 0]])}
    assert [e.what for e in edges.edges({"mask": BASE["mask"]}, [BASE])] == ["an empty mask"]
    assert [e.what for e in edges.edges({"mask": BASE["mask"]}, [BASE, counted])] == ["zeros alone"]
    assert edges.edges({"mask": BASE["mask"] * 0}, [{"mask": BASE["mask"] * 0}]) == []


def test_numbers_go_below_zero_where_records_are():
    x = np.array([[3.0, -1.0, 0.0]], np.float32)
    found = edges.edges({"x": x}, [{"x": x}, {"x": np.array([[1, 2, -2], [-3, 2, 0]], np.float32)}])
    assert [e.feeds["x"].tolist() for e in found if e.far] == [[[4e4, -2e4, 1e4]], [[-4e4, 2e4, -1e4]]]
    assert [e.feeds["x"].tolist() for e in edges.edges({"x": np.array(3.0)}, [{"x": np.array(-1.0)}]) if e.far] == [
        4e4, -4e4,
    ]  # fmt: skip


def test_edges_are_rows_of_calls_or_calls_of_their_own():
    found = [Edge(str(n), {"x": np.array([n])}) for n in range(3)]
    asked = [(q.feeds["x"].tolist(), [e.what for e in q.rows], q.whole) for q in edges.questions(found, 2)]
    assert asked == [([0, 1], ["0", "1"], False), ([2, 0], ["2"], False)]
    assert [(q.feeds["x"].tolist(), q.whole) for q in edges.questions(found, None)] == [([n], True) for n in range(3)]
    assert list(edges.questions([], 4)) == []


def test_a_slow_model_is_asked_about_fewer():
    times = iter([0.0, 1.0, 2.9, 3.1, 9.0])
    assert list(edges.within([1, 2, 3, 4], lambda: next(times))) == [1, 2, 3]


ZEROS, EMPTY, FAR = Edge("zeros", {}), Edge("an empty mask", {}, same=True), Edge("far", {}, far=True)


@pytest.mark.parametrize(
    ("edge", "expected", "found", "wrong"),
    [
        (ZEROS, [1.0, 2.0], [1.0, np.nan], "for zeros: output 'y' has nan at [0, 1], plain TensorFlow 2.0"),
        (ZEROS, [1.0, 2.0], [1.0, 3.0], ""),
        (ZEROS, [np.nan, np.inf], [0.0, np.nan], ""),
        (EMPTY, [0.0, 0.0], [0.0, 0.1], "for an empty mask: max error 0.01 is above 0.0001"),
        (EMPTY, [0.0, 0.0], [0.0, 1e-5], ""),  # records have 10
        (EMPTY, [np.nan, 0.0], [0.0, 0.1], ""),  # TensorFlow has no answer itself
        (FAR, [1.0, 2.0], [1.0, np.inf], "for far: output 'y' has inf at [0, 1], plain TensorFlow 2.0"),
    ],
)
def test_a_number_is_answered_with_a_number(edge, expected, found, wrong):
    """In the second row of a call."""
    asked = Question({}, (ZEROS, edge), whole=False)
    given = [{"y": np.array([[7.0, 7.0], answer], np.float32)} for answer in (expected, found)]
    beside = {"y": np.array([[10.0, 1.0]], np.float32)}
    assert edges.mistake(asked, *given, GATE, beside) == wrong
    lossy = wrong if edge == ZEROS else ""
    assert edges.mistake(asked, *given, None, beside) == lossy


def test_a_call_is_looked_at_as_a_whole_where_rows_are_not_independent():
    asked = Question({}, (EMPTY,), whole=True)
    right, wrong = {"y": np.array(2.0), "n": np.array([1, 2])}, {"y": np.array(2.1), "n": np.array([1, 2])}
    assert edges.mistake(asked, right, right, GATE, {}) == ""
    assert edges.mistake(asked, right, wrong, GATE, {}).startswith("for an empty mask: output 'y': max error")


def halved(tf, module, x):
    return {"y": x / 2.0 + 2.0}


def largest_if_any(tf, module, x, mask):
    found = tf.reduce_max(tf.where(mask > 0, x @ WEIGHTS, -np.inf), -1)
    return {"y": tf.where(tf.math.is_inf(found), 0.0, found)}


WEIGHTS = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)


@pytest.mark.tensorflow
def test_an_engine_that_falls_at_an_empty_mask_is_found_out(tmp_path, monkeypatch):
    """OpenVINO's maximum of nothing but -infinity is -3.4e38, and no record is without a mask."""
    monkeypatch.setattr("tfopt_optimizer.measure.ROUNDS", 2)
    save(tmp_path / "model", largest_if_any, x=([None, 8], "float32"), mask=([None, 8], "int32"))
    given = {
        "x": np.random.default_rng(1).standard_normal((9, 8)).astype(np.float32),
        "mask": np.ones((9, 8), np.int32),
    }
    flags = OptimizerFlags(allowed_batch_sizes=(1, 4), engines=("litert", "openvino"), optimize_budget_s=600.0)
    job = OptimizeJob(tmp_path / "model", tmp_path / "plan", ("serve",), flags, {"serving_default": (given,)}, "warmup")
    plan = optimize(job, lambda _: None)
    for bucket in plan.signature("serving_default").buckets:
        found = {f"{c.engine}/{c.variant}": (c.status, c.reason) for c in bucket.candidates}
        assert found["openvino/f32"][0] == "rejected"
        assert found["openvino/f32"][1].startswith("for an empty mask: max error ")
        assert found["litert/t1"][0] in ("chosen", "slower")


@pytest.mark.tensorflow
@pytest.mark.parametrize("batches", [(1, 4), (4,)])
def test_who_has_no_number_for_zeros_is_out_in_all_buckets(tmp_path, monkeypatch, batches):
    """It was chosen as long as candidates were asked about records alone. Its calls with rows enough come later."""
    monkeypatch.setattr("tfopt_optimizer.measure.ROUNDS", 2)
    save(tmp_path / "model", halved, x=([None, 2], "float32"))
    samples = {"serving_default": ({"x": np.array([[1, 2], [3, 4], [5, 6]], np.float32)},)}
    flags = OptimizerFlags(allowed_batch_sizes=batches)
    job = OptimizeJob(tmp_path / "model", tmp_path / "plan", ("serve",), flags, samples, "warmup")
    later = dataclasses.replace(testing.planted("NoneOfZero"), engine="later", rows=2)
    lossy = dataclasses.replace(testing.planted("NoneOfZero"), engine="lossy", precision="int8")
    names = ("Right", "NoneOfZero", "NoneBeyond")
    plan = optimize(job, lambda _: None, entrants=[*map(testing.planted, names), later, lossy])
    signature = plan.signature("serving_default")
    assert signature.row_independent
    zeros = "for zeros: output 'y' has nan at [0, 0], plain TensorFlow 2.0"
    for bucket in signature.buckets:
        found = {c.engine: (c.status, c.reason) for c in bucket.candidates if c.variant == "planted"}
        assert found.pop("right")[0] in ("chosen", "slower")
        assert found.pop("nonebeyond")[1].startswith("for numbers far from all records: output 'y' has inf at [0, 0]")
        assert found == {
            "noneofzero": ("rejected", zeros),
            "lossy": ("rejected", zeros),
            "later": ("rejected", zeros) if bucket.batch > 1 else ("skipped", "for batches of 2 rows or more"),
        }
