"""Into which buckets rows go: filled up, or several in turn."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from tfopt_optimizer.errors import EngineError
from tfopt_optimizer.pieces import GAIN, PADDING_US, pieces, together_us, us
from tfopt_optimizer.plan import SignatureInfo, SignaturePlan, TensorInfo
from tfopt_optimizer.signature_runner import Bucket as Running
from tfopt_optimizer.signature_runner import SignatureRunner


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
        (IMAGES, 6, [1] * 6),
        (IMAGES, 7, [8]),  # 35 ms and six cuts for 36.5 ms
        # As measured of the tabular model, where filling up was faster.
        ({1: 161.0, 8: 556.0, 32: 1882.0}, 20, [32]),
        ({1: 161.0, 8: 556.0, 32: 1882.0}, 12, [8, 8]),
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
    """Against all ways there are: any buckets that hold the rows. GAIN may hide, and a tie among the parts."""
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
            assert together_us(taken) <= (1 + GAIN) * 1.05 * min(map(together_us, ways)), (costs, rows)


def test_what_rows_take() -> None:
    there = buckets(IMAGES)
    assert us(9, there) == 36_500.0 + 5_000.0 + PADDING_US
    assert us(8, there) == 36_500.0
    assert us(64, there) == 2 * 146_000.0


def test_a_thousand_rows_of_a_bucket_that_nothing_fits_are_parted_at_once() -> None:
    there = buckets({1: 1_000.0, 3: 3_000.0, 7: 7_000.0, 50: 50_000.0, 5_000: 5_000_000.0})
    assert together_us(pieces(4_999, there)) < 1.01 * 4_999_000.0


INFO = SignatureInfo("serving_default", "predict", (TensorInfo("x", "float", (None, 2)),), ())


class Doubling:
    """A signature that doubles, with buckets of 1, 4 and 8 rows at 1 ms a row."""

    def __init__(self, lacking: int = 0) -> None:
        self.runs: list[int] = []
        self.lacking = lacking
        there = [Running(n, "fake", True, 1000.0 * n, self.run, {"x": (n, 2)}) for n in (1, 4, 8)]
        self.runner = SignatureRunner(SignaturePlan(INFO, True, "", True, "", ()), there, None)

    def run(self, feeds: dict[str, np.ndarray], outputs: object = None) -> dict[str, np.ndarray]:
        self.runs.append(len(feeds["x"]))
        return {"y": 2 * feeds["x"][self.lacking :]}


def test_a_runner_alone_does_as_the_server() -> None:
    model, x = Doubling(), np.arange(26, dtype=np.float32).reshape(13, 2)
    assert model.runner.run({"x": x[:5]})["y"].tolist() == (2 * x[:5]).tolist()
    assert model.runs == [4, 1]
    assert model.runner.run({"x": x})["y"].tolist() == (2 * x).tolist()  # cut at the largest, what is left in pieces
    assert model.runs[2:] == [8, 4, 1]


def test_a_runner_joins_no_answers_that_lack_rows() -> None:
    with pytest.raises(EngineError, match=r"output 'y' has shape \[3, 2\] for a batch of 4 rows"):
        Doubling(lacking=1).runner.run({"x": np.ones((5, 2), np.float32)})


def test_rows_that_run_at_their_own_lengths_are_parted_there() -> None:
    model = Doubling()
    assert [bucket.batch for bucket in model.runner.buckets_for(5)] == [4, 1]
    model.runner.shortened = object()  # type: ignore[assignment]
    assert [bucket.batch for bucket in model.runner.buckets_for(5)] == [8]
