"""Any document and any message, over both faces: answered or refused, never a failure of the server, nothing held."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import faceplane
import numpy as np
import pytest
import restclient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rpcclient import predict_request
from tfopt_protos import messages
from tfopt_server.errors import Code, ServingError
from tfopt_server.rest.app import App
from tfopt_server.rpc.inferences import Inferences
from tfopt_server.rpc.services import Services

PLANE = faceplane.FakePlane({("m", 1): faceplane.many_signatures()})
PLANE.batch = 4
APP = App(PLANE, faceplane.configured("--max_explain_rows=2000"), PLANE.metrics)
quick = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))

# Signatures that are made to fail, to sleep, or to answer for themselves are left out: what fails there is the fake's.
KEYS = sorted(s.info.key for s in faceplane.many_signatures() if s.info.key not in {"fails", "slow", "no_outputs"})
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
VALUES = st.recursive(
    LEAVES | st.builds(lambda s: {"b64": s}, st.text("ABab=+ ", max_size=6)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xab"), inner, max_size=3),
    max_leaves=8,
)
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "parameters": VALUES | st.fixed_dictionaries({}, optional={
            "sampledShapleyAttribution": VALUES | st.fixed_dictionaries({"pathCount": st.integers(0, 52)}),
            "topK": st.integers(-2, 3), "outputIndices": VALUES | st.just([0]),
        }),
        "metadata": VALUES | st.fixed_dictionaries({}, optional={
            "inputs": st.dictionaries(st.sampled_from("xabz"), VALUES | st.fixed_dictionaries(
                {"inputBaselines": st.lists(VALUES, max_size=2) | VALUES})),
            "outputs": st.dictionaries(st.sampled_from(["y", "a", "z"]), VALUES),
        }),
    },
)  # fmt: skip
DOCUMENTS = VALUES | st.fixed_dictionaries(
    {},
    optional={
        "instances": VALUES | st.lists(VALUES, max_size=4),
        "inputs": VALUES,
        "signature_name": st.sampled_from(KEYS) | VALUES,
        "parameters": VALUES | st.dictionaries(st.sampled_from(["x", "factor", "shift", "signature_name"]), VALUES),
        "examples": VALUES | st.lists(st.dictionaries(st.sampled_from("ab"), VALUES), max_size=3),
        "context": VALUES,
        "explanation_spec_override": SPEC,
    },
)
TARGETS = ("/predict", "/explain", *(f"/v1/models/m:{verb}" for verb in ("predict", "classify", "regress", "explain")))


@quick
@given(DOCUMENTS, st.sampled_from(TARGETS), st.sampled_from(["*/*", "text/event-stream", "application/x-protobuf"]))
@example({"instances": [float("nan"), 1e39]}, "/explain", "*/*")
def test_any_document_is_answered_or_refused(document: Any, target: str, accept: str) -> None:
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    answer = restclient.call(APP, "POST", target, body, {"accept": accept})
    assert answer.status in (200, 400, 501), answer.body
    assert PLANE.held == 0


PREDICTION = Services(PLANE, PLANE.metrics, "m", False)
INFERENCES = Inferences(PLANE, PLANE.metrics, "m", False)
METHODS = {
    "Predict": PREDICTION.predict,
    "GetModelMetadata": PREDICTION.metadata,
    "GetModelStatus": PREDICTION.status,
    **{path.decode().rpartition("/")[2]: method.unary for path, method in INFERENCES.methods().items()},
}


def _requests() -> list[bytes]:
    """A good request per method: fuzz around them gets further than noise."""
    example_list = {"example_list": {"examples": [{}]}}
    metadata = messages.GetModelMetadataRequest(model_spec={"name": "m"}, metadata_field=["signature_def"])
    several = (
        predict_request({"a": np.float32([1, 2]), "b": np.array([b"x", b"y"], object)}, "two", ["sum"]),
        predict_request({"x": np.int64([1])}, "echo_int64", version={"value": 1}),
        predict_request({"x": np.float32([[1, 2]])}, content=True),
        messages.ClassificationRequest(model_spec={"name": "m"}, input=example_list),
        messages.GetModelStatusRequest(model_spec={"name": "m"}),
        metadata,
    )
    return [message.SerializeToString() for message in several]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(_requests())))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_any_message_is_answered_or_refused(name: str) -> None:
    call: Any = METHODS[name]

    @quick
    @given(st.binary(max_size=60) | mutated())
    def send(data: bytes) -> None:
        try:
            answer = call(data, None)
            if not isinstance(answer, bytes):
                with contextlib.suppress(ServingError):
                    answer.future.exception(10)
                    answer.answer()
        except ServingError as error:
            refused = error.code
        else:
            refused = Code.OK
        assert refused is not Code.INTERNAL
        assert PLANE.held == 0

    send()
