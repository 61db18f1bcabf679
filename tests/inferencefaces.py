"""Classify, Regress and MultiInference through both faces, and their answers in one spelling (inference_cases.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import restclient
import rpcclient
from inference_cases import Case
from tfopt_protos import messages
from tfopt_server.rest.app import App

REQUESTS = {"classify": ("Classify", "Classification"), "regress": ("Regress", "Regression")}
TASK = "tensorflow/serving/"


def example(features: Mapping[str, Any]) -> Any:
    made = messages.message("tensorflow.Example")()
    lists = {float: "float_list", int: "int64_list", str: "bytes_list"}
    for name, content in features.items():
        for value in content if isinstance(content, list) else [content]:
            into = getattr(made.features.feature[name], lists[type(value)]).value
            into.append(value.encode() if isinstance(value, str) else value)
    return made


def fill(into: Any, case: Case) -> None:
    if case.context is None:
        into.example_list.examples.extend(map(example, case.examples))
        return
    into.example_list_with_context.context.CopyFrom(example(case.context))
    into.example_list_with_context.examples.extend(map(example, case.examples))


def results(response: Any) -> Any:
    """A gRPC result as REST spells it."""
    if response.DESCRIPTOR.name == "RegressionResult":
        return [each.value for each in response.regressions]
    return [[[c.label, c.score] for c in each.classes] for each in response.classifications]


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, float):
        assert np.float32(found) == np.float32(expected) or (np.isnan(found) and np.isnan(expected))
    else:
        assert found == expected


def said(found: str, expected: str) -> None:
    assert found.startswith(expected[:-1]) if expected.endswith("*") else found == expected


class Faces:
    """`model` is asked, by the path and ModelSpec of a case where it has them."""

    def __init__(self, app: App, client: rpcclient.Client, model: str) -> None:
        self.app, self.client, self.model = app, client, model

    def rest(self, case: Case, path: str = "") -> restclient.Answer:
        body: dict[str, Any] = {"signature_name": case.signature, "examples": case.examples}
        if case.context is not None:
            body["context"] = case.context
        return restclient.call(self.app, "POST", f"/v1/models/{path or self.model}:{case.method}", json.dumps(body))

    def rpc(self, case: Case, **spec: Any) -> Any:
        method, noun = REQUESTS[case.method]
        request = messages.message(f"tensorflow.serving.{noun}Request")()
        request.model_spec.CopyFrom(self._spec(case.signature, spec))
        fill(request.input, case)
        answer = self.client.call(rpcclient.PREDICTION + method, request)
        if isinstance(answer, rpcclient.Refusal):
            return answer
        return messages.message(f"tensorflow.serving.{noun}Response").FromString(answer)

    def _spec(self, signature: str, more: Mapping[str, Any]) -> Any:
        return messages.message("tensorflow.serving.ModelSpec")(
            **{"name": self.model, "signature_name": signature, **more}
        )

    def multi(self, case: Case, *tasks: tuple[str, str], **spec: Any) -> Any:
        request = messages.MultiInferenceRequest()
        for key, method in tasks:
            request.tasks.add(method_name=TASK + method, model_spec=self._spec(key, spec))
        fill(request.input, case)
        answer = self.client.call(rpcclient.PREDICTION + "MultiInference", request)
        if isinstance(answer, rpcclient.Refusal):
            return answer
        return messages.MultiInferenceResponse.FromString(answer)


def check_rest(faces: Faces, case: Case, path: str = "") -> None:
    answer = faces.rest(case, path)
    assert answer.status == 200, answer.body
    assert list(answer.json()) == ["results"]
    same(answer.json()["results"], case.results)


def check_rpc(faces: Faces, case: Case, **spec: Any) -> None:
    answer = faces.rpc(case, **spec)
    assert not isinstance(answer, rpcclient.Refusal), answer
    same(results(answer.result), case.results)
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (faces.model, 1, case.signature or "serving_default")
