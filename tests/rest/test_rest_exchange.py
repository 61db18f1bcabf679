"""Binary bodies and answers on the predict routes: PredictRequest and .npy."""

from __future__ import annotations

import contextlib
import io
import threading
from typing import Any

import faceplane
import ml_dtypes
import numpy as np
import pytest
import restclient
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rpcclient import predict_request
from tfopt_optimizer.plan import TensorInfo
from tfopt_protos import messages, tensors
from tfopt_server.errors import ServingError
from tfopt_server.rest import npy
from tfopt_server.rest.app import App
from tfopt_server.rest.forms import Form, Forms, forms_of

PROTOBUF, NPY = "application/x-protobuf", "application/octet-stream"
TARGET = "/v1/models/m:predict"


class Face:
    def __init__(self, *argv: str) -> None:
        self.plane = faceplane.plane()
        self.app = App(self.plane, faceplane.configured(*argv), self.plane.metrics)

    def post(self, body: Any, kind: str, accept: str = "*/*", target: str = TARGET) -> restclient.Answer:
        return restclient.call(self.app, "POST", target, body, {"content-type": kind, "accept": accept})


@pytest.fixture(scope="module")
def face() -> Face:
    return Face()


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def predicted(answer: restclient.Answer) -> dict[str, np.ndarray]:
    assert (answer.status, answer.headers["content-type"]) == (200, PROTOBUF), answer.body
    response = messages.PredictResponse.FromString(answer.body)
    return {name: tensors.to_numpy(proto) for name, proto in response.outputs.items()}


def test_a_predict_request_is_answered_as_on_grpc(face: Face) -> None:
    request = predict_request({"x": np.float32([1, 2])}, "several", ["c", "a"])
    answer = face.post(request.SerializeToString(), PROTOBUF)
    np.testing.assert_equal(predicted(answer), {"c": np.float32([2, 3]), "a": np.float32([1, 2])})
    spec = messages.PredictResponse.FromString(answer.body).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 2, "several")
    assert face.plane.calls[-1][3] == ("c", "a")
    assert face.plane.held == 0


def test_the_answers_tensors_follow_the_flag() -> None:
    body = predict_request({"x": np.float32([1])}).SerializeToString()
    plain = messages.PredictResponse.FromString(Face().post(body, PROTOBUF).body)
    content = messages.PredictResponse.FromString(
        Face("--enable_serialization_as_tensor_content").post(body, PROTOBUF).body
    )
    assert (list(plain.outputs["y"].float_val), plain.outputs["y"].tensor_content) == ([2.5], b"")
    assert content.outputs["y"].tensor_content == np.float32([2.5]).tobytes()


@pytest.mark.parametrize(
    ("target", "spec", "version"),
    [
        (TARGET, {}, 2),
        (TARGET, {"version": {"value": 1}}, 1),
        (TARGET, {"version_label": "stable"}, 1),
        ("/v1/models/m/versions/1:predict", {"version": {"value": 2}}, 1),
        ("/predict", {"name": "m", "version_label": "canary"}, 2),
    ],
)
def test_the_path_names_the_model_and_the_message_what_the_path_leaves_out(
    face: Face, target: str, spec: dict[str, Any], version: int
) -> None:
    request = predict_request({"x": np.float32([1])})
    request.model_spec.CopyFrom(messages.ModelSpec(**spec))
    assert face.post(request.SerializeToString(), PROTOBUF, target=target).status == 200
    assert face.plane.calls[-1][0].version == version


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"\xff\xff", 400, "The request is no tensorflow.serving.PredictRequest: "),
        (messages.PredictRequest(model_spec={"name": "other"}).SerializeToString(), 400,
         "model_spec.name: expected 'm', as the path says, or none; received 'other'"),
        (predict_request({"x": np.float64([1])}).SerializeToString(), 400, "Expects arg[0] to be float but double is"),
        (predict_request({"y": np.float32([1])}).SerializeToString(), 400, "Signature input alias: x("),
        (predict_request({"x": np.float32([1])}, "nope").SerializeToString(), 400, 'Serving signature name: "nope"'),
        (predict_request({"x": np.float32([1])}, "fails").SerializeToString(), 500, "Internal error (incident "),
        (b"", 400, "input size does not match signature: 0!=1"),
    ],
)  # fmt: skip
def test_messages_that_are_refused(face: Face, body: bytes, status: int, text: str) -> None:
    answer = face.post(body, PROTOBUF)
    assert answer.status == status
    assert answer.error.startswith(text)
    assert answer.headers["content-type"] == "application/json"
    assert face.plane.held == 0


def test_an_npy_file_is_answered_by_one(face: Face) -> None:
    answer = face.post(saved(np.float32([1, 2])), NPY)
    assert (answer.status, answer.headers["content-type"]) == (200, NPY)
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.body)), np.float32([2.5, 3]))


@pytest.mark.parametrize(
    ("kind", "accept", "answered"),
    [
        (NPY, "application/json", "application/json"),
        (NPY, PROTOBUF, PROTOBUF),
        (PROTOBUF, "application/json", "application/json"),
        (PROTOBUF, NPY, NPY),
        ("application/json", NPY, NPY),
        ("application/json", PROTOBUF, PROTOBUF),
        ("application/json", "text/html, */*;q=0.1", "application/json"),
        (PROTOBUF, "image/png", PROTOBUF),
    ],
)
def test_accept_chooses_the_answers_form(face: Face, kind: str, accept: str, answered: str) -> None:
    x = np.float32([1, 2])
    bodies = {NPY: saved(x), PROTOBUF: predict_request({"x": x}).SerializeToString()}
    answer = face.post(bodies.get(kind, {"inputs": [1, 2]}), kind, accept)
    assert (answer.status, answer.headers["content-type"]) == (200, answered)
    if answered == "application/json":
        assert answer.json() == {"outputs": [2.5, 3.0]}
    elif answered == NPY:
        np.testing.assert_array_equal(np.load(io.BytesIO(answer.body)), np.float32([2.5, 3]))
    else:
        np.testing.assert_array_equal(predicted(answer)["y"], np.float32([2.5, 3]))


def test_an_npy_answer_needs_one_output(face: Face) -> None:
    answer = face.post({"inputs": [1], "signature_name": "several"}, "application/json", NPY)
    assert answer.status == 400
    assert answer.error.startswith("An .npy file holds one output, and there are 3: a, b, c; ask for ")
    two = predict_request({"x": np.float32([1])}, "several", ["b"]).SerializeToString()
    np.testing.assert_array_equal(np.load(io.BytesIO(face.post(two, PROTOBUF, NPY).body)), np.float32([-1]))


def info(dtype: str) -> TensorInfo:
    return TensorInfo("x", dtype, None, "x:0")


@pytest.mark.parametrize(
    ("sent", "dtype", "read"),
    [
        (np.asfortranarray(np.float32([[1, 2, 3], [4, 5, 6]])), "float", np.float32([[1, 2, 3], [4, 5, 6]])),
        (np.array([1, 2], ">i4"), "int32", np.int32([1, 2])),
        (np.array(["a", "é"]), "string", np.array([b"a", "é".encode()], object)),
        (np.array([b"a", b"bc"]), "string", np.array([b"a", b"bc"], object)),
        (np.float32(3), "float", np.float32(3)),
        (np.zeros((0, 3), np.float32), "float", np.zeros((0, 3), np.float32)),
        (np.array([True, False]), "bool", np.array([True, False])),
        (np.array([1.5, 2], ml_dtypes.bfloat16), "bfloat16", np.array([1.5, 2], ml_dtypes.bfloat16)),
    ],
)
def test_npy_arrays_that_are_read(sent: Any, dtype: str, read: np.ndarray) -> None:
    found = npy.array(saved(sent), info(dtype))
    assert (found.dtype, found.shape) == (read.dtype, read.shape)
    assert found.tolist() == read.tolist()
    assert found.flags.c_contiguous
    if dtype == "float":
        assert npy.array(saved(np.asarray(read)), info(dtype)).tolist() == read.tolist()


ARRAY = saved(np.float32([1, 2]))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x93NUMPZ\x01\x00", "the magic string is not correct"),
        (b"", "EOF"),
        (ARRAY[:20], "EOF"),
        (ARRAY[:-1], "expected 8 bytes of data, received 7"),
        (ARRAY + b"x", "expected 8 bytes of data, received 9"),
        (saved(np.float64([1])), "input 'x' expects float, received double"),
        (saved(np.array([1, "a"], object), allow_pickle=True), "expected numbers"),
        (saved(np.zeros(2, [("a", "f4")])), "expected numbers"),
        (saved(np.array(["2020-01-01"], "M8[D]")), "input 'x' expects float, received datetime64[D]"),
        (ARRAY.replace(b"(2,)", b"(-2,)").replace(b" \n", b"\n", 1), ""),
        (ARRAY.replace(b"'<f4'", b"'<f9'"), ""),
        (ARRAY.replace(b"'<f4'", b"'|S0'")[:-8], "received dtype |S0"),  # of any shape, in no bytes
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, ""),
    ],
)
def test_npy_files_that_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ServingError, match=r"The request body is no \.npy file") as refused:
        npy.array(body, info("float"))
    assert reason in refused.value.message


def test_an_npy_file_holds_one_input(face: Face) -> None:
    plane = faceplane.FakePlane({("m", 1): [faceplane.signature(
        "serving_default", lambda a, b: {"y": a + b}, {"a": "float", "b": "float"}, {"y": "float"})]})  # fmt: skip
    app = App(plane, faceplane.configured(), plane.metrics)
    answer = restclient.call(app, "POST", TARGET, ARRAY, {"content-type": NPY})
    assert answer.error == "An .npy file holds one input, and signature serving_default has 2: a, b"


LONG = 100_000


@pytest.mark.parametrize(
    ("array", "cached", "on_the_loop"),
    [
        (np.zeros(LONG, np.float32), False, True),
        (np.zeros(LONG, np.float32), True, False),
        (np.zeros(LONG, ">f4"), False, False),
        (np.zeros((LONG, 2), np.float32, order="F"), False, False),
        (np.full(LONG, b"a"), False, False),
    ],
    ids=["numbers", "numbers that a cache reads", "of another byte order", "of another order", "strings"],
)
def test_long_files_that_are_not_taken_as_they_are_are_read_on_a_thread(
    monkeypatch: pytest.MonkeyPatch, array: np.ndarray, cached: bool, on_the_loop: bool
) -> None:
    read, there = npy.array, list[bool]()

    def reading(body: bytes, wanted: TensorInfo) -> np.ndarray:
        there.append(threading.current_thread() is threading.main_thread())
        return read(body, wanted)

    monkeypatch.setattr(npy, "array", reading)
    face = Face()
    face.plane.reads_inputs = cached
    face.post(saved(array), NPY)
    assert there == [on_the_loop]


def test_strings_that_numpy_would_shorten_are_not_written() -> None:
    assert np.load(io.BytesIO(npy.written(np.array([b"a", b"bcd"], object)))).tolist() == [b"a", b"bcd"]
    assert np.load(io.BytesIO(npy.written(np.empty((0, 2), object)))).shape == (0, 2)
    with pytest.raises(ServingError, match="zero byte"):
        npy.written(np.array([b"a\0"], object))


NUMBERS = {"float": np.float32, "double": np.float64, "int8": np.int8, "int64": np.int64, "uint16": np.uint16,
           "bool": np.bool_, "half": np.float16, "complex64": np.complex64}  # fmt: skip


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_array_comes_back_as_it_was(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(NUMBERS)))
    array = data.draw(arrays.arrays(NUMBERS[dtype], arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)))
    found = npy.array(npy.written(array), info(dtype))
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: ARRAY[:70] + tail))
@settings(max_examples=150, deadline=None)
def test_no_bytes_are_more_than_refused(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        assert npy.array(body, info("float")).dtype == np.float32


@given(st.binary(max_size=200), st.sampled_from([PROTOBUF, NPY, "application/json"]))
@settings(max_examples=150, deadline=None)
def test_no_body_of_any_kind_is_an_internal_error(body: bytes, kind: str) -> None:
    face = FUZZED
    assert face.post(body, kind).status in (200, 400)
    assert face.plane.held == 0


FUZZED = Face()


@pytest.mark.parametrize(
    ("kind", "accept", "forms"),
    [
        (b"", b"", None),
        (b"application/json", b"*/*", None),
        (b"text/plain", b"text/html,application/xhtml+xml,*/*;q=0.8", None),
        (b"Application/X-Protobuf; messageType=x", b"", Forms(Form.PROTOBUF, Form.PROTOBUF)),
        (b"application/x-npy", b"application/json", Forms(Form.NPY, Form.JSON)),
        (b"", b"text/event-stream", Forms(Form.JSON, Form.EVENTS)),
        (b"", b"application/json, text/event-stream", None),
        (b"\xff", b"\xff", None),
    ],
)
def test_forms(kind: bytes, accept: bytes, forms: Forms | None) -> None:
    assert forms_of(kind, accept) == forms
