"""TensorProto <-> numpy: round trips, TensorFlow's rules for short and long fields, and bad protos."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tfopt_protos import dtypes, messages, tensors
from tfopt_protos.tensors import TensorError, encode, from_numpy, to_numpy

HELD = [name for name in dtypes.NUMBERS if name not in dtypes._NO_ARRAY]


def example(name: str, shape: tuple[int, ...] = (2, 3)) -> np.ndarray[Any, Any]:
    """Distinct values of a dtype, the negative and the largest included where there are any."""
    dtype, size = dtypes.to_numpy(name), int(np.prod(shape))
    if name == "string":
        words = [b"", "größe".encode(), b"\x00\xff", b"plain", b"x" * 300]
        values = np.empty(size, object)
        values[:] = [words[i % len(words)] for i in range(size)]
        return values.reshape(shape)
    if name == "bool":
        return (np.arange(size) % 2 == 0).reshape(shape)
    if dtype.kind in "iu" or name in ("int4", "uint4", "int2", "uint2"):
        limits = (ml_dtypes.iinfo if dtype.kind == "V" else np.iinfo)(dtype)
        values = [limits.max, limits.min, 0, 1]
        return np.array([values[i % 4] for i in range(size)], dtype).reshape(shape)
    parts = np.array([0.5, -1.5, 0.0, 2.0, 1.0, 3.0])
    values = np.resize(parts, size)
    if dtype.kind == "c":
        values = values + 1j * values[::-1]
    return values.astype(dtype).reshape(shape)


def same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> None:
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if a.dtype == object or a.dtype.itemsize == 1:  # the unused bits of an int4 may differ
        assert a.tolist() == b.tolist()
    else:
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 4), (7, 1, 9)])
@pytest.mark.parametrize("name", HELD)
def test_every_dtype_survives_both_forms(name: str, shape: tuple[int, ...]) -> None:
    array = example(name, shape)
    assert dtypes.name(from_numpy(array, content=True).dtype) == name
    same(to_numpy(from_numpy(array, content=True)), array)
    typed = from_numpy(array)
    assert not typed.tensor_content
    same(to_numpy(typed), array)


# Forms that the C++ runtime reads and the Python helper does not.
NOT_IN_MAKE_NDARRAY = {("string", True)} | {(n, False) for n in HELD if n.endswith("fnuz")}


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow")


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", HELD)
def test_tensorflow_reads_ours_and_we_read_tensorflows(tf: Any, name: str) -> None:
    array = example(name)
    dtype = tf.dtypes.as_dtype(dtypes.number(name))
    assert np.dtype(dtype.as_numpy_dtype) == dtypes.to_numpy(name)
    for content in (False, True):
        wire = encode(array, content)
        same(tf.io.parse_tensor(wire, dtype).numpy(), array)
        if (name, content) not in NOT_IN_MAKE_NDARRAY:
            same(tf.make_ndarray(type(tf.make_tensor_proto(1)).FromString(wire)), array)
    made = tf.make_tensor_proto(array)
    same(to_numpy(messages.TensorProto.FromString(made.SerializeToString())), array)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["float", "string", "bool", "complex64", "half", "uint64", "int8"])
@pytest.mark.parametrize("given", [0, 1, 4, 6])
def test_short_fields_are_filled_as_the_runtime_fills_them(tf: Any, name: str, given: int) -> None:
    """io.parse_tensor runs Tensor::FromProto, the code that TensorFlow Serving runs on a request."""
    array = example(name, (6,))
    proto = from_numpy(array[:given])
    proto.tensor_shape.dim[0].size = 6
    theirs = tf.io.parse_tensor(proto.SerializeToString(), tf.dtypes.as_dtype(dtypes.number(name))).numpy()
    same(to_numpy(proto), theirs)


@pytest.mark.tensorflow
def test_surplus_values_and_string_content_read_as_the_runtime_reads_them(tf: Any) -> None:
    surplus = from_numpy(np.arange(5, dtype=np.float32))
    surplus.tensor_shape.dim[0].size = 2
    strings = from_numpy(example("string"), content=True)
    half_a_number = from_numpy(np.array([1 + 2j, 3 + 4j], np.complex64))
    half_a_number.scomplex_val.pop()
    for proto, dtype in ((surplus, tf.float32), (strings, tf.string), (half_a_number, tf.complex64)):
        same(to_numpy(proto), tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy())


@given(
    hnp.arrays(
        st.sampled_from(
            ["f4", "f8", "i4", "i8", "u1", "u2", "u4", "u8", "i1", "i2", "?", "c8", "c16", "f2", ">f4", ">i8"]
        ),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
    ),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_array_in_any_layout_survives(array: np.ndarray[Any, Any], content: bool, turned: bool) -> None:
    array = array.T if turned else array
    same(
        to_numpy(from_numpy(array, content)),
        np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape),
    )


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_bytes_survive(values: list[bytes], content: bool) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    assert to_numpy(from_numpy(array, content)).tolist() == values


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_no_bytes_crash_the_reader(body: bytes) -> None:
    """Whatever parses as a message is either an array of the proto's shape or a TensorError."""
    try:
        proto = messages.TensorProto.FromString(body)
    except messages_decode_error():
        return
    try:
        array = to_numpy(proto)
    except TensorError:
        return
    assert array.shape == tuple(dim.size for dim in proto.tensor_shape.dim)


def messages_decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError


def test_long_typed_fields_take_the_array_path() -> None:
    for name in HELD:
        array = example(name, (tensors._SHORT * 3 + 1,))
        same(to_numpy(from_numpy(array)), array)


def test_str_is_sent_as_utf8_and_numpy_text_is_taken() -> None:
    assert to_numpy(from_numpy(np.array(["ä", b"b"], object))).tolist() == ["ä".encode(), b"b"]
    assert to_numpy(from_numpy(np.array(["ä", "bc"]))).tolist() == ["ä".encode(), b"bc"]
    assert to_numpy(from_numpy(np.array([b"a", b"bc"]))).tolist() == [b"a", b"bc"]


def test_fill_writes_into_a_map_entry() -> None:
    response = messages.PredictResponse()
    tensors.fill(response.outputs["y"], np.array([[1.5]], np.float32))
    assert response.outputs["y"].float_val[:] == [1.5]
    assert to_numpy(response.outputs["y"]).tolist() == [[1.5]]


def proto(dtype: int = 1, dims: tuple[int, ...] = (2,), **fields: Any) -> Any:
    return messages.TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": d} for d in dims]}, **fields)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (proto(dtype=0), r"no data type \(DT_INVALID\)"),
        (proto(dtype=77), "unknown TensorFlow data type number 77"),
        (proto(dtype=20), "data type resource has no numpy array"),
        (proto(dims=(2, -1)), r"shape \[2, -1\] has a negative dimension"),
        (messages.TensorProto(dtype=1, tensor_shape={"unknown_rank": True}), "unknown rank"),
        (proto(tensor_content=b"123"), r"tensor_content has 3 bytes, but shape \[2\] of float takes 8"),
        (proto(dims=(1 << 40,), float_val=[1]), "1099511627776 elements but only 1 values"),
        (proto(dims=(1 << 40, 1 << 40)), "elements but only 0 values"),
        (proto(dims=(0, 1 << 62, 1 << 62)), "too large"),
        (proto(dims=(1,) * 65, float_val=[1]), "65 dimensions; at most 64"),
        (proto(7, (1 << 30,), string_val=[b"a"]), "1073741824 elements but only 1 values"),
        (proto(1, (1 << 25,), float_val=[1]), "33554432 elements but only 1 values"),
        (proto(7, (1 << 24,), string_val=[b"a"]), "repeated for 67108864 bytes at most"),
        (proto(7, (3,), tensor_content=b"\x01"), "too few for 3 strings"),
        (proto(7, (1,), tensor_content=b"\x05ab"), "its 1 strings take 6"),
        (proto(7, (1,), tensor_content=b"\xff\xff"), "ends inside a string's length"),
    ],
)
def test_bad_protos_say_what_is_wrong(bad: Any, text: str) -> None:
    with pytest.raises(TensorError, match=text):
        to_numpy(bad)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.array([1, None], object), "a string tensor holds bytes; received int 1"),
        (np.array(["2020-01-01"], "M8[D]"), "has no TensorFlow data type"),
        (np.zeros(2, [("a", "f4")]), "has no TensorFlow data type"),
    ],
)
def test_arrays_that_no_tensor_holds_are_refused(bad: np.ndarray[Any, Any], text: str) -> None:
    with pytest.raises(TensorError, match=text):
        from_numpy(bad)


def test_numbers_are_those_of_tensorflows_enum() -> None:
    enum = messages.pool().FindEnumTypeByName("tensorflow.DataType")
    plain = {v.name[3:].lower(): v.number for v in enum.values if 0 < v.number < 100}
    assert plain == dtypes.NUMBERS
    assert dtypes.name(101) == "float"
    with pytest.raises(dtypes.DtypeError, match="'int3'"):
        dtypes.number("int3")
