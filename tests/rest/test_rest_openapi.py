"""/openapi.json says what the server does: it is valid, complete, and its examples are answered."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import faceplane
import jsonschema
import pytest
import restclient
from openapi_spec_validator import OpenAPIV31SpecValidator
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_server.rest import schemas
from tfopt_server.rest.app import App


class Face:
    def __init__(self, *argv: str) -> None:
        self.plane = faceplane.plane()
        self.settings = faceplane.configured(*argv)
        self.app = App(self.plane, self.settings, self.plane.metrics)

    def __call__(self, method: str, target: str, body: Any = b"", **headers: str) -> restclient.Answer:
        return restclient.call(self.app, method, target, body, headers)

    def document(self) -> dict[str, Any]:
        answer = self("GET", "/openapi.json")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture(scope="module")
def face() -> Face:
    return Face()


@pytest.fixture(scope="module")
def document(face: Face) -> dict[str, Any]:
    return face.document()


def test_it_is_a_valid_document(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    operations = [o for item in document["paths"].values() for o in item.values() if isinstance(o, dict)]
    names = [o["operationId"] for o in operations]
    assert len(set(names)) == len(names) == 37
    assert {tag for o in operations for tag in o["tags"]} == {t["name"] for t in document["tags"]}


FLAGS = (
    (),
    ("--predict_route=/v1/models/m:predict", "--health_route=/v1/models/m"),
    ("--predict_route=/v1/endpoints/1/deployedModels/2:predict", "--health_route=/ping"),
)


@pytest.mark.parametrize("argv", FLAGS)
def test_every_route_is_in_it(argv: tuple[str, ...]) -> None:
    """What the app answers at fixed paths, the health gate's route, and TensorFlow Serving's in all their forms."""
    face = Face(*argv)
    document = face.document()
    OpenAPIV31SpecValidator(document).validate()
    found = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item if method != "parameters"
    }
    fixed = {(method, path) for path, methods in face.app._fixed.items() for method in methods}
    assert {(method, path) for method, path in fixed if method != "HEAD" or ("GET", path) not in fixed} <= found
    assert "304" in document["paths"]["/optimization"]["get"]["responses"]
    assert ("GET", face.settings.health_route) in found
    forms = [f"/v1/models/{{model}}{where}" for where in ("", "/versions/{version}", "/labels/{label}")]
    assert {
        ("POST", f"{form}:{verb}") for form in forms for verb in ("predict", "explain", "classify", "regress")
    } <= found
    assert {("GET", form + end) for form in forms for end in ("", "/metadata")} <= found


def _sent(method: str, target: str) -> tuple[Any, int]:
    """A body for an operation, and the status of its answer."""
    if method == "get" or target.startswith("/v2/repository"):
        return b"", 400 if target.endswith(("load", "unload")) else 200  # --enable_model_repository is not given
    if target.endswith("/infer"):
        return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}, 200
    if target.endswith((":classify", ":regress")):
        return {"examples": [{}]}, 400  # the default signature takes no tf.Examples
    return {"instances": [1.0]}, 200


@pytest.mark.parametrize("argv", FLAGS)
def test_every_operation_of_it_is_served(argv: tuple[str, ...]) -> None:
    face = Face(*argv)
    document = face.document()
    values = {"model": "m", "version": "1", "label": "stable"}
    for path, item in document["paths"].items():
        target = re.sub(r"\{(\w+)\}", lambda m: values[m[1]], path)
        for method in item.keys() - {"parameters"}:
            if target != face.settings.health_route:  # answered in front of the app
                body, expected = _sent(method, target)
                assert face(method.upper(), target, body).status == expected, (method, path)


# Made to fail; of types that JSON has no form for in TensorFlow Serving; whose outputs are no rows; and defaults, which
# the fake plane does not fill in.
REFUSED = {
    "fails", "refuses", "later_refuses", "echo_complex64", "echo_half", "to_half", "no_outputs", "uneven", "nothing",
    "scalar", "with_default",
}  # fmt: skip


def test_every_example_is_answered(face: Face, document: dict[str, Any]) -> None:
    bodies = document["components"]["schemas"]
    answered = set()
    for each in faceplane.many_signatures():
        schema = bodies[schemas.name("m", each.info.key)]
        (example,) = schema["examples"]
        jsonschema.Draft202012Validator(schema).validate(example)
        if face("POST", "/v1/models/m:predict", example).status == 200:
            answered.add(each.info.key)
    assert {each.info.key for each in faceplane.many_signatures()} - answered <= REFUSED
    assert len(answered) > 15


def tensor(dtype: str, *shape: int | None) -> TensorInfo:
    return TensorInfo("x", dtype, shape)


@pytest.mark.parametrize(
    ("info", "row", "good", "bad"),
    [
        (tensor("float", None, 2), False, [[1, 2.5]], [[1]]),
        (tensor("float", None, 2), True, [1, 2.5], [[1, 2]]),
        (tensor("int32", None), True, 2**31 - 1, 2**31),
        (tensor("uint8", None), True, 255, -1),
        (tensor("int64", None, None), True, [1, 2, 3], [1.5]),
        (tensor("bool", None), True, True, 1),
        (tensor("string", None), True, "a", 1),
        (tensor("string", None), True, {"b64": "YQ=="}, {"b65": "YQ=="}),
        (tensor("double"), False, 1.0, [1.0]),
    ],
)
def test_tensors_as_schemas(info: TensorInfo, row: bool, good: Any, bad: Any) -> None:
    check = jsonschema.Draft202012Validator(schemas.tensor(info, row))
    check.validate(good)
    assert not check.is_valid(bad)


def test_a_tensor_of_unknown_rank_may_be_anything() -> None:
    assert schemas.tensor(TensorInfo("x", "float", None), True) == {}


def signature(*inputs: TensorInfo, key: str = "serving_default", defaults: tuple[str, ...] = ()) -> SignatureInfo:
    return SignatureInfo(key, "tensorflow/serving/predict", inputs, (), defaults)


def test_bodies_follow_the_signature() -> None:
    a, b = TensorInfo("a", "float", (None,)), TensorInfo("b", "float", (None,))
    two = jsonschema.Draft202012Validator(schemas.body("m", signature(a, b, key="two", defaults=("b",))))
    two.validate({"signature_name": "two", "instances": [{"a": 1}, {"a": 1, "b": 2}]})
    two.validate({"signature_name": "two", "inputs": {"a": [1], "b": [2]}})
    for wrong in ({"instances": [{"a": 1}]}, {"signature_name": "two", "instances": [{"b": 1}]},
                  {"signature_name": "two", "instances": [{"a": 1, "c": 1}]},
                  {"signature_name": "two", "instances": []}):  # fmt: skip
        assert not two.is_valid(wrong), wrong
    scalar = jsonschema.Draft202012Validator(schemas.body("m", signature(TensorInfo("x", "float", ()))))
    scalar.validate({"inputs": 1.0})
    assert not scalar.is_valid({"instances": [1.0]})


def test_examples_too_long_to_read_are_left_out() -> None:
    assert "examples" not in schemas.body("m", signature(TensorInfo("image", "float", (None, 224, 224, 3))))
    assert "examples" not in schemas.body("m", signature(TensorInfo("x", "float", None)))


def test_names_of_schemas_are_what_openapi_allows_and_differ() -> None:
    names = [schemas.name(m, k) for m in ("a", "a/b", "ä", "a_2f_b") for k in ("", "x y", "x_20_y", "<")]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", n) for n in names)


def test_before_a_model_serves_the_document_is_there_and_valid() -> None:
    face = Face()
    face.plane.all_plans = {}
    document = face.document()
    OpenAPIV31SpecValidator(document).validate()
    body = document["paths"]["/v1/models/{model}:predict"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/AnyPredict"}


def test_the_page_runs_only_its_own_script_and_talks_only_to_this_server(face: Face) -> None:
    answer = face("GET", "/docs")
    text = answer.body.decode()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"script-src 'sha256-{digest}';" in policy
    assert "connect-src 'self'" in policy
    assert re.findall(r"https?://|url\(|@import|innerHTML|insertAdjacent|document\.write|eval\(", text) == []
    assert re.findall(r"<(?:link|img|iframe|object|base)\b|\ssrc=|\shref=", text) == []


def test_names_from_a_model_stay_json(face: Face) -> None:
    assert "</script>" not in json.dumps(face.document())


def test_the_page_can_draw_every_body(document: dict[str, Any]) -> None:
    """docs.js knows a reference, any of several, and one of those with something besides that has an example."""
    known = document["components"]["schemas"]

    def named(schema: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = known[schema["$ref"].split("/")[-1]]
        return found

    drawn = 0
    for item in document["paths"].values():
        for operation in (item[method] for method in item.keys() - {"parameters"}):
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            body, *besides = content["schema"].get("allOf", [content["schema"]])
            assert [bool(named(b)["examples"]) for b in besides] in ([], [True])
            assert all(named(each) for each in body.get("anyOf", [body]))
            drawn += 1
    assert drawn > 12
