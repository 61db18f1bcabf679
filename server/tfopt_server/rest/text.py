"""JSON values as TensorFlow Serving quotes them in error texts: pretty-printed, cut at 256 bytes.

Sources: JsonValueToString and WriteDecimal in util/json_tensor.cc, RapidJSON's PrettyWriter (4 spaces) and dtoa.h.
Printing stops at the limit, so a text about a huge or deeply nested value costs no more than one about a small one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

LIMIT = 256

_FLOAT_MAX = float(np.finfo(np.float32).max)


def quoted(value: Any) -> str:
    """`value` as an error text shows it, at most LIMIT bytes."""
    if type(value) is float:
        return decimal(value)
    pieces: list[str] = []
    size = 0
    for piece in _pretty(value):
        pieces.append(piece)
        size += len(piece)
        if size >= LIMIT:
            break
    return "".join(pieces).encode("utf-8", "surrogateescape")[:LIMIT].decode("utf-8", "replace")


def decimal(value: float) -> str:
    """A number as WriteDecimal prints it: 6 digits when they are exact, else 9 (float32 range) or 17."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    single = abs(value) <= _FLOAT_MAX
    number = float(np.float32(value)) if single else value
    text = f"{number:.6g}"
    back = float(np.float32(text)) if single else float(text)
    if back != number:
        text = f"{number:.{9 if single else 17}g}"
    return text if "." in text or "e" in text else text + ".0"


def kind(value: Any) -> str:
    """RapidJSON's name for the value's type."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    names = ((str, "String"), (list, "Array"), (dict, "Object"))
    return next((name for python, name in names if isinstance(value, python)), "Number")


def _pretty(value: Any) -> Iterator[str]:
    """The pieces of the pretty-printed value; a stack instead of recursion, because values may be very deep."""
    stack: list[tuple[str, Iterator[Any], bool]] = []  # closing bracket, rest of the members, is it an object
    yield from _open(value, stack)
    first = True
    while stack:
        close, rest, is_object = stack[-1]
        member: Any = next(rest, _END)
        if member is _END:
            stack.pop()
            yield "\n" + " " * 4 * len(stack) + close
            first = False
            continue
        yield ("\n" if first else ",\n") + " " * 4 * len(stack)
        if is_object:
            name, member = member
            yield json.dumps(name, ensure_ascii=False) + ": "
        before = len(stack)
        yield from _open(member, stack)
        first = len(stack) > before


_END = object()


def _open(value: Any, stack: list[tuple[str, Iterator[Any], bool]]) -> Iterator[str]:
    """Yields a scalar or an empty container whole; of others the opening bracket, and pushes them."""
    if isinstance(value, dict) and value:
        stack.append(("}", iter(value.items()), True))
        yield "{"
    elif isinstance(value, list) and value:
        stack.append(("]", iter(value), False))
        yield "["
    elif isinstance(value, float):
        yield _double(value)
    else:
        yield json.dumps(value, ensure_ascii=False)


def _double(value: float) -> str:
    """The shortest text that reads back as `value`, laid out as RapidJSON's dtoa does (1e30, not 1e+30)."""
    if not math.isfinite(value):
        return decimal(value)
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    if not mark:
        return text
    digits = mantissa.replace(".", "").replace("-", "")
    sign = "-" if value < 0 else ""
    point = int(exponent) + 1
    if 0 < point <= 21:
        return f"{sign}{digits.ljust(point, '0')}.0"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{mantissa.lstrip('-')}e{point - 1}"
