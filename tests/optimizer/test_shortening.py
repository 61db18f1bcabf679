"""Which length each row of a signature of fixed length has, and which rows run together."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from tfopt_optimizer import shortening
from tfopt_optimizer.buckets import Rows
from tfopt_optimizer.plan import Filled, Shortening, SignatureInfo, TensorInfo
from tfopt_optimizer.shortened import Shortened
from tfopt_optimizer.shortening import Cost

SIZE = 64


def signature(*names, size=SIZE, dtype="int32"):
    return SignatureInfo("s", "", tuple(TensorInfo(n, dtype, (None, size)) for n in names), ())


def texts(lengths, size=SIZE, pad=0, seed=0):
    """ids and mask of texts of these lengths; ids are never `pad` inside a text."""
    random = np.random.default_rng(seed)
    mask = (np.arange(size)[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.where(mask == 1, random.integers(5, 90, mask.shape), pad).astype(np.int32)
    return {"ids": ids, "mask": mask}


def rows(feeds):
    return Rows(feeds, len(next(iter(feeds.values()))), 1, 0)


PLAN = Shortening((Filled("ids", 1, 0, True), Filled("mask", 1, 0, True)), SIZE, (16, 32), "")


def test_records_tell_what_they_are_filled_up_with():
    found = shortening.find(signature("ids", "mask"), rows(texts([5, 20, 64, 40], pad=1)))
    assert isinstance(found, Shortening)
    assert {(f.name, f.axis, f.value, f.needed) for f in found.inputs} == {("ids", 1, 1, True), ("mask", 1, 0, True)}
    assert found.size == SIZE


def test_buckets_are_made_for_the_lengths_that_the_records_have():
    found = shortening.find(signature("ids", "mask"), rows(texts([9, 10, 30, 31, 64, 63])))
    assert isinstance(found, Shortening)
    assert found.lengths == (16, 32)  # 63 and 64 are the signature's own length


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        (texts([64, 64, 64]), "no record is filled up to 64"),
        (texts([64, 60, 62]), "the records are filled up to 64 by 3% alone"),
        ({**texts([8, 9]), "mask": None}, "the records leave input 'mask' to its default"),
    ],
)
def test_where_nothing_is_to_be_won_the_reason_says_why(feeds, reason):
    feeds = {name: array for name, array in feeds.items() if array is not None}
    assert shortening.find(signature("ids", "mask"), rows(feeds)) == reason


def test_a_signature_without_a_fixed_length_has_nothing_to_say():
    feeds = {"x": np.ones([3, 4], np.float32)}
    assert shortening.find(signature("x", size=4, dtype="float"), rows(feeds)) == ""
    assert shortening.find(signature("x", size=None), rows(feeds)) == ""


def test_lengths_are_multiples_that_lie_apart_and_the_one_that_saves_most_is_tried_first():
    there = np.array([3, 5, 20, 21, 22, 23, 24, 26, 60, 64])
    assert shortening.levels(there, SIZE) == (8, 24)
    plan = dataclasses.replace(PLAN, lengths=(8, 24))
    assert shortening.by_gain(plan, there) == (24, 8)


def test_an_input_of_another_length_does_not_disturb():
    info = SignatureInfo("s", "", (*signature("ids", "mask").inputs, TensorInfo("x", "float", (None, 200))), ())
    feeds = {**texts([5, 20, 30]), "x": np.random.default_rng(1).standard_normal((3, 200)).astype(np.float32)}
    found = shortening.find(info, rows(feeds))
    assert isinstance(found, Shortening)
    assert [f.name for f in found.inputs] == ["ids", "mask"]


def test_an_input_that_is_never_filled_up_keeps_rows_whole():
    feeds = {**texts([5, 20, 30]), "x": np.random.default_rng(1).integers(1, 9, (3, SIZE)).astype(np.int32)}
    assert shortening.find(signature("ids", "mask", "x"), rows(feeds)) == "no record is filled up to 64"


def test_vectors_of_zeros_are_filling_too():
    steps = np.random.default_rng(0).standard_normal((4, SIZE, 3)).astype(np.float32)
    for row, length in enumerate([5, 9, 30, 12]):
        steps[row, length:] = 0
    info = SignatureInfo("s", "", (TensorInfo("x", "float", (None, SIZE, 3)),), ())
    found = shortening.find(info, rows({"x": steps}))
    assert isinstance(found, Shortening)
    assert shortening.lengths(found, {"x": steps}).tolist() == [5, 9, 30, 12]


def test_a_row_is_as_long_as_its_longest_input():
    feeds = texts([5, 20, 64, 1])
    feeds["ids"][0, 9] = 7  # behind the mask: who knows what it is for
    assert shortening.lengths(PLAN, feeds).tolist() == [10, 20, 64, 1]


def test_a_row_without_a_single_token_is_computed_in_full():
    feeds = texts([5, 20])
    feeds["mask"][1] = 0
    assert shortening.lengths(PLAN, feeds).tolist() == [5, SIZE]
    optional = Shortening((PLAN.inputs[0], Filled("mask", 1, 0, False)), SIZE, (), "")
    assert shortening.lengths(optional, feeds).tolist() == [5, 20]


def test_what_was_cut_is_filled_up_again_as_it_came():
    feeds = texts([5, 9], pad=3)
    plan = Shortening((Filled("ids", 1, 3, True), Filled("mask", 1, 0, True)), SIZE, (16,), "")
    short = shortening.cut(plan, feeds, 16)
    assert {a.shape for a in short.values()} == {(2, 16)}
    for name, array in shortening.whole(plan, short).items():
        np.testing.assert_array_equal(array, feeds[name])
        assert array.dtype == feeds[name].dtype


def test_a_lengths_rows_are_those_of_no_shorter_one_and_beginnings():
    feeds = texts([5, 20, 30, 64, 17])
    found = shortening.rows_of_level(PLAN, rows(feeds), 32, 16)
    np.testing.assert_array_equal(found.feeds["mask"][:3].sum(axis=1), [20, 30, 17])
    assert set(found.feeds["mask"][3:].sum(axis=1)) == {5, 1}  # of the first row, which has five tokens
    assert found.feeds["ids"].shape == (found.count, 32)


def costs_of(*buckets, static=True):
    return [Cost(rows, us, static) for rows, us in buckets]


def took(buckets, rows):
    """What so many rows take in a length's buckets; infinite where none holds them."""
    smaller = Cost(0, 0.0, True)
    for bucket in buckets:
        if bucket.rows >= rows:
            share = 1.0 if bucket.static else (rows - smaller.rows) / (bucket.rows - smaller.rows)
            return smaller.us + (bucket.us - smaller.us) * share if not bucket.static else bucket.us
        smaller = bucket
    return np.inf


def cost(parts, costs):
    return sum(took(costs[length], len(numbers)) for length, numbers in parts)


def cheapest(costs, longest, rows):
    """At their own length or any longer one."""
    return min(took(found, rows) for n, found in costs.items() if n >= longest)


def test_rows_run_longer_than_they_are_where_that_costs_less():
    """A length may have no bucket of many rows: plain TensorFlow won there."""
    schedule = shortening.Schedule({8: costs_of((1, 2.0)), SIZE: costs_of((1, 5.0), (4, 6.0))})
    assert [(length, len(rows)) for length, rows in schedule.parts(np.array([3, 4, 5, 6]))] == [(SIZE, 4)]
    assert [(length, len(rows)) for length, rows in schedule.parts(np.array([3, 4]))] == [(8, 1), (8, 1)]


COSTS = {16: costs_of((1, 1.0), (4, 3.0)), 32: costs_of((1, 2.0), (4, 7.0)), SIZE: costs_of((1, 4.0), (4, 12.0))}


@pytest.mark.parametrize("there", [[5], [64, 64], [5, 30, 64, 9], [3] * 5, [60, 1, 1, 1, 1, 1, 30], list(range(1, 65))])
def test_every_row_runs_once_at_a_length_that_holds_it(there):
    there = np.array(there)
    parts = shortening.Schedule(COSTS).parts(there)
    assert sorted(np.concatenate([numbers for _, numbers in parts]).tolist()) == list(range(len(there)))
    for length, numbers in parts:
        assert there[numbers].max() <= length
        assert len(numbers) <= 4


@pytest.mark.parametrize("seed", range(8))
def test_no_other_way_to_part_the_rows_costs_less(seed):
    random = np.random.default_rng(seed)
    costs = {
        n: costs_of((1, random.uniform(1, 4)), (4, random.uniform(3, 9)), static=bool(random.integers(2)))
        for n in (16, 32, SIZE)
    }
    there = random.integers(1, SIZE + 1, 5)
    parts = shortening.Schedule(costs).parts(there)
    best = np.inf
    for cuts in itertools.product([False, True], repeat=len(there) - 1):
        ordered, groups = sorted(there, reverse=True), [[0]]
        for number, cut in enumerate(cuts, 1):
            if cut:
                groups.append([])
            groups[-1].append(number)
        if all(len(group) <= 4 for group in groups):
            best = min(best, sum(cheapest(costs, ordered[group[0]], len(group)) for group in groups))
    assert cost(parts, costs) == pytest.approx(best)


def test_rows_that_are_not_filled_up_run_at_the_length_that_they_have():
    buckets = {16: costs_of((1, 1.0), (4, 3.7), static=False), SIZE: costs_of((1, 4.0), (4, 14.0))}
    parts = shortening.Schedule(buckets).parts(np.array([5, 6, 60, 7]))
    assert [(length, len(numbers)) for length, numbers in parts] == [(SIZE, 1), (16, 3)]  # 4.0 + 2.8
    filled = {16: costs_of((1, 1.0), (4, 3.7)), SIZE: costs_of((1, 4.0), (4, 14.0))}
    parts = shortening.Schedule(filled).parts(np.array([5, 6, 60, 7]))
    assert [(length, len(numbers)) for length, numbers in parts] == [(SIZE, 1), (16, 1), (16, 1), (16, 1)]  # 4.0 + 3.0


def test_a_time_that_a_busy_neighbour_spoiled_does_not_count():
    true = {n: costs_of((1, 0.5 + 0.03 * n), (8, 1.0 + 0.25 * n), static=False) for n in (16, 24, 32, 40, 48)}
    assert times(shortening.smoothed(true)) == pytest.approx(times(true))
    for spoiled, buckets in true.items():
        slow = [cost._replace(us=3 * cost.us) if cost.rows == 8 else cost for cost in buckets]
        found = times(shortening.smoothed({**true, spoiled: slow}))
        assert found[:, 0] == pytest.approx(times(true)[:, 0])
        assert (found[:, 1] <= [*times(true)[1:, 1], 13.001]).all()  # at most those of the next longer one
        assert (found[:, 1] >= [3.0, *times(true)[:-1, 1]]).all()


def test_times_of_runners_of_one_length_are_their_own():
    filled = {16: costs_of((1, 1.0)), 24: costs_of((1, 9.0)), 32: costs_of((1, 2.0))}
    assert shortening.smoothed(filled) == filled


def times(costs):
    return np.array([[cost.us for cost in costs[length]] for length in sorted(costs)])


def test_lengths_between_lie_evenly_and_are_not_too_many():
    assert shortening.between(dataclasses.replace(PLAN, size=128, lengths=(64, 88))) == (72, 80, 104, 112, 120)
    for size, lengths in [(512, (16,)), (512, (64, 128, 300)), (64, (8, 48)), (4096, (8, 1000))]:
        found = shortening.between(dataclasses.replace(PLAN, size=size, lengths=lengths))
        assert len(found) <= shortening.MOST_BETWEEN + 1
        assert all(lengths[0] < n < size and n % shortening.ROUND == 0 and n not in lengths for n in found)


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


def test_fillings_that_a_plan_cannot_hold_exactly_are_none():
    feeds = {name: array.astype(np.int64) for name, array in texts([5, 9, 30]).items()}
    feeds["ids"][feeds["mask"] == 0] = (1 << 53) + 1
    found = shortening.find(signature("ids", "mask", dtype="int64"), rows(feeds))
    assert found.endswith("with numbers of 2^53 and more")
