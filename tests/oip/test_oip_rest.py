"""The Open Inference Protocol over REST: documents, binary tensors, the repository, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import faceplane
import ml_dtypes
import numpy as np
import pytest
import restclient
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tfopt_server.errors import Code, ServingError
from tfopt_server.oip import datatypes
from tfopt_server.oip.document import from_json
from tfopt_server.rest.app import App

INFER = "/v2/models/m/infer"
LENGTH = "inference-header-content-length"


class Face:
    def __init__(self, *argv: str) -> None:
        self.plane = faceplane.plane()
        self.app = App(self.plane, faceplane.configured(*argv), self.plane.metrics)

    def get(self, target: str) -> restclient.Answer:
        return restclient.call(self.app, "GET", target)

    def post(self, target: str, body: Any = b"", headers: dict[str, str] | None = None) -> restclient.Answer:
        return restclient.call(self.app, "POST", target, body, headers)

    def infer(self, *inputs: dict[str, Any], target: str = INFER, **rest: Any) -> restclient.Answer:
        return self.post(target, {"inputs": list(inputs), **rest})


@pytest.fixture(scope="module")
def face() -> Face:
    return Face()


def tensor(name: str, datatype: str, shape: list[int], data: Any, **rest: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **rest}


X = tensor("x", "FP32", [2], [1, 2.5])


def test_a_request_is_answered_with_named_typed_tensors(face: Face) -> None:
    answer = face.infer(X, id="seven")
    assert answer.status == 200
    assert answer.json() == {
        "model_name": "m", "model_version": "2", "id": "seven",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [2.5, 3.25]}],
    }  # fmt: skip
    assert face.plane.held == 0


@pytest.mark.parametrize(("where", "version"), [("/versions/1", "1"), ("/versions/canary", "2"), ("", "2")])
def test_the_path_names_a_version_or_a_label(face: Face, where: str, version: str) -> None:
    assert face.infer(X, target=f"/v2/models/m{where}/infer").json()["model_version"] == version


def test_signatures_are_asked_for_by_parameter_and_outputs_by_name(face: Face) -> None:
    asked = {"parameters": {"signature_name": "several"}, "outputs": [{"name": "c"}, {"name": "a"}]}
    outputs = face.infer(X, **asked).json()["outputs"]
    assert [(o["name"], o["data"]) for o in outputs] == [("c", [2.0, 3.5]), ("a", [1.0, 2.5])]


def test_binary_tensors_stand_behind_the_document_both_ways(face: Face) -> None:
    numbers, texts = np.float32([[1, 2]]), [b"a\xff", b""]
    parts = [numbers.tobytes(), datatypes.raw(datatypes.objects(texts))]
    head = json.dumps(
        {
            "inputs": [
                {"name": n, "datatype": d, "shape": [1, 2], "parameters": {"binary_data_size": len(part)}}
                for n, d, part in zip("ab", ("FP32", "BYTES"), parts, strict=True)
            ],
            "outputs": [{"name": "text", "parameters": {"binary_data": True}}, {"name": "sum"}],
            "parameters": {"signature_name": "two"},
        }
    ).encode()
    answer = face.post(INFER, head + b"".join(parts), {LENGTH: str(len(head))})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/octet-stream"
    at = int(answer.headers[LENGTH])
    text, total = json.loads(answer.body[:at])["outputs"]
    assert text == {"name": "text", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": 12}}
    assert (total["data"], total["shape"]) == ([2.0, 4.0], [1, 2])
    assert datatypes.array(answer.body[at:], "BYTES", (2,)).tolist() == [b"a\xff!", b"!"]


def test_all_outputs_are_binary_where_the_request_says_so(face: Face) -> None:
    answer = face.infer(X, parameters={"binary_data_output": True})
    assert answer.body[int(answer.headers[LENGTH]) :] == np.float32([2.5, 3.25]).tobytes()


def test_values_without_json_words_and_defaults(face: Face) -> None:
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[3],"data":[NaN,Infinity,-Infinity]}]}'
    assert face.post(INFER, body).body.endswith(b'"data":[NaN,Infinity,-Infinity]}]}')
    outputs = face.infer(tensor("a", "FP32", [1], [1]), parameters={"signature_name": "with_default"}).json()["outputs"]
    assert outputs[0]["data"] == [11.0]


@pytest.mark.parametrize("dtype", faceplane.DTYPES)
def test_every_datatype_echoes(face: Face, dtype: str) -> None:
    if dtype == "complex64":
        refused = face.infer(tensor("x", "COMPLEX64", [1], [1]), parameters={"signature_name": "echo_complex64"})
        assert (refused.status, "cannot carry" in refused.error) == (400, True)
        return
    values = {"bool": [True, False], "string": ["a", "ü"]}.get(dtype, [0, 7])
    asked = tensor("x", datatypes.name(dtype), [2], values)
    sent = face.infer(asked, parameters={"signature_name": f"echo_{dtype}"}).json()["outputs"][0]
    assert (sent["datatype"], sent["data"]) == (datatypes.name(dtype), values)


BAD = [
    ({"inputs": [X | {"datatype": "INT32"}]}, "input 'x': expected datatype FP32, received 'INT32'"),
    ({"inputs": [X | {"shape": [3]}]}, "input 'x': expected 3 values for shape [3], received 2"),
    ({"inputs": [X | {"shape": [-1]}]}, "input 'x': expected a shape of integers >= 0, received [-1]"),
    ({"inputs": [X | {"shape": "2"}]}, "input 'x': expected shape as an array of integers, received '2'"),
    ({"inputs": [X | {"data": ["a", "b"]}]}, "input 'x': expected numbers for FP32, received a string 'a'"),
    ({"inputs": [X | {"data": [True, 1]}]}, "input 'x': expected numbers for FP32, received a boolean 'True'"),
    ({"inputs": [X | {"data": [[1], [2, 3]]}]}, "input 'x': expected data in arrays of equal lengths"),
    ({"inputs": [X | {"data": None}]}, "input 'x': expected numbers for FP32, received null 'None'"),
    ({"inputs": [X, X]}, "inputs: expected each name once; received 'x' again"),
    ({"inputs": [X | {"name": "z"}]}, "inputs: expected x; received 'z', which signature serving_default lacks"),
    ({"inputs": []}, "inputs: expected x; missing: x"),
    ({}, "inputs: expected an array of tensors, received nothing"),
    ({"inputs": 3}, "inputs: expected an array of objects, received a number"),
    ([], "expected the request to be an object, received an array"),
    ({"inputs": [X], "id": 1}, "id: expected a string, received a number"),
    ({"inputs": [X], "outputs": [{"name": "q"}]}, "outputs: expected some of y; received 'q'"),
    ({"inputs": [X], "outputs": [{}]}, "outputs: expected a name as a string, received null"),
    ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "binary_data: expected true or"),
    ({"inputs": [X], "parameters": {"signature_name": 1}}, "parameters.signature_name: expected a string"),
    ({"inputs": [X], "parameters": {"signature_name": "no"}}, "parameters.signature_name: expected one of "),
    ({"inputs": [X], "parameters": {"timeout": -1}}, "parameters.timeout: expected microseconds"),
    ({"inputs": [X | {"parameters": {"binary_data_size": 8}}]}, "binary_data_size says 8 bytes, and 0 are left"),
    (
        {"inputs": [tensor("x", "INT8", [1], [300])], "parameters": {"signature_name": "echo_int8"}},
        "input 'x': expected integers from -128 to 127 for INT8, received 300",
    ),
    (
        {"inputs": [tensor("x", "INT64", [1], [1.5])], "parameters": {"signature_name": "echo_int64"}},
        "input 'x': expected integers for INT64, received a number '1.5'",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("document", "text"), BAD)
def test_what_is_wrong_is_named(face: Face, document: Any, text: str) -> None:
    answer = face.post(INFER, document)
    assert (answer.status, text in answer.error) == (400, True), answer.body
    assert face.plane.held == 0


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/v2/models/none/infer", 404, "Servable not found for request: Latest(none)"),
        ("/v2/models/m/versions/9/infer", 404, "Servable not found for request: Specific(m, 9)"),
        ("/v2/models/m/versions/nightly/infer", 400, "Unrecognized servable version label: nightly"),
        ("/v2/models/m/versions/99999999999999999999/infer", 400, "version: expected a number up to"),
    ],
)
def test_models_that_are_not_there(face: Face, target: str, status: int, text: str) -> None:
    answer = face.infer(X, target=target)
    assert (answer.status, text in answer.error) == (status, True)


@pytest.mark.parametrize("length", ["0", "-1", "x", "9999"])
def test_a_header_length_that_cannot_be(face: Face, length: str) -> None:
    answer = face.post(INFER, {"inputs": [X]}, {LENGTH: length})
    assert (answer.status, "Inference-Header-Content-Length: expected 1 to" in answer.error) == (400, True)


def test_bytes_that_belong_to_no_input(face: Face) -> None:
    head = json.dumps({"inputs": [X]}).encode()
    answer = face.post(INFER, head + b"1234", {LENGTH: str(len(head))})
    assert (answer.status, answer.error) == (400, "4 bytes behind the JSON belong to no input")


@pytest.mark.parametrize(
    ("where", "extension"),
    [
        ({"parameters": {"sequence_id": 4}}, "sequences"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 2}}]}, "classification"),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
    ],
)
def test_extensions_that_are_not_served_are_refused_by_name(face: Face, where: Any, extension: str) -> None:
    answer = face.infer(X, **where)
    assert (answer.status, f"the extension for {extension} is not served" in answer.error) == (501, True)


def test_text_that_is_none_is_only_sent_as_bytes(face: Face) -> None:
    part = datatypes.raw(datatypes.objects([b"\xff"]))
    entry = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(part)}}
    head = json.dumps({"inputs": [entry], "parameters": {"signature_name": "echo_string"}}).encode()
    answer = face.post(INFER, head + part, {LENGTH: str(len(head))})
    assert (answer.status, "ask for it with binary_data: true" in answer.error) == (400, True)


def test_a_request_may_say_how_long_it_waits(face: Face) -> None:
    slow = tensor("x", "FP32", [1], [5])
    answer = face.infer(slow, parameters={"signature_name": "slow", "timeout": 20_000})
    assert (answer.status, answer.error) == (504, "Run() timed out")


def test_the_server_and_its_models(face: Face) -> None:
    assert face.get("/v2").json()["extensions"] == ["binary_tensor_data", "model_repository"]
    assert face.get("/v2/").status == 200
    assert face.get("/v2/health/live").json() == {"live": True}
    assert face.get("/v2/health/ready").json() == {"ready": True}
    assert face.get("/v2/models/m").json() == {
        "name": "m", "versions": ["1", "2"], "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    }  # fmt: skip
    ready = [face.get(f"/v2/models/{m}/ready") for m in ("m", "m/versions/1", "m/versions/7", "other")]
    assert [(each.status, each.json()) for each in ready] == [
        (200, {"name": "m", "ready": True}), (200, {"name": "m", "ready": True}),
        (404, {"name": "m", "ready": False}), (404, {"name": "other", "ready": False}),
    ]  # fmt: skip
    assert face.get("/v2/models/other").status == face.get("/v2/nothing").status == 404
    wrong = face.get(INFER)
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")


def test_ready_follows_the_server() -> None:
    face = Face()
    face.plane.fit = False
    answer = face.get("/v2/health/ready")
    assert (answer.status, answer.json()) == (503, {"ready": False})


def test_the_index_lists_every_version(face: Face) -> None:
    listed = face.post("/v2/repository/index", {"ready": True}).json()
    assert {(m["name"], m["version"], m["state"]) for m in listed} == {("m", "1", "READY"), ("m", "2", "READY")}
    assert face.post("/v2/repository/index", {"ready": 1}).status == 400


def test_clients_change_models_only_with_the_flag(face: Face) -> None:
    refused = face.post("/v2/repository/models/m/unload")
    assert (refused.status, "--enable_model_repository" in refused.error) == (400, True)
    allowed = Face("--enable_model_repository")
    assert allowed.post("/v2/repository/models/m/unload", {"parameters": {"unload_dependents": True}}).status == 200
    assert allowed.post("/v2/repository/models/n/load", {"parameters": {"base_path": "/models/n"}}).status == 200
    assert allowed.plane.configs == [("unload", "m"), ("load", "n", "/models/n")]
    unknown = allowed.post("/v2/repository/models/n/load", {"parameters": {"config": "{}"}})
    assert (unknown.status, unknown.error) == (400, "parameters: expected base_path at most, received 'config'")
    allowed.plane.reload_outcome = ServingError(Code.UNKNOWN, "n did not become available")
    failed = allowed.post("/v2/repository/models/n/load")
    assert (failed.status, failed.error) == (500, "n did not become available")


def test_the_platforms_route_may_be_one_of_these() -> None:
    face = Face("--predict_route=/v2/models/m/infer")
    assert face.infer(X).json()["outputs"][0]["data"] == [2.5, 3.25]


def test_long_bodies_and_answers_leave_the_event_loop(face: Face) -> None:
    many = np.arange(300_000, dtype=np.float32)
    answer = face.infer(tensor("x", "FP32", [many.size], many.tolist()))
    np.testing.assert_array_equal(np.float32(answer.json()["outputs"][0]["data"]), many / 2 + 2)


NUMBERS = {name: np.dtype(d) for name, d in {
    "BOOL": bool, "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8", "BF16": ml_dtypes.bfloat16,
}.items()}  # fmt: skip


@given(data=st.data(), datatype=st.sampled_from(sorted(NUMBERS)))
@settings(max_examples=150, deadline=None)
def test_numbers_survive_bytes_and_json(data: st.DataObject, datatype: str) -> None:
    dtype = NUMBERS[datatype]
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if datatype == "BF16":
        array = data.draw(arrays.arrays(np.float32, shape)).astype(dtype)
    else:
        array = data.draw(arrays.arrays(dtype, shape))
    assert_same(datatypes.array(datatypes.raw(array), datatype, shape), array)
    values = array.astype(np.float64).tolist() if dtype.kind in "fV" else array.tolist()
    assert_same(from_json(values, datatype, shape, "x"), array)


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    """NaN is NaN here; numpy says so of its own dtypes only."""
    assert found.dtype == wanted.dtype
    own = np.float64 if wanted.dtype.kind == "V" else wanted.dtype
    np.testing.assert_array_equal(found.astype(own), wanted.astype(own))


def refused_or(work: Callable[[], np.ndarray]) -> np.ndarray | ServingError:
    try:
        return work()
    except ServingError as error:
        return error


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_strings_survive_bytes(values: list[bytes]) -> None:
    array = datatypes.objects(values)
    assert datatypes.array(datatypes.raw(array), "BYTES", (len(values),)).tolist() == values


@given(data=st.binary(max_size=40), count=st.integers(0, 5))
def test_noise_for_strings_is_refused_or_read(data: bytes, count: int) -> None:
    found = refused_or(lambda: datatypes.array(data, "BYTES", (count,)))
    assert found.code is Code.INVALID_ARGUMENT if isinstance(found, ServingError) else datatypes.raw(found) == data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(values=JSON, datatype=st.sampled_from([*sorted(NUMBERS), "BYTES"]))
@settings(max_examples=200, deadline=None)
def test_any_json_becomes_a_tensor_or_a_clear_refusal(values: Any, datatype: str) -> None:
    found = refused_or(lambda: from_json(values, datatype, (2,), "x"))
    if isinstance(found, ServingError):
        assert found.code is Code.INVALID_ARGUMENT
        assert found.message.startswith("input 'x': ")
    else:
        assert found.shape == (2,)
