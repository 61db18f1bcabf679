# ruff: noqa: E501 - a row of a table reads best on few lines
"""What TensorFlow Serving answers to classify, regress and MultiInference, as one table for both faces.

ANSWERS run on TensorFlow Serving's own half_plus_two in TF1 form (y = x / 2 + 2, y2 = x / 2 + 3, y3 = x2 / 2 + 3), MADE and
REFUSALS on `signatures`: numpy functions that read nothing but the number of examples. Texts: classifier.cc, regressor.cc,
util/json_tensor.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faceplane
import numpy as np
from conformance_cases import strings
from faceplane import Signature, signature

F = np.float32


@dataclass(frozen=True)
class Case:
    """`examples` and `context`: feature to value or list; `results` as REST spells them, or the text of the refusal."""

    name: str
    method: str
    signature: str
    results: Any
    examples: Sequence[Mapping[str, Any]] = ({"x": 2.0}, {"x": 20.0})
    context: Mapping[str, Any] | None = None


ANSWERS = [
    Case("regress", "regress", "regress_x_to_y", [3.0, 12.0]),
    Case("regress by another signature", "regress", "regress_x_to_y2", [4.0, 13.0]),
    Case("a feature that is not there has its default", "regress", "regress_x2_to_y3", [3.0, 13.0], [{"x": 0.0}, {"x": 0.0, "x2": 20.0}]),
    Case("a list of one is the value", "regress", "regress_x_to_y", [3.0], [{"x": [2.0]}]),
    Case("features that nobody asks for", "regress", "regress_x_to_y", [3.0], [{"x": 2.0, "z": "text", "n": [1, 2]}]),
    Case("the context is in every example", "regress", "regress_x2_to_y3", [13.0, 13.0], context={"x2": 20.0}),
    Case("an example's own feature wins over the context's", "regress", "regress_x_to_y", [12.0, 3.0], [{}, {"x": 2.0}], {"x": 20.0}),
    Case("not finite", "regress", "regress_x_to_y", [np.inf], [{"x": np.inf}]),
    Case("classify", "classify", "classify_x_to_y", [[["3", 3.0]], [["12", 12.0]]]),
    Case("scores without labels", "classify", "classify_scores_only", [[["", 3.0]], [["", 12.0]]]),
]  # fmt: skip


def signatures() -> tuple[Signature, ...]:
    """Forms that classify and regress take, and forms that they refuse."""
    text, number, both = {"inputs": "string"}, {"outputs": "float"}, {"classes": "string", "scores": "float"}
    labels = {"classes": "string"}

    def make(key: str, inputs: Mapping[str, str], outputs: Mapping[str, str], /, **made: Any) -> Signature:
        return signature(
            key, lambda **fed: {k: v(len(next(iter(fed.values())))) for k, v in made.items()}, inputs, outputs
        )

    def names(*row: bytes) -> Any:
        return lambda n: np.stack([strings(*row)] * n)

    return (
        signature(
            "slow", lambda inputs: {"outputs": faceplane._slow(F([0.01] * len(inputs)))["y"]}, text, number, later=True
        ),
        make("both", text, both, classes=names(b"a", b'"\xc3\xa9'), scores=lambda n: np.tile(F([0.1, np.nan]), (n, 1))),
        make("labels", text, labels, classes=names(b"a", b"b")),
        make("no_classes", text, labels, classes=lambda n: np.empty((n, 0), object)),
        make("column", text, number, outputs=lambda n: np.arange(n, dtype=F)[:, None]),
        make("two_inputs", {"inputs": "string", "z": "float"}, number),
        make("misnamed_input", {"x": "string"}, {"scores": "float"}),
        make("misnamed_input_r", {"x": "string"}, number),
        make("misnamed_outputs", text, {"y": "float"}),
        make("three_outputs", text, {"a": "float", "b": "float", "c": "float"}),
        make("flat", text, {"scores": "float"}, scores=lambda n: np.ones(n, F)),
        make("short", text, {"scores": "float"}, scores=lambda n: np.ones((1, 2), F)),
        make("whole", text, {"scores": "int32"}, scores=lambda n: np.ones((n, 2), np.int32)),
        make("numbered", text, {"classes": "int64"}, classes=lambda n: np.ones((n, 2), np.int64)),
        make("unlike", text, both, classes=names(b"a", b"b"), scores=lambda n: np.ones((n, 3), F)),
        make("wide", text, number, outputs=lambda n: np.ones((n, 3), F)),
        make("fewer", text, number, outputs=lambda n: np.ones(1, F)),
        make("int_r", text, {"outputs": "int32"}, outputs=lambda n: np.ones(n, np.int32)),
    )


MADE = [
    Case("labels and scores", "classify", "both", [[["a", 0.1], ['"é', np.nan]]], [{}]),
    Case("labels without scores", "classify", "labels", [[["a", 0.0], ["b", 0.0]]] * 2),
    Case("no classes at all", "classify", "no_classes", [[], []]),
    Case("a column of values", "regress", "column", [0.0, 1.0]),
    Case("an answer that is computed elsewhere", "regress", "slow", [float(F(0.01))] * 2),
]

REFUSALS = [
    Case("an unknown signature", "classify", "z", "No signature was found with the name: z"),
    Case("an unknown signature, regress", "regress", "z", "No signature was found with the name: z"),
    Case("two inputs", "regress", "two_inputs", "Expected one input Tensor."),
    Case("two inputs, classify", "classify", "two_inputs", "Expected one input Tensor."),
    Case("three outputs", "classify", "three_outputs", "Expected one or two output Tensors, found 3"),
    Case("three outputs, regress", "regress", "three_outputs", "Expected one output Tensor."),
    Case("an input of another name", "classify", "misnamed_input", "No classification inputs found in SignatureDef: inputs {*"),
    Case("an input of another name, regress", "regress", "misnamed_input_r", "No regression inputs found in SignatureDef: inputs {*"),
    Case("an output of another name", "classify", "misnamed_outputs", 'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: inputs {*'),
    Case("an output of another name, regress", "regress", "misnamed_outputs", "No regression outputs found in SignatureDef: inputs {*"),
    Case("scores without classes' dimension", "classify", "flat", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
    Case("scores of another batch", "classify", "short", "Expected scores output batch size of 2. Got: 1"),
    Case("scores that are no floats", "classify", "whole", "Expected scores Tensor of DT_FLOAT. Got: DT_INT32"),
    Case("classes that are no strings", "classify", "numbered", "Expected classes Tensor of DT_STRING. Got: DT_INT64"),
    Case("labels and scores of unlike widths", "classify", "unlike", "Tensors class and score should match in dim_size(1). Got 2 vs. 3"),
    Case("several values per example", "regress", "wide", "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,3]"),
    Case("values of another batch", "regress", "fewer", "Input batch size did not match output batch size: 2 vs. 1"),
    Case("values that are no floats", "regress", "int_r", "Expected output Tensor of DT_FLOAT.  Got: DT_INT32"),
]  # fmt: skip


@dataclass(frozen=True)
class Body:
    """A REST body and the text of its refusal; a model that does not exist shows that the document is read first."""

    name: str
    body: str
    text: str
    model: str = "m"
    status: int = field(default=400)


BODIES = [
    Body("empty", "", "JSON Parse error: The document is empty"),
    Body("a list", "[1]", "JSON Value: [\n    1\n] Is not object"),
    Body("no examples", '{"z": 1}', 'JSON Value: {\n    "z": 1\n} When method is classify, key \'examples\' is expected and was not found'),
    Body("examples that are no list", '{"examples": 1}', 'JSON Value: {\n    "examples": 1\n} Expecting \'examples\' value to be an list/array'),
    Body("an empty list of examples", '{"examples": []}', 'JSON Value: {\n    "examples": []\n} \'examples\' value is an empty array'),
    Body("a number as example", '{"examples": [1]}', "Example must be JSON object but got JSON Number"),
    Body("a list as context", '{"context": [], "examples": [{}]}', "Example must be JSON object but got JSON Array"),
    Body("kinds mixed", '{"examples": [{"n": [1, 2.0]}]}', "Unexpected element type in feature: n expecting type: int64"),
    Body("a bool is an int64", '{"examples": [{"n": [1.0, true]}]}', "Unexpected element type in feature: n expecting type: float"),
    Body("a string among numbers", '{"examples": [{"n": [1, "a"]}]}', "Unexpected element type in feature: n expecting type: int64"),
    Body("a number among strings", '{"examples": [{"n": ["a", 1]}]}', "Unexpected element type in feature: n expecting type: bytes"),
    Body("null", '{"examples": [{"n": null}]}', "Feature: n has element with unexpected JSON type: Null"),
    Body("a list in a list", '{"examples": [{"n": [[1]]}]}', "Feature: n has element with unexpected JSON type: Array"),
    Body("an object that is not b64", '{"examples": [{"n": {"a": 1}}]}', "Feature: n has element with unexpected JSON type: Object"),
    Body("bad base64", '{"examples": [{"n": {"b64": "*"}}]}', "Unable to base64 decode"),
    Body("beyond int64", '{"examples": [{"n": 9223372036854775808}]}', "Feature: n has uint64_t element. Only int64_t is supported."),
    Body("the document comes before the model", '{"examples": []}', 'JSON Value: {\n    "examples": []\n} \'examples\' value is an empty array', "z"),
    Body("an unknown model", '{"examples": [{}]}', "Servable not found for request: Latest(z)", "z", 404),
]  # fmt: skip
