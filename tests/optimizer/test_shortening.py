"""Which length each row of a signature of fixed length has, and which rows run together."""

import dataclasses
import itertools

import numpy as np
import pytest
from shortrows import COSTS, PLAN, SIZE, costs_of, texts
from tfopt_optimizer import shortening
from tfopt_optimizer.buckets import Rows
from tfopt_optimizer.plan import Filled, Shortening, SignatureInfo, TensorInfo
from tfopt_optimizer.shortening import Cost


def signature(*names, size=SIZE, dtype="int32"):
    return SignatureInfo("s", "", tuple(TensorInfo(n, dtype, (None, size)) for n in names), ())


def rows(feeds):
    return Rows(feeds, len(next(iter(feeds.values()))), 1, 0)


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


def test_fillings_that_a_plan_cannot_hold_exactly_are_none():
    feeds = {name: array.astype(np.int64) for name, array in texts([5, 9, 30]).items()}
    feeds["ids"][feeds["mask"] == 0] = (1 << 53) + 1
    found = shortening.find(signature("ids", "mask", dtype="int64"), rows(feeds))
    assert found.endswith("with numbers of 2^53 and more")
