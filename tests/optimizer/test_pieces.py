"""Into which buckets rows go: filled up, or several in turn."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from tfopt_optimizer.pieces import PADDING_US, pieces, together_us, us


@dataclasses.dataclass(frozen=True)
class Bucket:
    batch: int
    cost_us: float
    static: bool = True


def buckets(costs: dict[int, float], any_rows: tuple[int, ...] = ()) -> list[Bucket]:
    return [Bucket(rows, cost, rows not in any_rows) for rows, cost in sorted(costs.items())]


# What single images and batches of 8 and 32 took of MobileNetV2 (0209), in microseconds.
IMAGES = {1: 5_000.0, 8: 36_500.0, 32: 146_000.0}


@pytest.mark.parametrize(
    ("costs", "rows", "wanted"),
    [
        (IMAGES, 1, [1]),
        (IMAGES, 2, [1, 1]),
        (IMAGES, 7, [8]),  # 35 ms and six cuts for 36.5 ms: within 5 %
        (IMAGES, 8, [8]),
        (IMAGES, 9, [8, 1]),
        (IMAGES, 12, [8, 1, 1, 1, 1]),
        (IMAGES, 16, [8, 8]),
        (IMAGES, 23, [8, 8, 8]),
        (IMAGES, 31, [32]),
        (IMAGES, 32, [32]),
        (IMAGES, 40, [32]),  # more than the largest: whoever calls cuts
        ({1: 20.0, 8: 22.0, 32: 30.0}, 9, [32]),  # cutting takes 10 us
        ({1: 900.0, 8: 1000.0, 32: 1500.0}, 9, [32]),  # a large batch costs little more
        ({1: 900.0, 8: 1000.0, 32: 4000.0}, 20, [8, 8, 8]),  # the last one filled up
        ({4: 400.0, 16: 1600.0}, 5, [4, 4]),  # no bucket of one row
        ({4: 400.0, 16: 1600.0}, 3, [4]),
        ({1: 0.0, 8: 36_500.0, 32: 146_000.0}, 9, [32]),  # not measured
        ({1: 5_000.0, 8: 36_500.0, 32: 0.0}, 9, [32]),
        ({8: 36_500.0}, 3, [8]),
        ({1: 50.0e3, 8: 680.0e3}, 8, [1] * 8),  # it was measured, and is clearly slower
        ({1: 50.0e3, 8: 450.0e3}, 8, [8]),
    ],
)
def test_rows_go_where_they_take_least(costs: dict[int, float], rows: int, wanted: list[int]) -> None:
    assert [bucket.batch for bucket in pieces(rows, buckets(costs))] == wanted


def test_what_takes_any_rows_computes_no_filling() -> None:
    # 9 of 32 are on the line between 36.5 and 146 ms: 41 ms, as much as 8 and 1.
    assert [b.batch for b in pieces(9, buckets(IMAGES, any_rows=(32,)))] == [32]
    assert [b.batch for b in pieces(9, buckets({**IMAGES, 8: 20_000.0}, any_rows=(32,)))] == [32]
    assert [b.batch for b in pieces(16, buckets({**IMAGES, 8: 20_000.0}, any_rows=(32,)))] == [8, 8]


def test_no_way_through_the_buckets_is_faster_than_the_one_taken_by_much() -> None:
    """Against all ways there are: any buckets that hold the rows. (A tie may hide in each of two choices.)"""
    for costs in (IMAGES, {1: 900.0, 8: 1000.0, 32: 4000.0}, {1: 100.0, 2: 150.0, 4: 280.0, 8: 590.0, 16: 700.0}):
        there = buckets(costs)
        for rows in range(1, 17):
            ways = [
                way
                for count in range(1, rows + 1)
                for way in itertools.combinations_with_replacement(there, count)
                if sum(bucket.batch for bucket in way) >= rows
            ]
            taken = pieces(rows, there)
            assert sum(bucket.batch for bucket in taken) >= rows > sum(bucket.batch for bucket in taken[:-1])
            assert together_us(taken) <= 1.05**2 * min(map(together_us, ways)), (costs, rows)


def test_what_rows_take() -> None:
    there = buckets(IMAGES)
    assert us(9, there) == 36_500.0 + 5_000.0 + PADDING_US
    assert us(8, there) == 36_500.0
    assert us(64, there) == 2 * 146_000.0


def test_a_thousand_rows_of_a_bucket_that_nothing_fits_are_parted_at_once() -> None:
    there = buckets({1: 1_000.0, 3: 3_000.0, 7: 7_000.0, 50: 50_000.0, 5_000: 5_000_000.0})
    assert together_us(pieces(4_999, there)) < 1.01 * 4_999_000.0
