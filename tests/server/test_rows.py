"""Rows joined, padded, cut and levelled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tfopt_server import rows
from tfopt_server.errors import Code, ServingError


def feeds(*values: float) -> dict[str, np.ndarray]:
    texts = np.array([str(v).encode() for v in values], object)
    return {"x": np.array([[v, -v] for v in values], np.float32).reshape(len(values), 2), "t": texts}


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5), spare=st.integers(0, 4))
def test_rows_come_back_as_they_went_in_and_padding_is_the_first_row(sizes: list[int], spare: int) -> None:
    total = sum(sizes)
    whole = feeds(*range(total))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [rows.cut(whole, start, start + size) for start, size in zip(starts, sizes, strict=True)]
    joined = rows.joined(parts, total + spare)
    for name, array in joined.items():
        assert array.dtype == whole[name].dtype
        assert array[:total].tolist() == whole[name].tolist()
        assert array[total:].tolist() == whole[name][:1].tolist() * spare
    again = rows.rejoined([rows.cut(joined, start, start + size) for start, size in zip(starts, sizes, strict=True)])
    assert {name: array.tolist() for name, array in again.items()} == {n: a.tolist() for n, a in whole.items()}


def test_one_part_of_the_right_size_is_not_copied() -> None:
    whole = feeds(1, 2)
    assert rows.joined([whole], 2) is whole


def test_the_number_of_rows_that_all_inputs_share() -> None:
    assert rows.common(feeds(1, 2, 3)) == 3
    assert rows.common({"x": np.zeros([2]), "y": np.zeros([3])}) == 0
    assert rows.common({"x": np.float32(1), "y": np.zeros([1])}) == 0  # type: ignore[dict-item]
    assert rows.common({}) == 0


def test_inner_sizes_are_levelled_with_each_tensors_own_first_element() -> None:
    short, long = {"x": np.array([[7]])}, {"x": np.array([[1, 2, 3], [4, 5, 6]])}
    levelled = rows.levelled([short, long])
    assert [part["x"].tolist() for part in levelled] == [[[7, 7, 7]], [[1, 2, 3], [4, 5, 6]]]
    assert levelled[1]["x"] is long["x"]


def test_what_cannot_be_levelled() -> None:
    for small, large, message in (
        (np.zeros([1, 0]), np.zeros([1, 2]), "Got empty tensor in batch of non-empty tensors."),
        (np.zeros([1] * 7), np.zeros([1] * 6 + [2]), "Only tensors with rank from 1 to 6 can be padded."),
    ):
        with pytest.raises(ServingError, match=message) as caught:
            rows.levelled([{"x": small}, {"x": large}])
        assert caught.value.code is Code.INVALID_ARGUMENT
