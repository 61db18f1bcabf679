"""Row independence: models of all kinds, as numpy functions."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer import buckets, independence, verify
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_optimizer.saved_model import State

LOSSLESS = verify.lossless(1e-4)
ONE = np.array([[0.3, 0.1, 0.7, 0.2]], np.float32)
THREE = np.array([[0.3, 0.1], [0.5, 0.9], [0.2, 0.4]], np.float32)


def prove(model, **feeds):
    rows = buckets.stack([feeds], 100)
    assert rows is not None
    return independence.prove(model, rows, LOSSLESS)


def test_a_row_by_row_model_is_independent():
    proof = prove(lambda f: {"y": np.tanh(f["x"]) * 2}, x=THREE)
    assert proof == independence.Proof(True, "3 rows gave the same answer alone, padded, and among others")


BATCH_STATISTICS = {
    "mean": lambda x: x - x.mean(0, keepdims=True),
    "max": lambda x: x / np.abs(x).max(),
    "rank": lambda x: np.argsort(np.argsort(x[:, 0]))[:, None].astype(np.float32),
    "cumulative sum": lambda x: np.cumsum(x, 0),
    "number of rows": lambda x: x * x.shape[0],
    "neighbour": lambda x: x + np.roll(x, 1, 0),
}


@pytest.mark.parametrize("name", BATCH_STATISTICS)
@pytest.mark.parametrize("x", [ONE, THREE], ids=["one record", "three records"])
def test_batch_statistics_are_caught_even_with_one_record(name, x):
    proof = prove(lambda f: {"y": BATCH_STATISTICS[name](f["x"])}, x=x)
    assert not proof.independent
    assert proof.reason.startswith("row 0 ")


def test_an_influence_of_large_values_only_is_caught():
    def clipped(f):
        return {"y": f["x"] + max(f["x"].max() - 1.0, 0.0)}

    assert not prove(clipped, x=ONE).independent


@pytest.mark.parametrize("x", [ONE, THREE], ids=["one record", "three records"])
def test_a_branch_that_the_sum_of_the_batch_decides_is_caught(x):
    assert not prove(lambda f: {"y": f["x"] if f["x"].sum() > 0 else -f["x"]}, x=x).independent
    assert not prove(lambda f: {"y": f["x"] if f["x"].sum() > 0 else -f["x"]}, x=-x).independent


def padded_mean(f):
    """Words padded to the longest text of the batch, and averaged with the padding."""
    words = [text.split() for text in f["text"].ravel()]
    longest = max(map(len, words))
    return {"y": np.array([sum(map(len, each)) / max(longest, 1) for each in words])}


def up_to_the_longest(f):
    """A mask as wide as the batch's largest length."""
    return {"y": (np.arange(f["length"].max()) < f["length"]).astype(np.float32)}


@pytest.mark.parametrize(
    ("model", "feeds"),
    [
        (lambda f: {"y": f["x"] if f["x"].max() < 1000 else 2 * f["x"]}, {"x": THREE}),
        (lambda f: {"y": f["x"] if f["x"].min() > -1000 else 2 * f["x"]}, {"x": THREE}),
        (lambda f: {"y": f["pixels"] / f["pixels"].max()}, {"pixels": np.array([[7, 200, 30]], np.uint8)}),
        (up_to_the_longest, {"x": THREE, "length": np.full((3, 1), 4)}),
        (padded_mean, {"text": np.array([b"one two", b"six ten"], object)}),
    ],
    ids=["a large value", "a small value", "pixels", "lengths", "words"],
)
def test_what_no_record_shows_is_caught_by_rows_far_from_all(model, feeds):
    """All records are alike in what matters: values, lengths, numbers of words."""
    assert not prove(model, **feeds).independent


def test_outputs_without_rows_are_caught():
    assert prove(lambda f: {"y": f["x"].sum(0)}, x=THREE).reason == "output 'y' has shape (2,) for one row"
    flat = prove(lambda f: {"y": f["x"].reshape(-1)[: len(f["x"]) * 2 : 2][:1]}, x=THREE)
    assert not flat.independent


def test_integers_and_strings_change_places_with_those_that_occur():
    seen = []

    def lookup(f):
        seen.extend(f["city"].ravel())
        return {"y": f["age"] + np.array([[len(c)] for c in f["city"].ravel()])}

    city = np.array([b"lima", b"oslo", b"quito"], dtype=object)
    assert prove(lookup, city=city, age=np.array([[1], [2], [3]])).independent
    assert set(seen) == {b"lima", b"oslo", b"quito", b"lima lima", b"li"}  # and once each far from all of them


def test_a_lone_string_is_turned_round_unless_the_model_refuses_it():
    text = np.array([b"abc"], dtype=object)
    assert prove(lambda f: {"n": np.array([len(t) for t in f["text"]])}, text=text).independent

    def parses(f):
        if any(t != b"abc" for t in f["text"]):
            raise independence.Refused("Could not parse example input")
        return {"n": np.array([len(t) for t in f["text"]])}

    assert prove(parses, text=text).reason == (
        "there is only one row to try, and none like it can be made up: add warmup records"
    )


def test_altered_rows_differ_and_stay_in_range():
    rows = buckets.stack([{"i": np.array([[3, 7, 3]]), "b": np.array([[True]]), "x": np.zeros([1, 2], np.float32)}], 10)
    altered = independence.alter(rows)
    assert altered["i"].tolist() == [[7, 3, 7], [3, 7, 3]]
    assert altered["b"].tolist() == [[False], [False]]
    assert (altered["x"] * [[1], [-1]] > 0).all()


def signature(inputs, outputs):
    def tensors(shapes):
        return tuple(TensorInfo(f"t{i}", "float", shape) for i, shape in enumerate(shapes))

    return SignatureInfo("s", "predict", tensors(inputs), tensors(outputs))


@pytest.mark.parametrize(
    ("inputs", "outputs", "state", "reason"),
    [
        ([(None, 4)], [(None,)], State(), ""),
        ([None], [None], State(), ""),
        ([None], [None], State(decided=("cond",)), "the values of a batch decide which branch all of it takes (cond)"),
        ([(None, 4), ()], [(None,)], State(), "input 't1' is a scalar"),
        ([(8, 4)], [(None,)], State(), "input 't0' has a fixed first dimension of 8"),
        ([(None, 4)], [(4,)], State(), "output 't0' has a fixed first dimension of 4"),
        ([], [(None,)], State(), "it has no inputs"),
        ([(None,)], [(None,)], State(writes=("AssignVariableOp",)), "it writes state (AssignVariableOp)"),
        ([(None,)], [(None,)], State(random=("RandomUniform",)), "its result is random (RandomUniform)"),
    ],
)
def test_what_the_signature_itself_rules_out(inputs, outputs, state, reason):
    assert independence.static_reason(signature(inputs, outputs), state) == reason


def test_a_mask_that_all_records_pass_is_caught():
    """boolean_mask keeps all rows of records above zero; the number of rows then depends on the values."""
    positive = np.abs(THREE) + 0.1
    proof = prove(lambda f: {"y": f["x"][f["x"][:, 0] > 0]}, x=positive)
    assert proof.reason.startswith("row 0 before others: output 'y' has shape (")


def test_ids_for_tables_of_different_sizes_are_not_mixed_up():
    """Values of one column in another would be refused: rows are made of other records' columns then."""
    sizes = np.array([1000, 5])

    def looked_up(f):
        if (f["ids"] >= sizes).any():
            raise independence.Refused("indices[0] = 700 is not in [0, 5)")
        return {"y": f["ids"] @ [1.0, 2.0] + f["x"]}

    def mean(f):
        return {"y": looked_up(f)["y"] - f["ids"][:, 0].mean()}

    feeds = {"ids": np.array([[700, 4], [800, 1], [900, 0]]), "x": np.array([1.0, 2.0, 3.0])}
    rows = buckets.stack([feeds], 100)
    found = independence.acceptable(looked_up, rows)
    assert found["ids"].tolist() == [[800, 1], [900, 0], [900, 0], [700, 4]]
    assert (found["x"][:2] > 3).all()
    assert prove(looked_up, **feeds).independent
    assert not prove(mean, **feeds).independent


def test_made_up_rows_that_the_model_refuses_are_none():
    def none(f):
        raise independence.Refused("never")

    assert independence.acceptable(none, buckets.stack([{"x": THREE}], 100)) is None
