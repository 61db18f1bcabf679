"""JSON values -> arrays: the fast readers and the exact walk agree on what fits, and how it comes out."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tfopt_server.rest import walk
from tfopt_server.rest.values import READABLE, from_base64, to_array

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=3),
    st.just({"b64": "aGk="}), st.just({"b64": "?"}), st.just({}),
)  # fmt: skip
NESTED = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@given(NESTED, st.sampled_from(sorted(READABLE)))
def test_the_fast_readers_refuse_exactly_what_the_walk_can_explain(value: Any, dtype: str) -> None:
    array = to_array(value, dtype)
    explained = walk.explain_column(value, "x", {"x": dtype}).message != "tensor parsing error: x"
    assert (array is None) == explained


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1))
def test_rows_of_floats_come_out_as_numpy_makes_them(rows: list[list[float]]) -> None:
    array = to_array(rows, "float")
    assert array is not None
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array(rows, np.float32))


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (5, "float", np.float32(5)),
        ([[1, 2], [3, 4]], "float", np.float32([[1, 2], [3, 4]])),
        ([16777217, 1e39, -1e39, 1e-50], "float", np.float32([16777216, np.inf, -np.inf, 0])),
        ([1, 0.1], "double", np.float64([1, 0.1])),
        ([300, -1, 2147483647], "uint8", np.uint8([44, 255, 255])),
        ([200], "int8", np.int8([-56])),
        ([-(2**63), 2**63 - 1], "int64", np.int64([-(2**63), 2**63 - 1])),
        ([2**64 - 1], "uint64", np.uint64([2**64 - 1])),
        ([True, False], "bool", np.array([True, False])),
        ([[], []], "float", np.zeros((2, 0), np.float32)),
        ([], "string", np.empty(0, object)),
        (["é", {"b64": "/w=="}, "a\0"], "string", np.array([b"\xc3\xa9", b"\xff", b"a\0"], object)),
    ],
)
def test_values_that_fit(value: Any, dtype: str, expected: np.ndarray) -> None:
    array = to_array(value, dtype)
    assert array is not None
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    assert array.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (True, "float"), ("1.5", "float"), (None, "double"), ([1, True], "int32"), (1.0, "int32"), (2**31, "int32"),
        (2**31, "uint8"), (2**63, "int64"), (-1, "uint64"), (-1, "uint32"), (1, "bool"), (1, "string"),
        ([1, [2]], "float"), ([[1], 2], "float"), ([[1], [2, 3]], "float"), ({"b64": "?"}, "string"), (1, "half"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(value: Any, dtype: str) -> None:
    assert to_array(value, dtype) is None


@given(st.binary(max_size=20), st.sampled_from(["keep", "drop", "dots"]), st.booleans())
def test_base64_with_or_without_padding_and_white_space(data: bytes, padding: str, spaced: bool) -> None:
    text = base64.b64encode(data).decode()
    if padding != "keep":
        text = text.replace("=", "" if padding == "drop" else ".")
    if spaced:
        text = " \n".join(text)
    assert from_base64(text) == data


@pytest.mark.parametrize("text", ["a", "ab=", "ab-_", "ab===", "é", "a=bc", "abc=="])
def test_base64_that_is_none(text: str) -> None:
    assert from_base64(text) is None
