"""Request body -> Python values, as TensorFlow Serving's RapidJSON would read it, but fast where it can be.

Three readers, each only used when the one before it cannot give RapidJSON's answer:
1. orjson (1 us for a row of 32 numbers): strict JSON, at most 1024 levels.
2. The standard library (8 us): NaN and Infinity, text after the document, keys given twice.
3. `rapidjson.py` (about 1 us a token): everything else, and the error text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

from tfopt_server.errors import ServingError, invalid
from tfopt_server.rest import rapidjson

# What the standard library reads otherwise than RapidJSON: numbers that overflow a double or 64 bits, half surrogates.
_ONLY_EXACT = re.compile(rb"[eE]\+?0*[0-9]{3}|[0-9]{20}|\\u[dD][89a-fA-F]")
_LEADING_SPACE = re.compile(r"[ \n\r\t]*")
_TOP_KEYS = ("instances", "inputs", "signature_name", "parameters")


def parse(body: bytes) -> Any:
    """The document in `body`: dict, list, str, int, float, bool or None.

    Raises INVALID_ARGUMENT with TensorFlow Serving's text for what is not JSON.
    """
    document = read(body)
    # Every member has a colon: a document with as many colons as top-level members repeats none and nests none.
    if type(document) is dict and body.count(b":") != len(document) and _may_repeat_keys(document, body):
        return _tolerant(body)
    return document


def read(body: bytes) -> Any:
    """As `parse`, but that of keys which stand twice in an object the last may count."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _tolerant(body)


def _tolerant(body: bytes) -> Any:
    if not _ONLY_EXACT.search(body):
        try:
            text = body.decode()
            start = _LEADING_SPACE.match(text, text.startswith("\ufeff")).end()  # type: ignore[union-attr]
            return _STANDARD.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            pass  # not a failure yet: the exact reader decides, and has the text
    try:
        return rapidjson.loads(body)
    except rapidjson.ParseError as error:
        raise _refused(error) from error


def _refused(error: rapidjson.ParseError) -> ServingError:
    return invalid(f"JSON Parse error: {error}")


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found.update(reversed(pairs))
    return found


_STANDARD = json.JSONDecoder(object_pairs_hook=_first_wins)


def _may_repeat_keys(document: dict[str, Any], body: bytes) -> bool:
    """Whether a key may occur twice where that matters: orjson keeps the last value, TensorFlow Serving the first.

    Every member has a colon, so a document with as many colons as distinct members repeats none. Where there are more
    (text with colons, nested objects) the keys that are looked up are counted one by one; a string value that equals a
    key only costs time.
    """
    members = _members(document)
    if body.count(b":") == len(document) + len(members):
        return False
    expected = dict.fromkeys(_TOP_KEYS, 0)
    for key in (*document, *members):
        expected[key] = expected.get(key, 0) + 1
    return any(body.count(orjson.dumps(key)) > times for key, times in expected.items())


def _members(document: dict[str, Any]) -> list[str]:
    """The names inside `inputs` and `parameters`, and inside the objects of `instances`."""
    found: list[str] = []
    for key in ("inputs", "parameters"):
        inner = document.get(key)
        if type(inner) is dict:
            found += inner
    rows = document.get("instances")
    if type(rows) is list and rows and type(rows[0]) is dict:
        found += _names(rows)
    return found


def _names(rows: Iterable[Any]) -> list[str]:
    return [name for row in rows if type(row) is dict for name in row]
