"""Answers of predict as JSON: what they look like, and that the numbers read back as they were."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tfopt_server.errors import ServingError
from tfopt_server.rest.codec import Layout, answer

ROWS, COLUMNS = Layout.ROWS, Layout.COLUMNS


def strings(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("outputs", "rows", "columns"),
    [
        ({"y": np.float32([[0.1, 3], [1e-5, -0.0]])}, b"[[0.1,3.0],[0.00001,-0.0]]", b"[[0.1,3.0],[0.00001,-0.0]]"),
        ({"y": np.float32([np.nan, np.inf, -np.inf])}, b"[NaN,Infinity,-Infinity]", b"[NaN,Infinity,-Infinity]"),
        ({"y": np.int64([1, 2])}, b"[1,2]", b"[1,2]"),
        ({"y": np.array([True])}, b"[true]", b"[true]"),
        ({"y": np.uint64([2**64 - 1])}, b"[18446744073709551615]", b"[18446744073709551615]"),
        ({"y": strings(b"a/\xc3\xa9", b'"\n')}, '["a/é","\\"\\n"]'.encode(), '["a/é","\\"\\n"]'.encode()),
        ({"y": strings(b"\xff", b"\xc3\xa9")}, b'["\xff","\xc3\xa9"]', b'["\xff","\xc3\xa9"]'),
        ({"y_bytes": strings(b"\xff")}, b'[{"b64":"/w=="}]', b'[{"b64":"/w=="}]'),
        ({"y_bytes": np.float32([1])}, b"[1.0]", b"[1.0]"),
        ({"a": np.float32([[1], [2]]), "b": np.int32([3, 4])}, b'[{"a":[1.0],"b":3},{"a":[2.0],"b":4}]',
         b'{"a":[[1.0],[2.0]],"b":[3,4]}'),
        ({"a": np.float32([np.nan, 1]), "b": strings(b"null", b"\xff")}, b'[{"a":NaN,"b":"null"},{"a":1.0,"b":"\xff"}]',
         b'{"a":[NaN,1.0],"b":["null","\xff"]}'),
        ({"a_bytes": strings(b"a", b"b"), "b": np.float32([1, 2])}, b'[{"a_bytes":{"b64":"YQ=="},"b":1.0},'
         b'{"a_bytes":{"b64":"Yg=="},"b":2.0}]', b'{"a_bytes":[{"b64":"YQ=="},{"b64":"Yg=="}],"b":[1.0,2.0]}'),
        ({"y": np.zeros((0, 2), np.float32)}, b"[]", b"[]"),
        ({"y": np.zeros((2, 0), np.float32)}, b"[[],[]]", b"[[],[]]"),
        ({"a": np.zeros((0, 2), np.float32), "b": strings()}, b"[]", b'{"a":[],"b":[]}'),
        ({"y": np.int32([[1, 2], [3, 4]]).T}, b"[[1,3],[2,4]]", b"[[1,3],[2,4]]"),
        ({"a": np.int32([[1, 2], [3, 4]]).T, "b": np.int32([5, 6])}, b'[{"a":[1,3],"b":5},{"a":[2,4],"b":6}]',
         b'{"a":[[1,3],[2,4]],"b":[5,6]}'),
    ],
)  # fmt: skip
def test_answers(outputs: dict[str, np.ndarray], rows: bytes, columns: bytes) -> None:
    assert answer(outputs, ROWS) == b'{"predictions":' + rows + b"}"
    assert answer(outputs, COLUMNS) == b'{"outputs":' + columns + b"}"


@pytest.mark.parametrize("kind", [np.longlong, np.ulonglong])
def test_whole_numbers_as_onnx_runtime_gives_them(kind: type[np.integer]) -> None:
    assert answer({"label": np.array([3, 5], kind)}, ROWS) == b'{"predictions":[3,5]}'
    assert answer({"label": np.array([3, 5], kind), "y": np.float32([1, 2])}, COLUMNS) == (
        b'{"outputs":{"label":[3,5],"y":[1.0,2.0]}}'
    )


def test_a_scalar_stands_alone_in_columns_and_has_no_rows() -> None:
    assert answer({"y": np.array(np.float32(0.1))}, COLUMNS) == b'{"outputs":0.1}'
    assert answer({"y": np.array(b"x", object)}, COLUMNS) == b'{"outputs":"x"}'
    assert answer({"y": np.array(np.float32("nan")), "z": np.int32([1])}, COLUMNS) == b'{"outputs":{"y":NaN,"z":[1]}}'


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"y": np.array(np.float32(0.1))}, "Tensor name: y has no shape information "),
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"a": np.zeros(3), "b": np.zeros(2)}, "Tensor name: b has inconsistent batch size: 2 expecting: 3"),
        ({"y": np.zeros(1, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
        ({"y": np.zeros(1, np.float16)}, "Failed to write JSON value for tensor type: half"),
        ({"y": np.zeros(1, np.uint16), "z": np.zeros(1)}, "Failed to write JSON value for tensor type: uint16"),
    ],
)
def test_outputs_that_json_cannot_hold(outputs: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(ServingError) as refused:
        answer(outputs, ROWS)
    assert refused.value.message == text


ARRAYS = st.sampled_from(["float32", "float64", "int8", "int64", "uint64", "bool"]).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
)


@given(ARRAYS)
def test_numbers_read_back_as_the_same_values(array: np.ndarray) -> None:
    read: Any = json.loads(answer({"y": array}, COLUMNS))["outputs"]
    np.testing.assert_array_equal(np.array(read, array.dtype).reshape(array.shape), array)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=4), st.floats(width=32))
def test_rows_of_several_outputs_read_back(values: list[bytes], number: float) -> None:
    outputs = {"s": strings(*values), "s_bytes": strings(*values), "n": np.full(len(values), number, np.float32)}
    text = answer(outputs, ROWS).decode("utf-8", "surrogateescape")
    for row, value in zip(json.loads(text)["predictions"], values, strict=True):
        assert row["s"].encode("utf-8", "surrogateescape") == value
        assert list(row) == ["s", "s_bytes", "n"]
        np.testing.assert_equal(np.float32(row["n"]), np.float32(number))
