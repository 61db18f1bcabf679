# ruff: noqa: E501 - a row of a table reads best on few lines
"""What TensorFlow Serving answers, as one table: requests with their outputs, and requests with their refusals.

ANSWERS go through REST as rows and as columns and through gRPC as typed fields and as tensor_content, and must give the
same outputs each time. REFUSALS hold the REST body and the gRPC request for the same mistake, where both faces can make
it, with code and text of each. Texts are TensorFlow Serving's (util/json_tensor.cc, predict_util.cc, TensorFlow's
cc/saved_model/util.cc); the signatures are those of tests/faceplane.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tfopt_server.errors import Code

INVALID, UNIMPLEMENTED, PRECONDITION, MISSING = (
    Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION, Code.NOT_FOUND,
)  # fmt: skip


def strings(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


@dataclass(frozen=True)
class Answer:
    """`rows`: the request and the answer can be told apart by row. `json`: JSON can express the inputs and outputs."""

    name: str
    signature: str
    feeds: Mapping[str, Any]
    outputs: Mapping[str, Any]
    rows: bool = True
    json: bool = True
    model: str = "m"


F = np.float32
BYTES = strings(b"\x00\xff\xfe", b"", b"caf\xc3\xa9")
EXTREMES = {
    "float": F([0.1, -0.0, 16777216, 3.4028235e38, 1e-45, np.nan, np.inf, -np.inf]),
    "double": np.float64([0.1, 1e300, 5e-324, np.nan, -np.inf]),
    "int32": np.int32([-(2**31), 2**31 - 1]),
    "int16": np.int16([-(2**15), 2**15 - 1]),
    "int8": np.int8([-128, 127]),
    "uint8": np.uint8([0, 255]),
    "int64": np.int64([-(2**63), 2**63 - 1]),
    "uint32": np.uint32([0, 2**32 - 1]),
    "uint64": np.uint64([0, 2**64 - 1]),
    "bool": np.array([True, False]),
    "string": strings(b"plain", 'é/"\\\n'.encode(), b"\x00", b""),
}

ANSWERS = [
    Answer("a vector is rows of scalars", "serving_default", {"x": F([1, 2])}, {"y": F([2.5, 3])}),
    Answer("a matrix is rows of vectors", "serving_default", {"x": F([[1, 2]])}, {"y": F([[2.5, 3]])}),
    Answer("rank 4", "serving_default", {"x": np.ones((2, 1, 3, 2), F)}, {"y": np.full((2, 1, 3, 2), 2.5, F)}),
    Answer("rows without elements", "serving_default", {"x": np.zeros((2, 0), F)}, {"y": np.zeros((2, 0), F)}),
    Answer("no rows", "serving_default", {"x": np.zeros((0, 3), F)}, {"y": np.zeros((0, 3), F)}, rows=False, json=False),
    Answer("an empty list", "serving_default", {"x": np.zeros(0, F)}, {"y": np.zeros(0, F)}, rows=False),
    Answer("a scalar", "serving_default", {"x": np.array(F(5))}, {"y": np.array(F(4.5))}, rows=False),
    Answer("a scalar output", "scalar", {"x": F([1, 2])}, {"y": np.array(F(3))}, rows=False),
    *(Answer(f"extremes of {d}", f"echo_{d}", {"x": v}, {"y": v}) for d, v in EXTREMES.items()),
    *(Answer(f"rows of {d}", f"echo_{d}", {"x": np.stack([v, v])}, {"y": np.stack([v, v])})
      for d, v in EXTREMES.items()),
    Answer("half has no JSON", "echo_half", {"x": np.float16([0.5, np.inf])}, {"y": np.float16([0.5, np.inf])}, json=False),
    Answer("complex has no JSON", "echo_complex64", {"x": np.complex64([1 + 2j])}, {"y": np.complex64([1 + 2j])}, json=False),
    Answer("two inputs and outputs", "two", {"a": F([1, 2]), "b": strings(b"x", b"y")},
           {"sum": F([2, 4]), "text": strings(b"x!", b"y!")}),
    Answer("inputs of unlike ranks", "two", {"a": F([[1], [2]]), "b": strings(b"x", b"y")},
           {"sum": F([[2], [4]]), "text": strings(b"x!", b"y!")}),
    Answer("inputs of unlike lengths", "two", {"a": F([1, 2, 3]), "b": strings(b"x")},
           {"sum": F([2, 4, 6]), "text": strings(b"x!")}, rows=False),
    Answer("binary in and out", "image", {"s": BYTES}, {"image_bytes": BYTES}),
    Answer("binary beside a number", "images", {"s": BYTES}, {"image_bytes": BYTES, "n": np.int64([0, 1, 2])}),
    Answer("several outputs of one input", "several", {"x": F([1])}, {"a": F([1]), "b": F([-1]), "c": F([2])}),
    Answer("an answer that is computed elsewhere", "slow", {"x": F([0.01])}, {"y": F([0.01])}),
    Answer("no inputs", "nothing", {}, {"y": F([7])}, rows=False, json=False),
    Answer("a default fills in", "with_default", {"a": F([1])}, {"y": F([11])}, rows=False, json=False),
    Answer("a default is overridden", "with_default", {"a": F([1]), "b": F([5])}, {"y": F([6])}),
]  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """`rest`: the body; `rpc`: fields of a PredictRequest in text form, model_spec included where it is not "m"."""

    name: str
    rest: str | None = None
    rest_error: tuple[Code, str] | None = None
    rpc: str | None = None
    rpc_error: tuple[Code, str] | None = None
    signature: str = ""


X = 'inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1 } }'
SPEC = 'model_spec { name: "m" %s } '


def element(i: int, text: str, code: str = "INVALID_ARGUMENT", key: str = "") -> tuple[Code, str]:
    return INVALID, f"Failed to process element: {i}{key} of 'instances' list. Error: {code}: {text}"


def rows(name: str, instances: str, error: tuple[Code, str], signature: str = "") -> Refusal:
    return Refusal(name, f'{{"instances": {instances}}}', error, signature=signature)


def columns(name: str, inputs: str, error: tuple[Code, str], signature: str = "") -> Refusal:
    return Refusal(name, f'{{"inputs": {inputs}}}', error, signature=signature)


REFUSALS = [
    # The document.
    Refusal("empty", "", (INVALID, "JSON Parse error: The document is empty")),
    Refusal("cut short", '{"instances": [1', (INVALID, "JSON Parse error: Missing a comma or ] after an array element. "
            "at offset: 16")),
    Refusal("a list", "[1]", (INVALID, "JSON Value: [\n    1\n] Is not object")),
    Refusal("a number", "1.5", (INVALID, "JSON Value: 1.5 Is not object")),
    Refusal("signature_name is no string", '{"signature_name": 1}', (INVALID, 'JSON Value: {\n    "signature_name": 1\n} '
            "not formatted correctly. 'signature_name' key must be a string value.")),
    Refusal("signature_name is null", '{"signature_name": null}', (INVALID, 'JSON Value: {\n    "signature_name": null\n} '
            "not formatted correctly. 'signature_name' key must be a string value.")),
    Refusal("no tensors", "{}", (INVALID, "Missing 'inputs' or 'instances' key"),
            SPEC % "", (INVALID, "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
                        "Missing but required: {x}.")),
    Refusal("both layouts", '{"instances": [1], "inputs": [1]}', (INVALID, 'JSON Value: {\n    "instances": [\n        1\n'
            '    ],\n    "inputs": [\n        1\n    ]\n} Not formatted correctly expecting only one of \'inputs\' or '
            "'instances' keys to exist ")),
    rows("instances is no list", "5", (INVALID, 'JSON Value: {\n    "instances": 5\n} Expecting \'instances\' to be an '
                                       "list/array")),
    rows("instances is empty", "[]", (INVALID, 'JSON Value: {\n    "instances": []\n} No values in \'instances\' array')),
    # The model and the signature.
    Refusal("unknown signature", '{"signature_name": "z", "instances": [1]}', (INVALID, 'Serving signature name: "z" not '
            "found in signature def"),
            SPEC % 'signature_name: "z"' + X, (PRECONDITION, 'Serving signature key "z" not found.')),
    Refusal("a signature without inputs", '{"signature_name": "nothing", "instances": [1]}', (INVALID, "Failed to get "
            "input map for signature: nothing"),
            SPEC % 'signature_name: "nothing"' + X, (INVALID, "input size does not match signature: 1!=0 len({x}) != "
                                                     "len({}). Sent extra: {x}. Missing but required: {}.")),
    Refusal("no model_spec", rpc=X, rpc_error=(INVALID, "Missing ModelSpec")),
    Refusal("no name", rpc="model_spec {} " + X, rpc_error=(INVALID, "ModelSpec has no name specified.")),
    Refusal("unknown model", rpc='model_spec { name: "z" } ' + X,
            rpc_error=(MISSING, "Servable not found for request: Latest(z)")),
    Refusal("unknown version", rpc=SPEC % "version { value: 9 }" + X,
            rpc_error=(MISSING, "Servable not found for request: Specific(m, 9)")),
    Refusal("unknown label", rpc=SPEC % 'version_label: "z"' + X,
            rpc_error=(INVALID, "Unrecognized servable version label: z")),
    # Names of inputs.
    rows("a plain list for two inputs", "[1, 2]", (INVALID, "instances is a plain list, but expecting list of objects as "
         "multiple input tensors required as per tensorinfo_map"), "two"),
    columns("a plain list for two inputs, in columns", "[1, 2]", (INVALID, "inputs is a plain value/list, but expecting an "
            "object as multiple input tensors required as per tensorinfo_map"), "two"),
    rows("an object, then a list", '[{"x": 1}, [2]]', (INVALID, "Expecting object but got list at item 1 of input list")),
    rows("a list, then an object", '[[2], {"x": 1}]', (INVALID, "Expecting value/list but got object at item 1 of input "
                                                       "list")),
    Refusal("an unknown name", '{"instances": [{"z": 1}]}', element(0, "JSON object: does not have named input: z",
                                                                    key=" key: z"),
            SPEC % "" + X.replace('"x"', '"z"'), (INVALID, "Signature input alias: x(feed name: x:0) not found in request "
            "and no default value provided. Inputs expected to be in the request {z}, or default input alias set: ")),
    rows("an unknown name beside a known one", '[{"x": 1, "z": 1}]', element(0, "JSON object: does not have named input: "
                                                                            "z", key=" key: z")),
    Refusal("a missing name", '{"instances": [{"a": 1}]}', (INVALID, "Failed to process element: 0 of 'instances' list. "
            'JSON object: {\n    "a": 1\n} keys must be equal to: a,b'),
            SPEC % 'signature_name: "two"' + X.replace('"x"', '"a"'), (INVALID, "input size does not match signature: 1!=2 "
            "len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}."), "two"),
    rows("a name that is missing later", '[{"a": 1, "b": "x"}, {"b": "y"}]', (INVALID, "Failed to process element: 1 of "
         "'instances' list. JSON object: {\n    \"b\": \"y\"\n} keys must be equal to: a,b"), "two"),
    columns("a missing name in columns", '{"a": 1}', (INVALID, "Missing named input: b in 'inputs' object."), "two"),
    rows("defaults do not help in JSON", '[{"a": 1}]', (INVALID, "Failed to process element: 0 of 'instances' list. JSON "
         'object: {\n    "a": 1\n} keys must be equal to: a,b'), "with_default"),
    Refusal("too many inputs", rpc=SPEC % "" + X + X.replace('"x"', '"z"'), rpc_error=(INVALID, "input size does not match "
            "signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.")),
    Refusal("a name that no default knows", rpc=SPEC % 'signature_name: "with_default"' + X.replace('"x"', '"a"')
            + X.replace('"x"', '"z"'), rpc_error=(INVALID, "Inputs contains invalid name. Used request inputs: a, request "
                                                  "input: a,z")),
    Refusal("the one without a default is missing", rpc=SPEC % 'signature_name: "with_default"' + X.replace('"x"', '"b"'),
            rpc_error=(INVALID, "Signature input alias: a(feed name: a:0) not found in request and no default value "
                       "provided. Inputs expected to be in the request {b}, or default input alias set: b")),
    # Shapes.
    rows("a shorter row", "[[1, 2], [3]]", element(1, "Expecting tensor size: 2 but got: 1")),
    rows("a row of another shape", "[[1, 2], [[3, 4]]]", element(1, "Expecting shape [2] but got: [1,2]")),
    rows("a scalar, then a list", "[1, [1]]", element(1, "Expecting shape [] but got: [1]")),
    rows("ragged within a row", "[[[1, 2], [3]]]", element(0, "Encountered list at unexpected size: 1 at level: 1 expected "
                                                           "size: 2")),
    columns("ragged", "[[1, 2], [3]]", (INVALID, "Encountered list at unexpected size: 1 at level: 1 expected size: 2")),
    columns("a list among scalars", "[1, [2]]", (INVALID, "Encountered list at unexpected level: 1 expected < 1")),
    columns("a scalar among lists", "[[1], 2]", (INVALID, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. "
                                                 "Expected at level: 2")),
    columns("a scalar behind an empty list", "[[], 2]", (INVALID, "JSON Value: 2 found at incorrect level: 2 in the JSON "
                                                         "DOM. Expected at level: 2")),
    rows("deeper than numpy goes", "[" * 70 + "1" + "]" * 70, (INVALID, "tensor parsing error: x")),
    Refusal("a shape with a negative size", rpc=SPEC % "" + X.replace("size: 1", "size: -1"),
            rpc_error=(INVALID, "tensor parsing error: x")),
    Refusal("tensor_content of another size", rpc=SPEC % "" + X.replace("float_val: 1", r'tensor_content: "\000\000"'),
            rpc_error=(INVALID, "tensor parsing error: x")),
    Refusal("no dtype", rpc=SPEC % "" + X.replace("dtype: DT_FLOAT", ""), rpc_error=(INVALID, "tensor parsing error: x")),
    # Values.
    *(rows(f"{kind} for a float", f"[{value}]", element(0, f"JSON Value: {shown} Type: {kind} is not of expected type: "
                                                       "float"))
      for value, shown, kind in (("true", "true", "True"), ("null", "null", "Null"), ('"1.5"', '"1.5"', "String"),
                                 ('{"b64": "YQ=="}', '{\n    "b64": "YQ=="\n}', "Object"))),
    rows("the third of its row", "[[1, 2, true]]", element(0, "JSON Value: true Type: True is not of expected type: float")),
    columns("a string for a float", '[1, "a"]', (INVALID, 'JSON Value: "a" Type: String is not of expected type: float')),
    rows("a fraction for an int", "[1.0]", element(0, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
         "echo_int32"),
    rows("an exponent for an int", "[1e2]", element(0, "JSON Value: 100.0 Type: Number is not of expected type: int64"),
         "echo_int64"),
    rows("too large for int32", "[2147483648]", element(0, "JSON Value: 2147483648 Type: Number is not of expected type: "
                                                        "int32"), "echo_int32"),
    rows("too large for the int32 that uint8 is read as", "[2147483648]", element(0, "JSON Value: 2147483648 Type: Number "
         "is not of expected type: uint8"), "echo_uint8"),
    rows("negative for uint32", "[-1]", element(0, "JSON Value: -1 Type: Number is not of expected type: uint32"),
         "echo_uint32"),
    rows("too large for uint64", "[18446744073709551616]", element(0, "JSON Value: 1.84467441e+19 Type: Number is not of "
                                                                   "expected type: uint64"), "echo_uint64"),
    rows("a number for a bool", "[1]", element(0, "JSON Value: 1 Type: Number is not of expected type: bool"), "echo_bool"),
    rows("a number for a string", "[1]", element(0, "JSON Value: 1 Type: Number is not of expected type: string"),
         "echo_string"),
    columns("bad base64", '[{"b64": "*"}]', (INVALID, "Unable to base64 decode"), "echo_string"),
    columns("an object that is not b64", '[{"b64": 1}]', (INVALID, 'JSON Value: {\n    "b64": 1\n} not formatted correctly '
                                                          "for base64 data"), "echo_string"),
    columns("a dtype without JSON, in columns", "[1.0]", (UNIMPLEMENTED, "Conversion of JSON Value: 1.0 to type: half"),
            "echo_half"),
    rows("a dtype without JSON, in rows", "[1.0]", element(0, "Conversion of JSON Value: 1.0 to type: half",
                                                           "UNIMPLEMENTED"), "echo_half"),
    Refusal("a dtype that is not the signature's", rpc=SPEC % "" + X.replace("DT_FLOAT", "DT_STRING"),
            rpc_error=(INVALID, "Expects arg[0] to be float but string is provided")),
    Refusal("a dtype that could be converted", rpc=SPEC % "" + X.replace("DT_FLOAT", "DT_DOUBLE"),
            rpc_error=(INVALID, "Expects arg[0] to be float but double is provided")),
    # Outputs.
    rows("a scalar has no rows", "[1]", (INVALID, "Tensor name: y has no shape information "), "scalar"),
    rows("outputs of unlike lengths", "[1, 2]", (INVALID, "Tensor name: z has inconsistent batch size: 1 expecting: 2"),
         "uneven"),
    rows("an output without JSON", "[1]", (INVALID, "Failed to write JSON value for tensor type: half"), "to_half"),
    rows("no outputs", "[1]", (INVALID, "Cannot convert empty tensor map to JSON"), "no_outputs"),
    Refusal("an output that does not exist", rpc=SPEC % "" + X + ' output_filter: "z"', rpc_error=(INVALID, "output tensor "
            "alias not found in signature: z Outputs expected to be in the set {y}.")),
    Refusal("an output asked for twice", rpc=SPEC % "" + X + ' output_filter: ["y", "y"]',
            rpc_error=(INVALID, "duplicate output tensor alias: y")),
    # The model itself.
    Refusal("the model refuses", '{"instances": [1]}', (INVALID, "Matrix size-incompatible: In[0]: [1,3], In[1]: [2,1]"),
            SPEC % 'signature_name: "refuses"' + X, (INVALID, "Matrix size-incompatible: In[0]: [1,3], In[1]: [2,1]"),
            "refuses"),
]  # fmt: skip


@dataclass(frozen=True)
class Spelling:
    """A REST body that is unusual and right: `answer` is the JSON document that comes back."""

    name: str
    body: str
    answer: Any
    signature: str = field(default="")


SPELLINGS = [
    Spelling("objects for one input", '{"instances": [{"x": 1}, {"x": 2}]}', {"predictions": [2.5, 3.0]}),
    Spelling("an object of one input, in columns", '{"inputs": {"x": [1, 2]}}', {"outputs": [2.5, 3.0]}),
    Spelling("columns ignore unknown names", '{"inputs": {"x": 1, "z": [true]}}', {"outputs": 2.5}),
    Spelling("unknown keys are ignored", '{"inputs": 1, "z": {"instances": 1}, "parameters": 5}', {"outputs": 2.5}),
    Spelling("an empty signature name", '{"signature_name": "", "inputs": 1}', {"outputs": 2.5}),
    Spelling("the first of two equal keys", '{"inputs": 1, "inputs": 2}', {"outputs": 2.5}),
    Spelling("the first of two equal inputs", '{"inputs": {"x": 1, "x": 2}}', {"outputs": 2.5}),
    Spelling("text behind the document", '{"inputs": 1} and so on', {"outputs": 2.5}),
    Spelling("a byte order mark", '\ufeff{"inputs": 1}', {"outputs": 2.5}),
    Spelling("numbers beyond float32", '{"inputs": [1e39, -1e39, 1e-60]}', {"outputs": [np.inf, -np.inf, 2.0]}),
    Spelling("infinities by their short names", '{"inputs": [Inf, -Inf]}', {"outputs": [np.inf, -np.inf]}),
    Spelling("whole numbers are rounded to float32", '{"inputs": 16777217}', {"outputs": 8388610.0}),
    Spelling("small integers wrap around", '{"inputs": [256, -1]}', {"outputs": [0, 255]}, "echo_uint8"),
    Spelling("base64 without padding", '{"instances": [{"b64": "YQ"}, {"b64": "Y Q\\n=="}]}', {"predictions": ["a", "a"]},
             "echo_string"),
    Spelling("strings beside base64", '{"instances": ["a", {"b64": "YQ=="}]}', {"predictions": ["a", "a"]}, "echo_string"),
    Spelling("a b64 object alone, in columns", '{"inputs": {"b64": "YQ=="}}', {"outputs": "a"}, "echo_string"),
    Spelling("base64 in lists", '{"instances": [[{"b64": "YQ=="}]]}', {"predictions": [["a"]]}, "echo_string"),
    Spelling("base64 in objects", '{"instances": [{"x": {"b64": "YQ=="}}]}', {"predictions": ["a"]}, "echo_string"),
    Spelling("escapes", r'{"inputs": "\u00e9\ud83d\ude00\/\u0000"}', {"outputs": "é😀/\0"}, "echo_string"),
]  # fmt: skip

# Real SavedModels (tests/builders), through plain TensorFlow.
REAL_ANSWERS = [
    Answer("half plus two", "serving_default", {"x": F([[1], [2]])}, {"y": F([[2.5], [3]])}, model="half_plus_two"),
    Answer("TF1", "serving_default", {"x": F([[1], [2]])}, {"y": F([[2.5], [3]])}, model="half_plus_two_v1"),
    Answer("a scalar", "serving_default", {"x": np.array(F(3))}, {"y": np.array(F(6))}, rows=False, model="scalar"),
    Answer("strings", "serving_default", {"text": strings(b"ABC", b"\xc3\x84")}, {
        "lower": strings(b"abc", b"\xc3\x84"), "lower_bytes": strings(b"abc", b"\xc3\x84"), "length": np.int32([3, 2]),
    }, model="strings"),
    Answer("two inputs, three outputs", "serving_default", {"a": np.zeros((2, 4), F), "b": np.zeros((2, 3), F)}, {
        "product": np.zeros((2, 3), F), "total": np.zeros(2, F), "big": np.array([False, False]),
    }, model="multi"),
    Answer("a default", "serving_default", {"x": F([[1, 2]])}, {"y": F([[10, 20]])}, rows=False, json=False,
           model="defaults"),
    Answer("a default overridden", "serving_default", {"x": F([[1, 2]]), "scale": F([[3]])}, {"y": F([[3, 6]])},
           model="defaults"),
    Answer("outputs without rows", "serving_default", {"x": np.ones((2, 4), F)}, {
        "columns": F([2, 2, 2, 2]), "total": np.array(F(8)),
    }, rows=False, model="no_batch_outputs"),
]  # fmt: skip
