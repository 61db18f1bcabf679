"""Requests that look like one before must be read as protobuf reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpcclient import predict_request
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_protos import messages, tensors
from tfopt_server import predict_message as codec
from tfopt_server.dataplane import ModelSpec
from tfopt_server.rpc import known
from tfopt_server.rpc.known import Memory

DTYPES = ("float", "double", "int32", "int64", "uint8", "bool", "half", "bfloat16", "complex64", "string")
SPEC = ModelSpec("m")


def signature(dtypes: Mapping[str, str]) -> SignatureInfo:
    inputs = tuple(TensorInfo(name, dtype, None, f"{name}:0") for name, dtype in dtypes.items())
    return SignatureInfo("s", "", inputs, (), ())


def by_protobuf(data: bytes, info: SignatureInfo) -> dict[str, np.ndarray]:
    request = messages.PredictRequest.FromString(data)
    return codec.feeds(request.inputs, info, lambda name: None)


def learned(memory: Memory, data: bytes, info: SignatureInfo) -> bool:
    memory.learn(data, SPEC, "s", info, by_protobuf(data, info), None)
    return memory.find(data) is not None


def values(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype == "string":
        found = np.empty(shape, object)
        found.ravel()[:] = [b"%03d" % n for n in random.integers(0, 999, found.size)]
        return found
    from tfopt_protos import dtypes

    kind = dtypes.to_numpy(dtype)
    return (random.integers(0, 2 if dtype == "bool" else 100, shape)).astype(kind)


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(
    st.dictionaries(st.text("abé", min_size=1, max_size=3), st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=3),
    st.booleans(), st.lists(st.sampled_from("yz"), unique=True), st.integers(0, 2**20),
)  # fmt: skip
def test_what_is_known_is_read_as_protobuf_reads_it(inputs: Any, content: bool, chosen: list[str], seed: int):
    def request(seed: int) -> bytes:
        feeds = {name: values(dtype, shape, seed + i) for i, (name, (dtype, shape)) in enumerate(inputs.items())}
        return predict_request(feeds, "s", chosen, content).SerializeToString(deterministic=True)

    info, memory = signature({name: dtype for name, (dtype, _) in inputs.items()}), Memory()
    first, second = request(seed), request(seed + 100)
    plain = all(
        np.prod(shape) > 0 and dtype != "string" and (content or dtype in ("float", "double"))
        for dtype, shape in inputs.values()
    )
    assert learned(memory, first, info) == plain
    found = memory.find(second)
    if plain:
        assert found is not None
        expected = by_protobuf(second, info)
        feeds = found.feeds(second)
        assert list(feeds) == list(expected)
        for name, array in expected.items():
            assert (feeds[name].dtype, feeds[name].shape) == (array.dtype, array.shape)
            assert feeds[name].tobytes() == array.tobytes()
            assert feeds[name].flags.aligned


@given(st.data())
def test_a_request_with_any_other_byte_is_unknown_or_read_alike(drawn: st.DataObject):
    info, memory = signature({"x": "float", "n": "int64"}), Memory()
    feeds = {"x": np.float32([[1, 2, 3]]), "n": np.int64([[7]])}
    data = predict_request(feeds, "s", ["y"], True, version={"value": 3}).SerializeToString()
    assert learned(memory, data, info)
    place = drawn.draw(st.integers(0, len(data) - 1))
    changed = data[:place] + bytes([drawn.draw(st.integers(0, 255))]) + data[place + 1 :]
    found = memory.find(changed)
    if found is not None:
        expected = by_protobuf(changed, info)
        assert {n: (a.shape, a.tobytes()) for n, a in found.feeds(changed).items()} == {
            n: (a.shape, a.tobytes()) for n, a in expected.items()
        }
    assert memory.find(changed + b"x") is None


def field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2, len(payload)]) + payload


def entry(name: bytes, tensor: bytes) -> bytes:
    return field(2, field(1, name) + field(2, tensor))


ONE = tensors.encode(np.float32([1]), True)
NEXT = tensors.encode(np.float32([2]))
UNUSUAL = {
    "a name twice": entry(b"x", ONE) + entry(b"x", ONE),
    "content and typed values": entry(b"x", ONE + NEXT),
    "content twice": entry(b"x", ONE + field(4, b"abcd")),
    "values unpacked": entry(b"x", tensors.encode(np.float32([]))[:2] + field(2, b"") + b"\x2d\0\0\0\0"),
    "fewer values than elements": entry(b"x", messages.from_text(
        "tensorflow.TensorProto", "dtype: DT_FLOAT tensor_shape { dim { size: 3 } } float_val: 1").SerializeToString()),
    "an entry without a name": field(2, field(2, ONE)),
    "a spec twice": field(1, b"") + entry(b"x", ONE) + field(1, b""),
    "an unknown field": entry(b"x", ONE) + field(9, b"abc"),
    "an unknown field in the tensor": entry(b"x", ONE + b"\xa8\x06\x01"),
}  # fmt: skip


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_what_is_unusual_is_left_to_protobuf(data: bytes):
    request = messages.PredictRequest.FromString(data)
    info = signature(dict.fromkeys(request.inputs, "float"))
    assert not learned(Memory(), data, info)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    info, memory = signature({"x": "float"}), Memory()

    def request(rows: int, **spec: Any) -> bytes:
        return predict_request({"x": np.zeros(rows, np.float32)}, "s", content=True, **spec).SerializeToString()

    monkeypatch.setattr(known, "REMEMBERED", 4)
    for rows in range(1, 11):
        learned(memory, request(rows), info)
        memory.find(request(rows))
    assert len(memory._known) <= 4
    assert not learned(memory, request(1, version_label="x" * 5000), info)  # too long to be kept


def test_requests_that_teach_nothing_are_soon_left_alone(monkeypatch: pytest.MonkeyPatch):
    looked: list[bytes] = []
    real = known._holes
    monkeypatch.setattr(known, "_holes", lambda data: looked.append(data) or real(data))
    info, memory = signature({"x": "string"}), Memory()
    data = predict_request({"x": np.array([b"a"], object)}, "s").SerializeToString()
    feeds = by_protobuf(data, info)
    for _ in range(64 * 100):
        memory.learn(data, SPEC, "s", info, feeds, None)
    assert len(looked) < 200
