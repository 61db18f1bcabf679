"""Which shapes are compiled, and feeds made of the records."""

from __future__ import annotations

import numpy as np
from tfopt_optimizer import buckets
from tfopt_optimizer.flags import DEFAULT_BUCKETS
from tfopt_optimizer.plan import SignatureInfo, TensorInfo


def rows(count, *inner, start=0):
    size = int(np.prod((count, *inner)))
    return np.arange(start, start + size, dtype=np.float32).reshape(count, *inner)


def test_sizes_come_from_the_flag_else_from_warmup_records_else_the_default():
    records = [{"x": rows(8, 2)}, {"x": rows(32, 2)}, {"x": rows(8, 2)}]
    assert buckets.sizes((16, 4, 4), records, True) == (4, 16)
    assert buckets.sizes((), records, True) == (1, 8, 32)
    assert buckets.sizes((), records, False) == DEFAULT_BUCKETS
    # requests of one row only say nothing about batching
    assert buckets.sizes((), [{"x": rows(1, 2)}], True) == DEFAULT_BUCKETS
    assert buckets.sizes((), [], True) == DEFAULT_BUCKETS


def test_default_sizes_end_where_plain_tensorflow_takes_long():
    assert buckets.within(DEFAULT_BUCKETS, 0.001) == DEFAULT_BUCKETS
    assert buckets.within(DEFAULT_BUCKETS, 0.015) == (1, 2, 4, 8, 16)
    assert buckets.within(DEFAULT_BUCKETS, 3.0) == (1, 2, 4, 8)


def test_rows_of_the_most_common_inner_shape_are_stacked():
    found = buckets.stack([{"x": rows(2, 3)}, {"x": rows(1, 5)}, {"x": rows(1, 3, start=6)}], 100)
    assert (found.count, found.records, found.skipped) == (3, 2, 1)
    assert found.inner() == {"x": (3,)}
    assert found.feeds["x"].tolist() == rows(3, 3).tolist()


def test_a_batch_begins_again_at_the_first_row_when_rows_run_out():
    found = buckets.stack([{"x": rows(3)}], 100)
    assert found.take(1, 4)["x"].tolist() == [1, 2, 0, 1]
    assert [b["x"].tolist() for b in found.batches(2)] == [[0, 1], [2, 0]]


def test_records_whose_inputs_share_no_number_of_rows_have_no_rows():
    assert buckets.rows_of({"x": rows(2), "y": rows(3)}) is None
    assert buckets.rows_of({"x": np.float32(1)}) is None
    assert buckets.stack([{"x": rows(2), "y": rows(3)}], 100) is None


def test_without_row_independence_the_most_common_full_shapes_count():
    records = [{"x": rows(2, 3)}, {"x": rows(4, 3)}, {"x": rows(4, 3)}]
    assert buckets.exact_shapes(records) == [{"x": (4, 3)}, {"x": (2, 3)}]


def test_records_must_have_the_signatures_inputs_and_types():
    info = SignatureInfo(
        "s", "predict", (TensorInfo("x", "float", (None,)), TensorInfo("k", "int32", ())), (), defaults=("k",)
    )
    assert buckets.fits(info, {"x": rows(1)})
    assert buckets.fits(info, {"x": rows(1), "k": np.int32(3).reshape(())})
    assert not buckets.fits(info, {"k": np.int32(3).reshape(())})
    assert not buckets.fits(info, {"x": rows(1), "z": rows(1)})
    assert not buckets.fits(info, {"x": rows(1).astype(np.float64)})
