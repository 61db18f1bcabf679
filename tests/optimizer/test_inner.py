"""Inner dimensions that vary: which sizes become buckets, when a request is padded up to one, and the proof for it."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer import inner, padding_proof, verify
from tfopt_optimizer.independence import Refused
from tfopt_optimizer.plan import Axis, InnerBucket, InnerDimension, InnerPlan, SignatureInfo, TensorInfo

LOSSLESS = verify.lossless(1e-4)
LENGTH = (InnerDimension((Axis("ids", 1), Axis("mask", 1))),)
INFO = SignatureInfo(
    "s", "predict", (TensorInfo("ids", "int32", (None, None)), TensorInfo("mask", "int32", (None, None))), ()
)
table = np.random.default_rng(2).standard_normal((50, 6)).astype(np.float32)


def record(length, rows=1, seed=0):
    ids = np.random.default_rng(seed).integers(1, 50, (rows, length)).astype(np.int32)
    return {"ids": ids, "mask": np.ones((rows, length), np.int32)}


def masked(feeds):
    """Embeddings averaged where the mask is set, and the embeddings themselves."""
    mask = feeds["mask"][:, :, None].astype(np.float32)
    states = table[feeds["ids"]]
    return {"mean": (states * mask).sum(1) / np.maximum(mask.sum(1), 1), "states": states}


def test_axes_of_one_size_in_every_record_are_one_dimension():
    samples = [record(4), record(9, rows=3)]
    assert inner.dimensions(INFO, samples) == LENGTH
    assert inner.sizes_of(LENGTH, samples[1]) == (9,)
    differ = {"ids": samples[0]["ids"], "mask": samples[1]["mask"]}
    assert inner.sizes_of(LENGTH, differ) is None
    assert len(inner.dimensions(INFO, [*samples, differ])) == 2
    fixed = SignatureInfo("s", "predict", (TensorInfo("ids", "int32", (None, 4)),), ())
    assert inner.dimensions(fixed, [{"ids": samples[0]["ids"]}]) == ()


def test_only_records_that_differ_in_what_the_signature_leaves_open_are_compared():
    info = SignatureInfo(
        "s", "predict", (TensorInfo("x", "float", (None, None, 3)), TensorInfo("y", "float", None)), ()
    )
    alike = [{"x": np.zeros([1, n, 3]), "y": np.zeros([1, 2])} for n in (4, 5)]
    other = {"x": np.zeros([1, 4, 3]), "y": np.zeros([1, 7])}
    assert inner.alike(info, [other, *alike]) == tuple(alike)


@pytest.mark.parametrize(
    ("seen", "pad", "chosen"),
    [
        ([(8,)] * 3 + [(16,)], True, ((8,), (16,))),
        ([(16,), (15,), (14,), (8,)], True, ((16,), (8,))),  # padding 15 up to 16 costs next to nothing
        ([(n,) for n in range(1, 101)], True, ((25,), (50,), (75,), (100,))),
        ([(4, 30), (9, 9)], True, ((4, 30), (9, 9))),
        ([(n, 50 - n) for n in range(1, 50)], True, ((49, 49), (37, 37), (25, 25), (13, 13))),
        ([(8,)] * 3 + [(7,)] * 2 + [(n,) for n in range(20, 30)], False, ((8,), (7,), (20,), (21,))),
    ],
)
def test_inner_buckets_come_from_the_records(seen, pad, chosen):
    found = inner.choose(seen, pad)
    assert set(found) == set(chosen)
    assert pad or found == chosen


def test_the_bucket_that_most_records_need_comes_first():
    assert inner.choose([(8,)] + [(30,)] * 5 + [(64,)] * 2, True) == ((30,), (64,), (8,))


def test_rows_of_a_bucket_are_the_records_that_it_is_for_filled_up():
    found = inner.stack(LENGTH, [record(3), record(5, rows=2), record(8)], (6,), [(4,)], 100)
    assert (found.count, found.records, found.skipped) == (2, 1, 2)
    assert found.inner() == {"ids": (6,), "mask": (6,)}
    assert found.feeds["mask"].tolist() == [[1, 1, 1, 1, 1, 0]] * 2
    # none is for it: what there is, cut or filled up
    assert inner.stack(LENGTH, [record(9), record(2)], (6,), [(4,)], 1).feeds["ids"].shape == (1, 6)


def test_strings_are_filled_up_with_empty_ones_and_nothing_is_copied_in_vain():
    words = np.array([[b"a", b"b"]], object)
    dimension = (InnerDimension((Axis("words", 1),)),)
    feeds = {"words": words, "x": np.ones([1, 2])}
    assert inner.resized_to(dimension, feeds, (3,))["words"].tolist() == [[b"a", b"b", b""]]
    same = inner.resized_to(dimension, feeds, (2,))
    assert same["words"] is words
    assert same["x"] is feeds["x"]


PLAN = InnerPlan(LENGTH, (InnerBucket((8,), 2), InnerBucket((64,), 20)), True, "proven", (1,))


@pytest.mark.parametrize(
    ("length", "goes_to"), [(1, None), (2, 8), (8, 8), (9, None), (19, None), (20, 64), (64, 64), (65, None)]
)
def test_a_request_is_padded_where_that_is_not_slower_than_plain_tensorflow(length, goes_to):
    found = inner.bucket_of(PLAN, (length,))
    assert (found.sizes[0] if found else None) == goes_to


def test_without_a_proof_only_the_very_sizes_go_to_a_bucket():
    plan = InnerPlan(LENGTH, PLAN.buckets, False, "no", ())
    assert inner.bucket_of(plan, (7,)) is None
    assert inner.bucket_of(plan, (8,)) == PLAN.buckets[0]
    tried_from_4 = InnerPlan(LENGTH, PLAN.buckets, True, "proven", (4,))
    assert inner.bucket_of(tried_from_4, (3,)) is None


@pytest.mark.parametrize(
    ("points", "from_"),
    [
        ([[(100, 10.0, 100.0)]], 10),  # plain TensorFlow takes 10 us for 10 elements, if it takes nothing for none
        ([[(100, 100.0, 100.0)]], 100),
        ([[(100, float("inf"), 100.0)]], 100),  # plain TensorFlow itself was chosen
        ([[(50, 9.0, 60.0), (100, 10.0, 100.0)]], 51),
        ([[(50, 9.0, 60.0), (100, 80.0, 100.0)]], 75),
        ([[(100, 10.0, 100.0)], [(100, 40.0, 100.0)]], 40),  # whatever the number of rows
        ([[(100, float("inf"), float("inf"))]], 100),  # no time was left for it
    ],
)
def test_from_which_size_on_padding_pays(points, from_):
    assert inner.least(points) == from_


def test_a_model_that_takes_a_mask_may_be_padded_and_its_answer_is_cut():
    samples = [record(5), record(9, rows=2), record(7)]
    found = padding_proof.prove(masked, LENGTH, samples, LOSSLESS)
    assert found.sound, found.reason
    assert found.floor == (1,)
    assert found.dimensions == (InnerDimension(LENGTH[0].inputs, (Axis("states", 1),)),)
    asked = record(6, rows=2, seed=4)
    answer = inner.cut(found.dimensions, masked(inner.resized_to(LENGTH, asked, (9,))), (6,))
    assert {n: a.shape for n, a in answer.items()} == {"mean": (2, 6), "states": (2, 6, 6)}
    np.testing.assert_allclose(answer["mean"], masked(asked)["mean"], rtol=1e-6)


def test_records_of_one_length_are_enough_as_their_beginnings_are_tried():
    assert padding_proof.prove(masked, LENGTH, [record(9)], LOSSLESS).sound


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda f: {"y": table[f["ids"]].mean(1)}, "padded from 1 to 9: max error"),
        (lambda f: {"y": table[f["ids"]].max(1)}, "padded from 1 to 9: max error"),
        # the last element decides, as in a recurrent network without a mask: data would have to stand at the end
        (lambda f: {"y": table[f["ids"][:, -1]]}, "padded from 1 to 9: max error"),
        # positions counted from the end
        (lambda f: {"y": (table[f["ids"]] * np.arange(f["ids"].shape[1])[::-1, None]).sum(1)}, "padded from"),
        # a soft mask: what is masked keeps a little weight
        (lambda f: {"y": np.average(table[f["ids"]][0], 0, f["mask"][0] + 1e-3)[None]}, "padded from 1 to 9: max err"),
        (lambda f: {"y": table[f["ids"]][:, ::2]}, "which is padding cannot be told"),
        (lambda f: {"y": table[f["ids"]].reshape(len(f["ids"]), -1)}, "which is padding cannot be told"),
    ],
)
def test_a_model_that_padding_changes_is_found_out(answer, why):
    found = padding_proof.prove(answer, LENGTH, [record(5), record(9)], LOSSLESS)
    assert not found.sound
    assert why in found.reason
    assert found.dimensions == LENGTH


def strided(stride, width):
    """The largest of a convolution with strides, as TensorFlow pads it (SAME): zeros at the end change no window, but
    where the windows begin depends on the length."""
    kernel = np.random.default_rng(3).standard_normal((width, 4)).astype(np.float32)

    def run(feeds):
        x = feeds["x"]
        count = -(-x.shape[1] // stride)
        before = max((count - 1) * stride + width - x.shape[1], 0) // 2
        x = np.pad(x, ((0, 0), (before, width + stride)))
        windows = [x[:, stride * i : stride * i + width] @ kernel for i in range(count)]
        return {"y": np.maximum(np.stack(windows, 1), 0).max(1)}

    return run


@pytest.mark.parametrize(("stride", "width", "length"), [(2, 3, 63), (2, 3, 31), (4, 5, 65), (4, 4, 61)])
def test_a_stride_is_found_out_whatever_lengths_the_records_have(stride, width, length):
    """Records of 63 alone were proof for it: 1 and 31 begin as 63 does, and a request of 40 was answered 0.7 off."""
    samples = [{"x": np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)} for n in (length, length)]
    dimension = (InnerDimension((Axis("x", 1),)),)
    assert not padding_proof.prove(strided(stride, width), dimension, samples, LOSSLESS).sound
    one = padding_proof.prove(strided(1, 1), dimension, samples, LOSSLESS)
    assert one.sound, one.reason


def test_where_zeros_in_the_mask_mark_what_counts_padding_would_be_taken_for_data():
    samples = [record(n) | {"mask": np.zeros((1, n), np.int32)} for n in (5, 9)]
    found = padding_proof.prove(lambda f: masked(f | {"mask": 1 - f["mask"]}), LENGTH, samples, LOSSLESS)
    assert (found.sound, found.reason.split(":")[0]) == (False, "padded from 1 to 9")


def test_what_refuses_padding_is_not_padded_and_what_takes_no_beginnings_is_padded_from_the_shortest_record_on():
    def takes(lengths):
        def run(feeds):
            if feeds["ids"].shape[1] not in lengths:
                raise Refused("not this length")
            return masked(feeds)

        return run

    samples = [record(5), record(9)]
    refused = padding_proof.prove(takes({1, 4, 5}), LENGTH, samples, LOSSLESS)
    assert (refused.sound, refused.reason) == (False, "padded from 1 to 9 it is refused: not this length")
    found = padding_proof.prove(takes({5, 9}), LENGTH, samples, LOSSLESS)
    assert (found.sound, found.floor) == (True, (5,))
    alone = padding_proof.prove(takes({9}), LENGTH, [record(9)], LOSSLESS)
    assert (alone.sound, alone.reason) == (False, "the model takes no shorter request to try it on")


def test_two_dimensions_are_told_apart_in_the_outputs():
    info = SignatureInfo(
        "s", "predict", (TensorInfo("q", "float", (None, None)), TensorInfo("d", "float", (None, None))), ()
    )
    samples = [
        {"q": np.ones([1, a], np.float32), "d": np.ones([1, b], np.float32)} for a, b in ((6, 6), (6, 9), (4, 8))
    ]
    dimensions = inner.dimensions(info, samples)

    def run(feeds):
        return {"all": feeds["q"][:, :, None] * feeds["d"][:, None, :]}

    found = padding_proof.prove(run, dimensions, samples, LOSSLESS)
    assert found.sound, found.reason
    assert [d.outputs for d in found.dimensions] == [(Axis("all", 1),), (Axis("all", 2),)]
