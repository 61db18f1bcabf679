# ruff: noqa: E501 - a row of a table reads best on few lines
"""Classify, regress and MultiInference on a real SavedModel (builders/served.py, examples): every row through REST, its own
gRPC method and a MultiInference of one task.

ANSWERS have results; REFUSED the text of TensorFlow Serving or, ended by `*`, of the graph; ROUTED ask versions and labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from inference_cases import Case

INF = np.inf
LOW = "?-low"
TWO = ({"x": 2.0}, {"x": 20.0})


def regress(name: str, signature: str, results: Any, *examples: Any, context: Any = None) -> Case:
    return Case(name, "regress", signature, results, examples or TWO, context)


def classify(name: str, signature: str, results: Any, *examples: Any, context: Any = None) -> Case:
    return Case(name, "classify", signature, results, examples or TWO, context)


ANSWERS = [
    regress("a value per example", "serving_default", [2.0, 20.0]),
    regress("the signature that nobody names", "", [2.0, 20.0]),
    regress("one example", "serving_default", [2.0], {"x": 2.0}),
    regress("a column", "column", [2.0, 20.0]),
    regress("more examples than a batch", "serving_default", [float(n) for n in range(20)], *({"x": float(n)} for n in range(20))),
    regress("a list of one", "serving_default", [2.0], {"x": [2.0]}),
    regress("not finite", "serving_default", [INF, -INF, np.nan], {"x": INF}, {"x": -INF}, {"x": np.nan}),
    regress("the smallest and the largest", "serving_default", [1.1754944e-38, 3.4028235e38], {"x": 1.1754944e-38}, {"x": 3.4028235e38}),
    regress("beyond a float32", "serving_default", [INF], {"x": 1e39}),
    regress("features that nobody asks for", "serving_default", [2.0], {"x": 2.0, "w": "text", "z": [1, 2, 3], "more": 1.0}),
    regress("whole numbers", "whole", [7.0, -3.0], {"n": [3, 4]}, {"n": [-1, -2]}),
    regress("whole numbers by default", "whole", [3.0, 11.0], {}, {"n": [5, 6]}),
    regress("an example without a feature", "whole", [3.0], {}),
    regress("an example with an empty list", "whole", [3.0], {"n": []}),
    regress("any number of values", "any", [6.0, 0.0, 5.0], {"v": [1.0, 2.0, 3.0]}, {}, {"v": 5.0}),
    regress("no values in any example", "any", [0.0, 0.0], {}, {"v": []}),
    regress("text", "length", [3.0, 0.0], {"w": "abc"}, {"w": ""}),
    regress("text of several bytes", "length", [6.0], {"w": "é😀"}),
    regress("text by default", "length", [1.0], {}),
    regress("context for all", "serving_default", [7.0, 7.0], {}, {}, context={"x": 7.0}),
    regress("context for those without", "serving_default", [7.0, 2.0], {}, {"x": 2.0}, context={"x": 7.0}),
    regress("context of another feature", "length", [4.0, 4.0], {"x": 1.0}, {"x": 2.0}, context={"w": "four"}),
    regress("an empty context", "serving_default", [2.0, 20.0], context={}),
    regress("a list in the context", "whole", [30.0], {}, context={"n": [10, 20]}),
    regress("a list that replaces the context's", "whole", [3.0, 30.0], {"n": [1, 2]}, {}, context={"n": [10, 20]}),
    classify("labels and scores", "both", [[["a-low", 2.0], ["a-high", 4.0]], [["b-low", 0.5], ["b-high", 1.0]]], {"x": 2.0, "w": "a"}, {"x": 0.5, "w": "b"}),
    classify("labels by default", "both", [[[LOW, 2.0], ["?-high", 4.0]], [[LOW, 20.0], ["?-high", 40.0]]]),
    classify("a label of several bytes", "both", [[["é-low", 1.0], ["é-high", 2.0]]], {"x": 1.0, "w": "é"}),
    classify("a label with quotes", "both", [[['"\\-low', 1.0], ['"\\-high', 2.0]]], {"x": 1.0, "w": '"\\'}),
    classify("scores that are not finite", "both", [[[LOW, INF], ["?-high", INF]], [[LOW, np.nan], ["?-high", np.nan]]], {"x": INF}, {"x": np.nan}),
    classify("labels without scores", "labels", [[["1", 0.0], ["2", 0.0]], [["8", 0.0], ["9", 0.0]]], {}, {"n": [8, 9]}),
    classify("one label without a score", "one_label", [[["a", 0.0]], [["?", 0.0]]], {"w": "a"}, {}),
    classify("an empty label", "one_label", [[["", 0.0]]], {"w": ""}),
    classify("scores without labels", "scores", [[["", 2.0], ["", -2.0], ["", INF]], [["", -1.0], ["", 1.0], ["", -INF]]], {"x": 2.0}, {"x": -1.0}),
    classify("no score at all from zero", "scores", [[["", 0.0], ["", -0.0], ["", np.nan]]], {"x": 0.0}),
    classify("context for all, classified", "one_label", [[["c", 0.0]], [["own", 0.0]]], {}, {"w": "own"}, context={"w": "c"}),
    classify("many examples, classified", "one_label", [[[str(n), 0.0]] for n in range(9)], *({"w": str(n)} for n in range(9))),
]  # fmt: skip

CLASSES_OR_SCORES = 'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: inputs {*'
REFUSED = [
    regress("a float feature with a whole number", "serving_default", "Name: <unknown>, Key: x, Index: 0.  Data types don't match. *", {"x": 2}),
    regress("a float feature with text", "serving_default", "Name: <unknown>, Key: x, Index: 0.  Data types don't match. *", {"x": "2"}),
    regress("a whole feature with floats", "whole", "Name: <unknown>, Key: n, Index: 0.  Data types don't match. *", {"n": [1.0, 2.0]}),
    regress("a text feature with a number", "length", "Name: <unknown>, Key: w, Index: 0.  Data types don't match. *", {"w": 1}),
    regress("the second example is the one", "serving_default", "Name: <unknown>, Key: x, Index: 1.  Data types don't match. *", {"x": 2.0}, {"x": 2}),
    regress("a feature that must be there", "serving_default", "Name: <unknown>, Feature: x (data type: float) is required but could not be found.*", {}),
    regress("a feature that must be there, in every example", "serving_default", "Name: <unknown>, Feature: x (data type: float) is required but could not be found.*", {"x": 2.0}, {"w": "a"}),
    regress("too many values", "serving_default", "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  Values size: 2 but output shape: [1]*", {"x": [1.0, 2.0]}),
    regress("too few values", "whole", "Name: <unknown>, Key: n, Index: 0.  Number of int64 values != expected.  Values size: 1 but output shape: [2]*", {"n": [1]}),
    regress("a context of the wrong kind", "serving_default", "Name: <unknown>, Key: x, Index: 0.  Data types don't match. *", {}, context={"x": 2}),
    regress("an unknown signature", "z", "No signature was found with the name: z"),
    regress("a signature's case counts", "Column", "No signature was found with the name: Column"),
    regress("a classifier", "scores", "No regression outputs found in SignatureDef: inputs {*"),
    regress("a classifier of two outputs", "both", "Expected one output Tensor."),
    regress("an input of another name", "misnamed", "No regression inputs found in SignatureDef: inputs {*"),
    regress("an output of another name", "misnamed_outputs", "No regression outputs found in SignatureDef: inputs {*"),
    regress("several values per example", "wide", "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]"),
    regress("one value for all", "total", "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []"),
    regress("a value for the first alone", "first", "Input batch size did not match output batch size: 2 vs. 1"),
    regress("values of double", "double", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    regress("inputs that are no examples", "floats", "Expects arg[0] to be float but string is provided"),
    classify("an unknown signature, classified", "z", "No signature was found with the name: z"),
    classify("a regressor", "serving_default", CLASSES_OR_SCORES),
    classify("an input of another name, classified", "misnamed", "No classification inputs found in SignatureDef: inputs {*"),
    classify("labels for all", "constant", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
    classify("labels that are numbers", "numbered", "Expected classes Tensor of DT_STRING. Got: DT_INT64"),
    classify("more labels than scores", "wide_scores", "Tensors class and score should match in dim_size(1). Got 2 vs. 1"),
    classify("scores of double", "double_scores", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
    classify("scores for the first alone", "first_scores", "Expected scores output batch size of 2. Got: 1"),
    classify("a feature that must be there, classified", "both", "Name: <unknown>, Feature: x (data type: float) is required but could not be found.*", {"w": "a"}),
    classify("a float feature with a whole number, classified", "scores", "Name: <unknown>, Key: x, Index: 0.  Data types don't match. *", {"x": 2}),
]  # fmt: skip


@dataclass(frozen=True)
class Routed:
    """`path` and `spec` of the same thing; `version` answers, or `code` and `text` refuse. Version 2 adds 100."""

    name: str
    path: str
    spec: dict[str, Any]
    version: int = 0
    code: str = ""
    text: str = ""


ROUTED = [
    Routed("the newest", "examples", {}, 2),
    Routed("version 1", "examples/versions/1", {"version": {"value": 1}}, 1),
    Routed("version 2", "examples/versions/2", {"version": {"value": 2}}, 2),
    Routed("a label", "examples/labels/stable", {"version_label": "stable"}, 1),
    Routed("another label", "examples/labels/canary", {"version_label": "canary"}, 2),
    Routed("words in other cases", "examples/Versions/1", {"version": {"value": 1}}, 1),
    Routed("an unknown version", "examples/versions/7", {"version": {"value": 7}}, code="NOT_FOUND", text="Servable not found for request: Specific(examples, 7)"),
    Routed("an unknown label", "examples/labels/z", {"version_label": "z"}, code="INVALID_ARGUMENT", text="Unrecognized servable version label: z"),
    Routed("an unknown model", "z", {"name": "z"}, code="NOT_FOUND", text="Servable not found for request: Latest(z)"),
    Routed("an unknown model's version", "z/versions/1", {"name": "z", "version": {"value": 1}}, code="NOT_FOUND", text="Servable not found for request: Specific(z, 1)"),
]  # fmt: skip
