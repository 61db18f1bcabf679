"""Serialized Examples changed in length and value, and the proof of independent rows on models that parse them."""

from __future__ import annotations

import numpy as np
import pytest
from serialized import LISTS, RECORDS, example, parsing
from tfopt_optimizer import buckets, examples, independence, verify
from tfopt_protos import messages

ONE = {"v": [1.0, -2.0], "n": [3, 4, 5], "w": [b"ab"]}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (examples.LONGER, {"v": [1.0, -2.0, 1.0, -2.0], "n": [3, 4, 5, 3, 4, 5], "w": [b"ab", b"ab"]}),
        (examples.SHORTER, {"v": [1.0], "n": [3], "w": []}),
        (examples.ABOVE, {"v": [2e4, 3e4], "n": [7, 9, 11], "w": [b"ab ab"]}),
        (examples.BELOW, {"v": [-2e4, -3e4], "n": [1, 2, 2], "w": [b"a"]}),
    ],
)
def test_the_features_named_change_and_the_others_stay(how, expected):
    names = examples.features(example(**ONE))
    assert names == (("context", "n"), ("context", "v"), ("context", "w"))
    for name in names:
        found = messages.message("tensorflow.Example").FromString(examples.changed(example(**ONE), [name], how))
        for each, values in ONE.items():
            list_ = getattr(found.features.feature[each], LISTS[np.array(values).dtype.kind])
            assert list(list_.value) == (expected[each] if each == name[1] else values)


def test_a_sequence_examples_lists_change_by_steps():
    steps = {"s": [[1.0, 2.0], [3.0, 4.0]]}
    value = example("SequenceExample", steps, n=[3])
    assert examples.features(value) == (("context", "n"), ("list", "s"))
    longer = examples.changed(value, [("list", "s")], examples.LONGER)
    assert longer == example("SequenceExample", {"s": steps["s"] * 2}, n=[3])
    assert examples.changed(value, [("list", "s")], examples.SHORTER) == example(
        "SequenceExample", {"s": steps["s"][:1]}, n=[3]
    )
    above = example("SequenceExample", {"s": [[2e4, 3e4], [4e4, 5e4]]}, n=[3])
    assert examples.changed(value, [("list", "s")], examples.ABOVE) == above


@pytest.mark.parametrize("value", [b"", b"some words", b"\xff\xd8\xff\xe0", example()])
def test_other_bytes_and_empty_examples_have_no_features(value):
    assert examples.features(value) == ()


def test_features_that_may_change_are_found_in_few_tries():
    tried = []

    def takes(names):
        tried.append(names)
        return 5 not in names

    assert list(examples.groups(range(8), takes)) == [range(4), range(4, 5), range(6, 8)]
    assert len(tried) == 7
    assert list(examples.groups((), takes)) == []


def padded_mean(rows):
    longest = max(len(row["v"]) for row in rows)
    return [sum(row["v"]) / max(longest, 1) for row in rows]


FIXED = {"x": 1}


@pytest.mark.parametrize(
    ("compute", "fixed", "independent"),
    [
        (padded_mean, FIXED, False),
        (lambda rows: [sum(row["v"]) for row in rows], FIXED, True),
        (padded_mean, {"v": 2, "x": 1}, True),  # there are no other lengths
        (lambda rows: [row["x"][0] / max(abs(r["x"][0]) for r in rows) for row in rows], FIXED, False),
        (lambda rows: [row["x"][0] * (min(r["x"][0] for r in rows) > -9) for row in rows], FIXED, False),
    ],
)
def test_rows_depend_on_lengths_and_values_that_no_record_has(compute, fixed, independent):
    rows = buckets.stack([{"examples": RECORDS}], 100)
    proof = independence.prove(parsing(compute, **fixed), rows, verify.lossless(1e-4))
    assert proof.independent == independent


def test_one_record_is_no_proof_however_it_is_changed():
    """A sum over the batch that all made-up rows share would not be seen."""
    rows = buckets.stack([{"examples": RECORDS[:1]}], 100)
    proof = independence.prove(parsing(lambda rows: [sum(r["v"]) for r in rows], x=1), rows, verify.lossless(1e-4))
    assert proof.reason == "there is only one row to try, and none like it can be made up: add warmup records"


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("kind", "reduce", "independent"),
    [
        ("VarLenFeature", lambda tf, v: tf.reduce_mean(tf.sparse.to_dense(v), 1), False),
        ("VarLenFeature", lambda tf, v: tf.reduce_sum(tf.sparse.to_dense(v), 1), True),
        ("RaggedFeature", lambda tf, v: tf.reduce_mean(v, 1), True),
        ("RaggedFeature", lambda tf, v: v.to_tensor()[:, -1], False),
    ],
)
def test_what_tensorflow_pads_to_the_longest_of_a_batch(kind, reduce, independent):
    import tensorflow as tf

    parsed = {"v": getattr(tf.io, kind)(tf.float32), "x": tf.io.FixedLenFeature([], tf.float32)}

    def run(feeds):
        try:
            found = tf.io.parse_example(tf.constant(feeds["examples"]), parsed)
            return {"y": (reduce(tf, found["v"]) + found["x"]).numpy()}
        except tf.errors.OpError as error:
            raise independence.Refused(str(error)) from error

    rows = buckets.stack([{"examples": RECORDS}], 100)
    assert independence.prove(run, rows, verify.lossless(1e-4)).independent == independent
