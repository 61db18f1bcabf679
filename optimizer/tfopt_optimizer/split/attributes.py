"""A node's attributes as text, for a program's steps: lists as JSON, types by TensorFlow's name, bytes as Latin-1."""

from __future__ import annotations

import json
from typing import Any

from tfopt_protos import dtypes


def read(node: Any) -> dict[str, str]:
    """Of a NodeDef; attributes that are shapes, functions or tensors are left out."""
    found = {}
    for name, value in sorted(node.attr.items()):
        text = _text(value)
        if text is not None and not name.startswith("_"):
            found[name] = text
    return found


def _text(value: Any) -> str | None:
    kind = value.WhichOneof("value")
    if kind == "s":
        return str(value.s.decode("latin-1"))
    if kind == "b":
        return "true" if value.b else "false"
    if kind in ("i", "f"):
        return str(getattr(value, kind))
    if kind == "type":
        return dtypes.NAMES.get(value.type, str(value.type))
    return json.dumps(list(value.list.i)) if kind == "list" and not value.list.s else None
