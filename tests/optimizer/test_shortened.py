"""Rows of many lengths through the runners of their lengths: each is answered in its place, by what takes least."""

from types import SimpleNamespace

import numpy as np
import pytest
from shortrows import COSTS, PLAN, SIZE, costs_of, texts
from tfopt_optimizer import shortening
from tfopt_optimizer.shortened import Shortened
from tfopt_optimizer.shortening import Cost


class Fake:
    """A runner of one length that says which rows it was given: the answer is a row's number of tokens."""

    class Bucket:
        positions = 0

        def __init__(self, batch, cost_us, static):
            self.batch, self.cost_us, self.static, self.run = batch, cost_us, static, None

    def __init__(self, length, costs):
        self.length, self.buckets, self.ran = length, tuple(cost.rows for cost in costs), []
        self._buckets = [self.Bucket(*each) for each in costs]

    def bucket_for(self, rows):
        return next(b for b in self._buckets if b.batch >= rows)

    def run_in_bucket(self, bucket, feeds, rows, outputs):
        assert {a.shape for a in feeds.values()} == {(rows, self.length)}
        self.ran.append(rows)
        return {"tokens": feeds["mask"].sum(axis=1), "first": feeds["ids"][:, :2]}


def test_answers_come_in_the_order_of_the_rows():
    feeds = texts([5, 64, 30, 2, 40, 16, 17])
    runners = {length: Fake(length, costs) for length, costs in COSTS.items()}
    found = Shortened(PLAN, runners).run(feeds)
    np.testing.assert_array_equal(found["tokens"], feeds["mask"].sum(axis=1))
    np.testing.assert_array_equal(found["first"], feeds["ids"][:, :2])
    assert sum(sum(runner.ran) for runner in runners.values()) == 7
    assert runners[16].ran
    assert runners[SIZE].ran


def test_rows_of_one_length_are_one_run():
    runners = {length: Fake(length, costs) for length, costs in COSTS.items()}
    Shortened(PLAN, runners).run(texts([5, 6, 7, 8]))
    assert runners[16].ran == [4]
    assert not [*runners[32].ran, *runners[SIZE].ran]


class FakeRows:
    """One for all lengths: answers rows side by side, and whole batches as a bucket's runner."""

    streams = 2

    def __init__(self):
        self.calls = []

    def each(self, calls, outputs=None):
        self.calls.append([feeds["ids"].shape for feeds in calls])
        return [{"tokens": feeds["mask"].sum(axis=1), "first": feeds["ids"][:, :2]} for feeds in calls]


def beside(row_us, other_us=1.0):
    """Rows of up to 16 and 32 side by side at so much each, or alone and whole in buckets of one row."""
    rows, costs = FakeRows(), {n: costs_of((1, other_us * n)) for n in (16, 32, SIZE)}
    for n in (16, 32):
        costs[n].append(Cost(4, 4 * row_us * n, False))
    runners = {length: Fake(length, each) for length, each in costs.items()}
    for n in (16, 32):
        runners[n]._buckets[-1].run = rows
    shortened = Shortened(PLAN, runners)
    heard = []
    shortened.ran = lambda length, number: heard.extend([length] * number)
    return shortened, rows, heard


def test_rows_of_all_lengths_run_side_by_side_the_longest_first():
    shortened, rows, heard = beside(row_us=0.5)
    feeds = texts([5, 64, 30, 2, 40, 16, 17])
    found = shortened.run(feeds)
    np.testing.assert_array_equal(found["tokens"], feeds["mask"].sum(axis=1))
    np.testing.assert_array_equal(found["first"], feeds["ids"][:, :2])
    assert rows.calls == [[(1, 32), (1, 32), (1, 16), (1, 16), (1, 16)]]
    assert sorted(heard) == [16, 16, 16, 32, 32, SIZE, SIZE]


def test_rows_run_side_by_side_where_that_takes_less_alone():
    for lengths, row_us in [([5, 30, 2], 1.1), ([5], 0.5), ([64, 5], 0.1), ([5, 32], 0.8), ([64, 40], 0.1)]:
        shortened, rows, _ = beside(row_us)  # one of two rows waits for the other: 0.8 of 32, twice, is more than 48
        feeds = texts(lengths)
        np.testing.assert_array_equal(shortened.run(feeds)["tokens"], feeds["mask"].sum(axis=1))
        assert rows.calls == []


def packing(us, *, largest=4, lone_us=1.0):
    """Rows of all lengths together in a bucket of four, which was measured on 100 positions; or alone."""
    costs = {n: costs_of((1, lone_us * n)) for n in (16, 32, SIZE)}
    costs[SIZE].append(Cost(largest, us, False))
    runners = {length: Fake(length, each) for length, each in costs.items()}
    runners[SIZE]._buckets[-1].positions = 100
    shortened = Shortened(PLAN, runners)
    heard = []
    shortened.ran = lambda length, number: heard.extend([length] * number)
    return shortened, runners[SIZE].ran, heard


def test_rows_of_all_lengths_run_together_and_are_counted_at_what_they_have():
    shortened, ran, heard = packing(us=50.0)
    feeds = texts([5, 64, 30, 2])
    found = shortened.run(feeds)
    np.testing.assert_array_equal(found["tokens"], feeds["mask"].sum(axis=1))
    np.testing.assert_array_equal(found["first"], feeds["ids"][:, :2])
    assert ran == [4]
    assert sorted(heard) == [8, 8, 32, SIZE]


def test_more_rows_than_the_buckets_run_in_equal_parts_those_of_a_length_together():
    shortened, ran, _ = packing(us=50.0)
    feeds = texts([5, 64, 30, 2, 40, 16, 17, 9, 60])
    found = shortened.run(feeds)
    np.testing.assert_array_equal(found["tokens"], feeds["mask"].sum(axis=1))
    np.testing.assert_array_equal(found["first"], feeds["ids"][:, :2])
    assert ran == [3, 3, 3]


@pytest.mark.parametrize(
    ("lengths", "us", "together"),
    [
        ([5, 6], 100.0, True),  # 5 + 95 * 11 / 100 beside 2 * 16
        ([5, 6], 220.0, False),  # 11 + 209 * 11 / 100
        ([64, 64], 120.0, False),  # 6 + 114 * 1.28, more than 2 * 64
        ([64, 64], 90.0, True),
        ([5], 1.0, False),  # a row alone has a model of its own
    ],
)
def test_rows_run_together_where_what_they_have_takes_less_so(lengths, us, together):
    shortened, ran, _ = packing(us)
    feeds = texts(lengths)
    np.testing.assert_array_equal(shortened.run(feeds)["tokens"], feeds["mask"].sum(axis=1))
    assert (ran == [len(lengths)]) == together


@pytest.mark.parametrize("seed", range(4))
def test_streams_share_positions_about_equally(seed):
    there = np.random.default_rng(seed).integers(1, SIZE + 1, 12)
    for number in (1, 2, 3):
        parts = shortening.shares(there, number)
        assert sorted(np.concatenate(parts).tolist()) == list(range(12))
        held = [there[rows].sum() for rows in parts]
        assert len(parts) == number
        assert max(held) - min(held) <= there.max()
    assert [rows.tolist() for rows in shortening.shares(np.array([5]), 2)] == [[0]]


def test_rows_that_streams_cannot_share_equally_cost_what_the_longest_takes():
    """Two rows of 60 and 4 on two streams: as long as two of 60."""
    for streams, us, together in [(1, 100.0, True), (2, 100.0, False), (2, 50.0, True)]:
        shortened, ran, _ = packing(us)  # alone 64 + 16: together 5 + 0.95 * 64, on two streams 5 + 0.95 * 120
        shortened.runners[SIZE].bucket_for(4).run = SimpleNamespace(streams=streams)
        shortened = Shortened(PLAN, shortened.runners)
        shortened.run(texts([60, 4]))
        assert (ran == [2]) == together


def test_a_packed_bucket_that_is_dropped_leaves_its_rows_to_the_others():
    shortened, _, heard = packing(us=50.0)
    bucket = shortened.runners[SIZE].bucket_for(4)
    shortened.runners[SIZE].drop = lambda lost: shortened.runners[SIZE]._buckets.remove(lost) is None
    for runner in shortened.runners.values():
        runner.drop = getattr(runner, "drop", lambda lost: False)
    shortened.runners[SIZE].buckets = (1,)
    assert shortened.drop(bucket)
    feeds = texts([5, 30])
    np.testing.assert_array_equal(shortened.run(feeds)["tokens"], feeds["mask"].sum(axis=1))
    assert heard == [32, 16]
