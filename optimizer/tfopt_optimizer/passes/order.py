"""The nodes of a graph, each after what it reads."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from typing import Any


def sorted_nodes(nodes: Mapping[str, Any]) -> list[Any]:
    before = {name: {each.lstrip("^").partition(":")[0] for each in node.input} for name, node in nodes.items()}
    return [nodes[name] for name in graphlib.TopologicalSorter(before).static_order()]
