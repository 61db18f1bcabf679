"""JSON as RapidJSON reads it: which documents are taken, by which reader, and the text for those that are not."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tfopt_server.errors import Code, ServingError
from tfopt_server.rest import rapidjson
from tfopt_server.rest.parse import parse
from tfopt_server.rest.text import LIMIT, decimal, quoted

REFUSED = [
    (b"", "The document is empty"),
    (b" \n", "The document is empty. at offset: 2"),
    (b"]", "The document is empty. at offset: 0"),
    (b"{", "Missing a name for object member. at offset: 1"),
    (b"{,}", "Missing a name for object member. at offset: 1"),
    (b'{"a":1,}', "Missing a name for object member. at offset: 7"),
    (b"{'a':1}", "Missing a name for object member. at offset: 1"),
    (b'{"a"', "Missing a colon after a name of object member. at offset: 4"),
    (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
    (b'{"a":', "Invalid value. at offset: 5"),
    (b'{"a":1', "Missing a comma or } after an object member. at offset: 6"),
    (b'{"a":1]', "Missing a comma or } after an object member. at offset: 6"),
    (b"[", "Invalid value. at offset: 1"),
    (b"[1", "Missing a comma or ] after an array element. at offset: 2"),
    (b"[1 2]", "Missing a comma or ] after an array element. at offset: 3"),
    (b"[01]", "Missing a comma or ] after an array element. at offset: 2"),
    (b"[1,]", "Invalid value. at offset: 3"),
    (b"[1,", "Invalid value. at offset: 3"),
    (b"[tru]", "Invalid value. at offset: 4"),
    (b"[nul", "Invalid value. at offset: 4"),
    (b"[.5]", "Invalid value. at offset: 1"),
    (b"[+1]", "Invalid value. at offset: 1"),
    (b"[-]", "Invalid value. at offset: 2"),
    (b"[nan]", "Invalid value. at offset: 2"),
    (b"[Infix]", "Invalid value. at offset: 5"),
    (b"// comment\n{}", "Invalid value. at offset: 0"),
    (b"[1.]", "Miss fraction part in number. at offset: 3"),
    (b"[1e]", "Miss exponent in number. at offset: 3"),
    (b"[1e+]", "Miss exponent in number. at offset: 4"),
    (b"[1e400]", "Number too big to be stored in double. at offset: 1"),
    (b"[" + b"9" * 400 + b"]", "Number too big to be stored in double. at offset: 1"),
    (b'["a', "Missing a closing quotation mark in string. at offset: 3"),
    (b'["a\x00"]', "Missing a closing quotation mark in string. at offset: 3"),
    (b'["\\x"]', "Invalid escape character in string. at offset: 2"),
    (b'["\n"]', "Invalid escape character in string. at offset: 2"),
    (b'["\\u12"]', "Incorrect hex digit after \\u escape in string. at offset: 2"),
    (b'["\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
    (b'["\\ud800\\u0041"]', "The surrogate pair in string is invalid. at offset: 2"),
]

TAKEN = [
    (b'{"instances": [1, 2.5, -0, 1e2]}', {"instances": [1, 2.5, 0, 100.0]}),
    (b" \r\n\t[ ] ", []),
    (b"[Infinity, -Infinity, Inf, -Inf]", [math.inf, -math.inf, math.inf, -math.inf]),
    (b"[1] and more text", [1]),
    (b'{"a":1}}', {"a": 1}),
    (b"[1]\x00[2]", [1]),
    (b"01", 0),
    (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    (b"[18446744073709551615, 18446744073709551616]", [2**64 - 1, 2.0**64]),
    (b"[-9223372036854775808, -9223372036854775809]", [-(2**63), -(2.0**63)]),
    (b"[1e308, 1e-400]", [1e308, 0.0]),
    (b'["\\u00e9\\ud83d\\ude00\\/\\n\\u0000"]', ["é😀/\n\0"]),
    ('["é😀"]'.encode(), ["é😀"]),
    # Keys given twice: the first counts.
    (b'{"instances": [1], "instances": [2]}', {"instances": [1]}),
    (b'{"signature_name": "a", "inputs": [":"], "signature_name": "b"}', {"signature_name": "a", "inputs": [":"]}),
    (b'{"inputs": {"x": 1, "x": 2}}', {"inputs": {"x": 1}}),
    (b'{"instances": [{"x": 1, "x": 2}, {"x": 3}]}', {"instances": [{"x": 1}, {"x": 3}]}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "text"), REFUSED)
def test_refusals_carry_rapidjsons_text_and_offset(body: bytes, text: str) -> None:
    with pytest.raises(ServingError) as refused:
        parse(body)
    assert (refused.value.code, refused.value.message) == (Code.INVALID_ARGUMENT, f"JSON Parse error: {text}")


@pytest.mark.parametrize(("body", "document"), TAKEN)
def test_documents_that_are_taken(body: bytes, document: Any) -> None:
    assert repr(parse(body)) == repr(document)
    assert repr(rapidjson.loads(body)) == repr(document)


def test_nan_in_either_sign() -> None:
    assert all(math.isnan(x) for x in parse(b"[NaN, -NaN]"))


def test_strings_that_are_not_utf8_keep_their_bytes() -> None:
    for raw in (b"\xff\xfe", b"caf\xe9", b"\xed\xb2\x80"):
        assert parse(b'"' + raw + b'"').encode("utf-8", "surrogateescape") == raw
    # Half a surrogate pair is written out as its three bytes, as RapidJSON does.
    assert parse(b'"\\udc80"').encode("utf-8", "surrogateescape") == b"\xed\xb2\x80"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_every_reader_reads_what_python_writes(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert repr(rapidjson.loads(body)) == repr(value)
    assert repr(parse(body)) == repr(value)


@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise_anything_else(body: bytes) -> None:
    with contextlib.suppress(ServingError):
        parse(body)


def test_half_a_million_levels_neither_crash_nor_hold_up_other_threads() -> None:
    deep = b'{"instances": ' + b"[" * 500_000 + b"]" * 500_000 + b"}"
    documents: list[Any] = []
    thread = threading.Thread(target=lambda: documents.append(parse(deep)))
    thread.start()
    turns = 0  # of this thread, while that one parses; a parser in C that keeps the GIL would leave it one or two
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    assert list(documents[0]) == ["instances"]
    assert turns > 10
    assert len(quoted(documents[0])) == LIMIT


def test_quoted_values_look_like_rapidjsons_pretty_writer() -> None:
    value = {"a": [1, 2.5, {"b": 'é/"\n'}, [], {}], "c": 1e30, "d": 1e-5, "e": 1e-7, "f": float("nan")}
    assert quoted(value) == (
        '{\n    "a": [\n        1,\n        2.5,\n        {\n            "b": "é/\\"\\n"\n        },\n        [],\n'
        '        {}\n    ],\n    "c": 1e30,\n    "d": 0.00001,\n    "e": 1e-7,\n    "f": NaN\n}'
    )
    assert quoted("x" * 1000) == '"' + "x" * 255


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.5, "1.5"), (0.1, "0.1"), (3.0, "3.0"), (-0.0, "-0.0"), (9000000.0, "9e+06"), (1 / 3, "0.333333343"),
        (1.43577434e09, "1.43577434e+09"), (16777216.0, "16777216.0"), (1e39, "1e+39"), (1.1e300, "1.1e+300"),
        (float("nan"), "NaN"), (float("-inf"), "-Infinity"),
    ],
)  # fmt: skip
def test_single_numbers_are_quoted_as_write_decimal_prints_them(number: float, text: str) -> None:
    assert decimal(number) == text
