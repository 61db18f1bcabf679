"""Frozen dataclasses out of parsed JSON: every field is there and of its type, or the error says which is not."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any


class DocumentError(ValueError):
    """The text names the document, the field, what was expected and what was received."""


def build(kind: Any, value: Any, where: str) -> Any:
    """Turns parsed JSON into the type `kind` (dataclasses, tuples, mappings, unions with None, scalars)."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return build(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise DocumentError(f"{where}: expected a list, received {value!r}")
        return tuple(build(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise DocumentError(f"{where}: expected an object, received {value!r}")
        return {k: build(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DocumentError(f"{where}: expected {kind.__name__}, received {value!r}")
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise DocumentError(f"{where}: expected an object, received {value!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(fields)):
        raise DocumentError(f"{where}: unknown field {unknown[0]!r}")
    missing = [
        n
        for n, f in fields.items()
        if n not in value and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise DocumentError(f"{where}: missing field {missing[0]!r}")
    return kind(**{n: build(hints[n], v, f"{where}.{n}") for n, v in value.items()})
