"""Who reads an IdentityN reads what it hands on: TensorFlow puts one behind what has a gradient of its own (silu), and
hands on what went in as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Changed = list[tuple[Any, int, str]]  # a node, the number of an input, and what that was


def skip(order: Iterable[Any]) -> Changed:
    """`order`: a graph's nodes, each after what it reads."""
    handed: dict[str, Sequence[str]] = {}
    changed: Changed = []
    for node in order:
        for place, name in enumerate(node.input):
            source, _, number = name.partition(":")
            if source in handed:
                changed.append((node, place, name))
                node.input[place] = handed[source][int(number or 0)]
        if node.op == "IdentityN" and not any(name.startswith("^") for name in node.input):
            handed[node.name] = list(node.input)
    return changed


def undo(changed: Changed) -> None:
    for node, place, name in changed:
        node.input[place] = name
