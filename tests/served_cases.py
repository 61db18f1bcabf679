# ruff: noqa: E501 - a row of a table reads best on few lines
"""The conformance table on real SavedModels (tests/builders/served.py): hundreds of requests, each through every face.

ANSWERS go as rows, as columns, and as typed and packed tensors to plain TensorFlow and to a server that batches; PLANNED
to plain TensorFlow and to an optimized plan with buckets. ROUTES hold the same mistake for both faces where both can make
it. Facts: TensorFlow Serving's http_rest_api_handler.cc, json_tensor.cc, predict_util.cc and the pages of its API.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from conformance_cases import INVALID, MISSING, PRECONDITION, UNIMPLEMENTED, Answer, strings
from tfopt_server.errors import Code

F = np.float32
NAN, INF = np.nan, np.inf
JSON_LESS = ("uint16", "float16", "bfloat16", "complex64", "complex128")
VALUES: dict[str, list[Any]] = {
    "float32": [0.0, -0.0, 0.1, 1 / 3, 16777216.0, 3.4028235e38, 1e-45, NAN, INF, -INF],
    "float64": [0.1, 1e300, 5e-324, 1.7976931348623157e308, -0.0, NAN, -INF],
    "int32": [0, -(2**31), 2**31 - 1],
    "int16": [0, -(2**15), 2**15 - 1],
    "int8": [0, -128, 127],
    "uint8": [0, 255],
    "uint16": [0, 65535],
    "int64": [0, -(2**63), 2**63 - 1, 2**53 + 1],
    "uint32": [0, 2**32 - 1],
    "uint64": [0, 2**64 - 1],
    "bool": [True, False],
    "float16": [0.1, 65504.0, 6e-8, -0.0, NAN, INF],
    "bfloat16": [0.1, 3.3895e38, -0.0, NAN, -INF],
    "complex64": [1 + 2j, -0.5j],
    "complex128": [1e300 - 1j, 0],
    "string": [b"", b"plain", "é😀".encode(), b'"\\/\n\t', b"\x00nul", b"x" * 300],
}


def array(dtype: str, values: Any) -> np.ndarray:
    if dtype == "string":
        return strings(*values)
    return np.array(values, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def shapes(dtype: str, flat: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "each alone", flat
    yield "one", flat[:1]
    yield "of rank 2", np.stack([flat, flat[::-1]])
    yield "of rank 3", flat[: len(flat) // 2 * 2].reshape(1, -1, 2)
    yield "as columns", flat[:, None]
    yield "scalar", flat[1].reshape(()) if dtype != "string" else np.array(flat[1], object)
    yield "none", flat[:0]


def echoes() -> Iterator[Answer]:
    for dtype, values in VALUES.items():
        for name, made in shapes(dtype, array(dtype, values)):
            json = dtype not in JSON_LESS
            yield Answer(
                f"{dtype} {name}",
                f"echo_{dtype}",
                {"x": made},
                {"y": made},
                bool(made.size and made.ndim),
                json,
                "forms",
            )


def form(name: str, signature: str, feeds: dict[str, Any], outputs: dict[str, Any], **more: Any) -> Answer:
    return Answer(name, signature, feeds, outputs, model="forms", **more)


AB = strings(b"a", b"b")
ANSWERS = [
    *echoes(),
    form("half plus two of any rank", "serving_default", {"x": F([[[1]], [[2]]])}, {"y": F([[[2.5]], [[3]]])}),
    form("half plus two of a scalar", "serving_default", {"x": np.array(F(5))}, {"y": np.array(F(4.5))}, rows=False),
    form("the declared shape", "declared", {"x": F([[1, 2, 3]])}, {"y": F([[2, 4, 6]])}),
    form("wider than declared", "declared", {"x": F([[1, 2, 3, 4]])}, {"y": F([[2, 4, 6, 8]])}),
    form("of another rank than declared", "declared", {"x": F([1, 2])}, {"y": F([2, 4])}),
    form("a scalar where a matrix is declared", "declared", {"x": np.array(F(3))}, {"y": np.array(F(6))}, rows=False),
    form("three dimensions where two are declared", "declared", {"x": F([[[1], [2]]])}, {"y": F([[[2], [4]]])}),
    form("a product", "matmul", {"x": F([[1, 2, 3], [0, 0, 1]])}, {"y": F([[10, 4], [3, 0]])}),
    form("a number and a text", "two", {"a": F([1, 2]), "b": AB}, {"sum": F([2, 4]), "text": strings(b"a!", b"b!")}),
    form("inputs of unlike ranks", "two", {"a": F([[1], [2]]), "b": AB}, {"sum": F([[2], [4]]), "text": strings(b"a!", b"b!")}),
    form("inputs of unlike lengths", "two", {"a": F([1, 2, 3]), "b": AB}, {"sum": F([2, 4, 6]), "text": strings(b"a!", b"b!")}, rows=False),
    form("one of the inputs is empty", "two", {"a": F([]), "b": AB}, {"sum": F([]), "text": strings(b"a!", b"b!")}, rows=False),
    form("four kinds at once", "many", {"f": F([0.5]), "i": np.int64([[1, 2]]), "flag": np.array([True]), "s": strings(b"x")},
         {"f": F([0.5]), "i": np.int64([[2, 3]]), "flag": np.array([False]), "s": strings(b"x")}),
    form("four kinds in rows", "many", {"f": F([NAN, INF]), "i": np.int64([[0, -1], [2**53, 7]]), "flag": np.array([True, False]), "s": AB},
         {"f": F([NAN, INF]), "i": np.int64([[1, 0], [2**53 + 1, 8]]), "flag": np.array([False, True]), "s": AB}),
    form("binary in and out", "image", {"s": strings(b"\x00\xff\xfe", b"")}, {"image_bytes": strings(b"\x00\xff\xfe", b"")}),
    form("binary in one piece", "image", {"s": strings(bytes(range(256)))}, {"image_bytes": strings(bytes(range(256)))}),
    form("binary beside a number", "images", {"s": strings(b"\xff\xfe", b"a")}, {"image_bytes": strings(b"\xff\xfe", b"a"), "n": np.int32([2, 1])}),
    form("a scalar beside rows", "scaled", {"x": F([1, 2, 3]), "factor": np.array(F(10))}, {"y": F([10, 20, 30])}, rows=False),
    form("a scalar output", "total", {"x": F([1, 2, 3])}, {"y": np.array(F(6))}, rows=False),
    form("a scalar output of one row", "total", {"x": F([1])}, {"y": np.array(F(1))}, rows=False),
    form("outputs of unlike lengths", "uneven", {"x": F([1, 2])}, {"y": F([1, 2]), "z": F([1])}, rows=False),
    form("outputs of unlike lengths, one row", "uneven", {"x": F([1])}, {"y": F([1]), "z": F([1])}),
    form("more rows out than in", "doubled", {"x": F([1, 2])}, {"y": F([1, 2, 1, 2])}, rows=False),
    form("no inputs", "nothing", {}, {"y": F([7])}, rows=False, json=False),
    form("a half output", "to_half", {"x": F([0.5, 70000])}, {"y": np.float16([0.5, INF])}, json=False),
    form("the graph makes the NaN", "nan", {"x": F([1, 0])}, {"y": F([INF, NAN])}),
    form("picked", "pick", {"i": np.int32([2, 0])}, {"y": F([30, 10])}),
    form("whole division", "divide", {"i": np.int32([-2, 4])}, {"y": np.int32([-3, 1])}),
    form("numbers in texts", "number", {"s": strings(b"1.5", b"-inf", b"nan")}, {"y": F([1.5, -INF, NAN])}),
    form("rows of one length", "length", {"tokens": np.int32([[1, 2], [3, 4]])}, {"y": np.int32([3, 7])}),
    form("rows of no length", "length", {"tokens": np.zeros((2, 0), np.int32)}, {"y": np.int32([0, 0])}),
    form("as many rows as the largest bucket", "matmul", {"x": np.ones((8, 3), F)}, {"y": F([[4, 2]] * 8)}),
    form("rows between two buckets", "matmul", {"x": np.eye(3, dtype=F)}, {"y": F([[1, 0], [0, 2], [3, 0]])}),
]  # fmt: skip


def plan(name: str, signature: str, feeds: dict[str, Any], outputs: dict[str, Any], **more: Any) -> Answer:
    return Answer(name, signature, feeds, outputs, model="planned", **more)


def planned() -> Iterator[Answer]:
    weights = F([[1, 0], [0, 2], [3, 0]])
    for n in (1, 2, 3, 4, 5, 9):  # of the buckets 1 and 4: full, padded, and more than the largest
        x = np.arange(3 * n, dtype=F).reshape(n, 3)
        b = np.arange(n, dtype=F)
        yield plan(f"{n} rows", "serving_default", {"x": x}, {"y": x @ weights})
        yield plan(f"{n} rows of two inputs", "pair", {"a": x, "b": b}, {"p": x @ weights, "q": b * 2})
        yield plan(f"{n} rows that depend on each other", "centered", {"x": x}, {"y": x - x.mean(0)})
        yield plan(f"{n} rows, one number", "total", {"x": x}, {"y": np.array(F((x @ weights).sum()))}, rows=False)
    yield plan("a scalar", "scalar", {"x": np.array(F(4))}, {"y": np.array(F(8))}, rows=False)
    yield plan("a vector for a scalar", "scalar", {"x": F([4, 5])}, {"y": F([8, 10])})
    yield plan(
        "no rows", "serving_default", {"x": np.zeros((0, 3), F)}, {"y": np.zeros((0, 2), F)}, rows=False, json=False
    )
    yield plan("not finite", "serving_default", {"x": F([[INF, 1, 1]])}, {"y": F([[INF, NAN]])})
    yield plan(
        "inputs of unlike lengths",
        "pair",
        {"a": np.ones((2, 3), F), "b": F([1, 2, 3])},
        {"p": F([[4, 2], [4, 2]]), "q": F([2, 4, 6])},
        rows=False,
    )


PLANNED = list(planned())


@dataclass(frozen=True)
class Route:
    """One request whose refusal is exact. `rest`: the body; `rpc`: a PredictRequest in text form. `text` ends in `*`
    where TensorFlow's own words follow. `rest_text`, `rest_code`: where REST says it otherwise; None: as gRPC."""

    name: str
    code: Code
    text: str
    path: str = ""
    rest: str | None = None
    rpc: str | None = None
    rest_code: Code | None = None
    rest_text: str | None = None


ONE = 'inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1 } }'
SHORT = r'tensor_content: "\000"'
BODY = '{"instances": [1]}'


def spec(more: str = "", name: str = "forms") -> str:
    return f'model_spec {{ name: "{name}" {more} }} '


def graph(name: str, signature: str, feed: tuple[str, str, str], text: str) -> Route:
    """What the graph refuses while it runs: the same code and words on both faces."""
    key, value, proto = feed
    body = f'{{"signature_name": "{signature}", "inputs": {{"{key}": {value}}}}}'
    return Route(
        name,
        INVALID,
        text,
        "forms",
        body,
        spec(f'signature_name: "{signature}"') + f'inputs {{ key: "{key}" value {{ {proto} }} }}',
    )


def typed(dtype: str, *sizes: int, values: str = "") -> str:
    dims = " ".join(f"dim {{ size: {size} }}" for size in sizes)
    return f"dtype: {dtype} tensor_shape {{ {dims} }} {values}"


def wrong_dtypes() -> Iterator[Route]:
    names = {"float32": "float", "float64": "double", "float16": "half"}
    for wanted in VALUES:
        given = "DT_DOUBLE" if wanted == "float32" else "DT_FLOAT"
        text = f"Expects arg[0] to be {names.get(wanted, wanted)} but {given[3:].lower()} is provided"
        yield Route(
            f"{given} for {wanted}",
            INVALID,
            text,
            rpc=spec(f'signature_name: "echo_{wanted}"') + f'inputs {{ key: "x" value {{ {typed(given, 1)} }} }}',
        )


def wrong_values() -> Iterator[Route]:
    kinds = {"true": "True", "null": "Null", '"a"': "String", "1.5": "Number", "1": "Number"}
    takes = {
        "float32": {"1", "1.5"}, "float64": {"1", "1.5"}, "bool": {"true"}, "string": {'"a"'},
        **{each: {"1"} for each in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")},
    }  # fmt: skip
    names = {"float32": "float", "float64": "double"}
    for dtype, taken in takes.items():
        for value, kind in kinds.items():
            if value in taken:
                continue
            text = f"JSON Value: {value} Type: {kind} is not of expected type: {names.get(dtype, dtype)}"
            head = f'{{"signature_name": "echo_{dtype}", '
            yield Route(f"{value} for {dtype} in columns", INVALID, text, "forms", f'{head}"inputs": [{value}]}}')
            text = f"Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: {text}"
            yield Route(f"{value} for {dtype} in rows", INVALID, text, "forms", f'{head}"instances": [{value}]}}')


def without_json() -> Iterator[Route]:
    names = {"float16": "half"}
    for dtype in JSON_LESS:
        text = f"Conversion of JSON Value: 1 to type: {names.get(dtype, dtype)}"
        yield Route(
            f"{dtype} has no JSON", UNIMPLEMENTED, text, "forms", f'{{"signature_name": "echo_{dtype}", "inputs": [1]}}'
        )


ROUTES = [
    Route("unknown model", MISSING, "Servable not found for request: Latest(z)", "z", BODY, spec(name="z") + ONE),
    Route("unknown version", MISSING, "Servable not found for request: Specific(half, 9)", "half/versions/9", BODY, spec("version { value: 9 }", "half") + ONE),
    Route("version 0", MISSING, "Servable not found for request: Specific(half, 0)", "half/versions/0", BODY, spec("version { value: 0 }", "half") + ONE),
    Route("a version of another model", MISSING, "Servable not found for request: Specific(forms, 3)", "forms/versions/3", BODY, spec("version { value: 3 }") + ONE),
    Route("unknown label", INVALID, "Unrecognized servable version label: z", "half/labels/z", BODY, spec('version_label: "z"', "half") + ONE),
    Route("a label of another model", INVALID, "Unrecognized servable version label: stable", "forms/labels/stable", BODY, spec('version_label: "stable"') + ONE),
    Route("unknown signature", PRECONDITION, 'Serving signature key "z" not found.', "forms", '{"signature_name": "z", "instances": [1]}', spec('signature_name: "z"') + ONE, INVALID, 'Serving signature name: "z" not found in signature def'),
    Route("a signature's case counts", PRECONDITION, 'Serving signature key "Serving_default" not found.', "forms", '{"signature_name": "Serving_default", "instances": [1]}', spec('signature_name: "Serving_default"') + ONE, INVALID, 'Serving signature name: "Serving_default" not found in signature def'),
    Route("no inputs over REST", INVALID, "Failed to get input map for signature: nothing", "forms", '{"signature_name": "nothing", "inputs": {}}'),
    Route("an unknown name", INVALID, "Signature input alias: x(feed name: *", rpc=spec() + ONE.replace('"x"', '"z"')),
    Route("an unknown name in rows", INVALID, "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: z", "forms", '{"instances": [{"z": 1}]}'),
    Route("a missing name in columns", INVALID, "Missing named input: b in 'inputs' object.", "forms", '{"signature_name": "two", "inputs": {"a": [1]}}'),
    Route("too few inputs", INVALID, "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}.", rpc=spec('signature_name: "two"') + ONE.replace('"x"', '"a"')),
    Route("too many inputs", INVALID, "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.", rpc=spec() + ONE + ONE.replace('"x"', '"z"')),
    Route("an output that does not exist", INVALID, "output tensor alias not found in signature: z Outputs expected to be in the set {y}.", rpc=spec() + ONE + ' output_filter: "z"'),
    Route("an output asked for twice", INVALID, "duplicate output tensor alias: y", rpc=spec() + ONE + ' output_filter: ["y", "y"]'),
    Route("no dtype", INVALID, "tensor parsing error: x", rpc=spec() + 'inputs { key: "x" value { float_val: 1 } }'),
    Route("a negative size", INVALID, "tensor parsing error: x", rpc=spec() + f'inputs {{ key: "x" value {{ {typed("DT_FLOAT", -1)} }} }}'),
    Route("content of another size", INVALID, "tensor parsing error: x", rpc=spec() + f'inputs {{ key: "x" value {{ {typed("DT_FLOAT", 2, values=SHORT)} }} }}'),
    Route("a scalar has no rows", INVALID, "Tensor name: y has no shape information ", "forms", '{"signature_name": "total", "instances": [1]}'),
    Route("rows of unlike outputs", INVALID, "Tensor name: z has inconsistent batch size: 1 expecting: 2", "forms", '{"signature_name": "uneven", "instances": [1, 2]}'),
    Route("an output without JSON", INVALID, "Failed to write JSON value for tensor type: half", "forms", '{"signature_name": "to_half", "instances": [1]}'),
    Route("a plain list for two inputs", INVALID, "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map", "forms", '{"signature_name": "two", "instances": [1, 2]}'),
    Route("ragged tokens", INVALID, "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1", "forms", '{"signature_name": "length", "instances": [[1, 2], [3]]}'),
    Route("ragged tokens in columns", INVALID, "Encountered list at unexpected size: 1 at level: 1 expected size: 2", "forms", '{"signature_name": "length", "inputs": [[1, 2], [3]]}'),
    graph("unlike sizes", "matmul", ("x", "[[1, 2]]", typed("DT_FLOAT", 1, 2)), "Matrix size-incompatible: In[0]: [1,2], In[1]: [3,2]*"),
    graph("no matrix", "matmul", ("x", "[1, 2, 3]", typed("DT_FLOAT", 3)), "In[0] *"),  # oneDNN's kernel and Eigen's word it differently
    graph("an index beyond the table", "pick", ("i", "[0, 9]", typed("DT_INT32", 2, values="int_val: [0, 9]")), "indices[1] = 9 is not in [0, 3)*"),
    graph("division by zero", "divide", ("i", "[0]", typed("DT_INT32", 1)), "Integer division by zero*"),
    graph("no number in a text", "number", ("s", '["abc"]', typed("DT_STRING", 1, values='string_val: "abc"')), "StringToNumberOp could not correctly convert string: abc*"),
    *wrong_dtypes(), *wrong_values(), *without_json(),
]  # fmt: skip


@dataclass(frozen=True)
class Versioned:
    """Which of `half`'s versions answers: version n computes x / 2 + 2 in its own form (TF2, TF1, TF1 with reference
    variables); gRPC tells which one it was."""

    name: str
    path: str
    spec: str
    version: int


VERSIONED = [
    Versioned("the latest", "half", "", 3),
    *(Versioned(f"version {n}", f"half/versions/{n}", f"version {{ value: {n} }}", n) for n in (1, 2, 3)),
    Versioned("a version with zeros before it", "half/versions/0002", "version { value: 2 }", 2),
    Versioned("stable", "half/labels/stable", 'version_label: "stable"', 1),
    Versioned("canary", "half/labels/canary", 'version_label: "canary"', 2),
    Versioned("words in other cases", "half/VERSIONS/1", "version { value: 1 }", 1),
]
