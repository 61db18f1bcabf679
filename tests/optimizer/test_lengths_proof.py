"""What the proof of shorter lengths must see: requests will come that are like no record. Needs no TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer import rewriting, verify
from tfopt_optimizer.buckets import Rows
from tfopt_optimizer.independence import Refused
from tfopt_optimizer.plan import Filled, Shortening

SIZE = 32
TABLE = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)
ALIKE = verify.lossless(1e-4)


def rows(lengths):
    mask = (np.arange(SIZE)[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.random.default_rng(2).integers(1, 40, mask.shape).astype(np.int32) * mask
    return Rows({"ids": ids, "mask": mask}, len(lengths), len(lengths), 0)


LENGTHS = Shortening((Filled("ids", 1, 0.0, True), Filled("mask", 1, 0.0, True)), SIZE, (8, 16), "")


def attended(feeds):
    """A softmax over the positions that the mask has: over all of them, evenly, where it has none."""
    hidden = np.exp((1.0 - feeds["mask"]) * -10000.0 - ((1.0 - feeds["mask"]) * -10000.0).max(1, keepdims=True))
    shares = (hidden / hidden.sum(1, keepdims=True)).astype(np.float32)
    return {"scores": np.einsum("np,npw->nw", shares, TABLE[feeds["ids"]])}


def averaged(feeds):
    return TABLE[feeds["ids"]].mean(1)


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_labels_alone_do_not_prove_that_filling_counts_for_nothing(kind):
    def label(feeds):
        return {"label": np.where(averaged(feeds)[:, 0] > 9.0, 1, 0).astype(kind)}

    count, reason = rewriting.prove(label, label, LENGTHS, rows([5, 9, 14, 30]), ALIKE)
    assert count > 2
    assert reason == "its answers are whole numbers alone, in which little of what filling adds would show"


def test_labels_beside_scores_are_proven_by_the_scores():
    def both(feeds):
        scores = attended(feeds)["scores"]
        return {"label": scores.argmax(1), "scores": scores}

    assert rewriting.prove(both, both, LENGTHS, rows([5, 9, 14, 30]), ALIKE)[1] == ""


def test_slices_need_no_scores():
    def label(feeds):
        return {"label": averaged(feeds).argmax(1)}

    assert rewriting.prove(label, label, None, rows([5, 9, 14, 30]), ALIKE)[1] == ""


def test_a_maximum_over_counts_is_not_shortened_though_all_records_are_above_zero():
    def largest(feeds):
        return {"scores": feeds["ids"].max(1) * np.float32(0.3) + feeds["mask"].sum(1)}

    reason = rewriting.prove(largest, largest, LENGTHS, rows([5, 9, 14, 30]), ALIKE)[1]
    assert reason.startswith("on the first 1 positions of records below zero it answers otherwise: max error ")


def test_ids_that_are_looked_up_refuse_to_be_below_zero_and_nothing_is_learnt_from_it():
    def looked_up(feeds):
        if feeds["ids"].min() < 0:
            raise Refused("indices = -3 is not in [0, 40)")
        return attended(feeds)

    assert rewriting.prove(looked_up, looked_up, LENGTHS, rows([5, 9, 14, 30]), ALIKE)[1] == ""


def with_an_empty_one(count=24, place=17):
    """Texts of which one has no token, far behind those that are looked at."""
    return rows([*range(3, 3 + place), 0, *range(3, 2 + count - place)])


LENIENT = Shortening((Filled("ids", 1, 0.0, False), Filled("mask", 1, 0.0, False)), SIZE, (8, 16), "")


def proven(run, lengths, records):
    """The first way that holds: which inputs need something in a row that is shortened."""
    for each in rewriting.needs(lengths, records):
        if not rewriting.prove(run, run, each, records, ALIKE)[1]:
            return {f.name for f in each.inputs if f.needed}
    return None


def test_a_text_without_a_token_among_the_records_is_computed_in_full_and_the_others_are_not():
    assert proven(attended, LENIENT, with_an_empty_one()) == {"mask"}


def test_segments_that_most_records_do_without_are_not_needed():
    records = with_an_empty_one()
    segments = np.where(np.arange(24)[:, None] == 20, records.feeds["mask"], 0)
    feeds = {"ids": records.feeds["ids"], "mask": np.maximum(records.feeds["mask"], np.eye(1, SIZE, dtype=np.int32))}
    pair = Rows(feeds | {"segments": segments}, 24, 24, 0)

    def summed(feeds):
        return {"scores": attended(feeds)["scores"] + (feeds["segments"] * feeds["mask"]).sum(1)[:, None]}

    lengths = Shortening((*LENGTHS.inputs, Filled("segments", 1, 0.0, False)), SIZE, (8, 16), "")
    assert proven(summed, lengths, pair) == {"ids", "mask"}


def test_records_that_cannot_be_shortened_prove_nothing():
    def front(feeds):
        if not feeds["mask"][:, -1].all():
            raise Refused("it is filled up in front alone")
        return attended(feeds)

    records = Rows({name: array[:, ::-1] for name, array in rows([1, 1]).feeds.items()}, 2, 2, 0)
    reason = rewriting.prove(front, front, LENGTHS, records, ALIKE)[1]
    assert reason == "no record could be computed at a shorter length"


def test_altered_records_alone_prove_nothing():
    """Of pairs the only one has no token: what is tried of it says nothing of those that have one."""
    feeds = rows([5, 9, 14, 30, 30]).feeds
    feeds["segments"] = np.zeros_like(feeds["ids"])
    feeds["segments"][4, 3:9], feeds["mask"][4] = 1, 0
    pair = Rows(feeds, 5, 5, 0)

    def summed(feeds):
        return {"scores": np.where(feeds["mask"].any(1)[:, None], averaged(feeds), np.float32(0.3))}

    lengths = Shortening((*LENGTHS.inputs, Filled("segments", 1, 0.0, True)), SIZE, (8, 16), "")
    assert rewriting.prove(summed, summed, lengths, pair, ALIKE)[1] == "no record could be computed at a shorter length"
