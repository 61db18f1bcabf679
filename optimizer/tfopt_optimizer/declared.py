"""What a signature's Example parsers declare: the features that they read, whether a record has them or not. Pure.

    found = declared(graph, ["StatefulPartitionedCall:0"], ["serving_default_examples:0"])
    found.features      # Feature(("context", "bonus"), "float", size=1), ...

The names stand in attributes or in constants (perhaps a function's arguments), types and shapes in attributes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfopt_protos import dtypes

from tfopt_optimizer.examples import Feature
from tfopt_optimizer.graphs import MAIN, Graph, Placed, calls, source

# By operation its inputs up to the last that holds names, each with the attribute that counts its tensors ("": one).
_INPUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "ParseExample": (("serialized", ""), ("names", ""), ("sparse_keys", "Nsparse"), ("dense_keys", "Ndense")),
    "ParseExampleV2": tuple((n, "") for n in ("serialized", "names", "sparse_keys", "dense_keys", "ragged_keys")),
    "ParseSingleExample": (),
    "ParseSequenceExample": (),
    "ParseSequenceExampleV2": tuple(
        (name, "")
        for name in (
            *("serialized", "debug_name", "context_sparse_keys", "context_dense_keys", "context_ragged_keys"),
            *("feature_list_sparse_keys", "feature_list_dense_keys", "feature_list_ragged_keys"),
        )
    ),
    "ParseSingleSequenceExample": (
        ("serialized", ""),
        ("feature_list_dense_missing_assumed_empty", ""),
        ("context_sparse_keys", "Ncontext_sparse"),
        ("context_dense_keys", "Ncontext_dense"),
        ("feature_list_sparse_keys", "Nfeature_list_sparse"),
        ("feature_list_dense_keys", "Nfeature_list_dense"),
    ),
}
# Prefix of the names' attribute or input -> the kind of feature; and where the types of dense ones stand.
_KINDS = (
    ("", "context", "Tdense"),
    ("context_", "context", "Tcontext_dense"),
    ("feature_list_", "list", "feature_list_dense_types"),
)
_CARRIES = ("Identity", "StopGradient", "EnsureShape")
_CHOOSES = ("If", "StatelessIf", "Case", "StatelessCase")  # a branch's arguments come after what decides
_FILLS = {
    "LookupTableImportV2": "Tin",
    "InitializeTableV2": "Tkey",
    "InitializeTable": "Tkey",
    "LookupTableImport": "Tin",
}
_STRING = dtypes.NUMBERS["string"]
WORDS_OF_A_TABLE, MOST_WORDS = 2, 12
_BEGINNING = 1 << 16  # bytes of a vocabulary's file


@dataclasses.dataclass(frozen=True)
class Declared:
    """`words`: strings that the model's tables know, some of each; `unread`: parsers whose names are no constants."""

    features: tuple[Feature, ...] = ()
    words: tuple[bytes, ...] = ()
    unread: tuple[str, ...] = ()


NOTHING = Declared()


def declared(graph: Graph, outputs: Iterable[str], fed: Iterable[str], assets: Path | None = None) -> Declared:
    """Of the parsers that `outputs` depend on. `assets`: the folder with the files that tables are filled from."""
    placed = graph.reached(outputs, fed)
    constants = _Constants(graph, placed)
    features, unread = dict[tuple[str, str], Feature](), list[str]()
    for found in placed:
        if found.node.op in _INPUTS:
            own = _features(found, constants)
            if own is None:
                unread.append(found.where)
            features |= {feature.name: feature for feature in own or ()}
    if not features:
        return Declared(unread=tuple(unread))
    words = dict.fromkeys(itertools.chain(_keys(graph), _lines(graph, assets)))
    return Declared(tuple(features[name] for name in sorted(features)), tuple(words)[:MOST_WORDS], tuple(unread))


def _features(parser: Placed, constants: _Constants) -> list[Feature] | None:
    """None where a name is not known."""
    node, found = parser.node, list[Feature]()
    for prefix, kind, dense_types in _KINDS:
        for how, types in (
            ("sparse", f"{prefix}sparse_types"),
            ("dense", dense_types),
            ("ragged", f"{prefix}ragged_value_types"),
        ):
            names = _names(parser, f"{prefix}{how}_keys", constants)
            if names is None:
                return None
            shapes = [_shape(s) for s in node.attr[f"{prefix}dense_shapes"].list.shape] if how == "dense" else []
            for number, (name, dtype) in enumerate(zip(names, node.attr[types].list.type, strict=False)):
                shape = shapes[number] if number < len(shapes) else (None,)
                step = math.prod(d for d in shape if d is not None)
                fixed = None not in shape
                found.append(Feature((kind, name), dtypes.name(dtype), step if fixed else None, max(step, 1)))
    return found


def _shape(proto: Any) -> tuple[int | None, ...]:
    return (None,) if proto.unknown_rank else tuple(d.size if d.size >= 0 else None for d in proto.dim)


def _names(parser: Placed, called: str, constants: _Constants) -> list[str] | None:
    node, at = parser.node, 0
    if called in node.attr:
        return [name.decode() for name in node.attr[called].list.s]
    for name, counted in _INPUTS[node.op]:
        count = node.attr[counted].i if counted else 1
        if name == called:
            found = [constants.strings(parser.scope, edge) for edge in node.input[at : at + count]]
            return None if None in found else [text.decode() for each in found for text in each or ()]
        at += count
    return []


class _Constants:
    """Constants by scope and edge, also where a function is given them by its callers."""

    def __init__(self, graph: Graph, placed: Sequence[Placed]) -> None:
        self._graph = graph
        self._nodes = {(each.scope, each.node.name): each.node for each in placed}
        self._callers: dict[str, Placed] = {}
        for each in placed:
            for name in calls(each.node):
                if name in graph.functions:
                    self._callers.setdefault(name, each)

    def strings(self, scope: str, edge: str) -> list[bytes] | None:
        for _ in range(100):  # functions may call themselves
            node = self._nodes.get((scope, source(edge)))
            if node is not None and node.op == "Const":
                return _strings(node)
            if node is not None and node.op in _CARRIES:
                edge = node.input[0]
                continue
            caller = self._callers.get(scope)
            if node is not None or caller is None:
                return None
            arguments = [a.name for a in self._graph.functions[scope].signature.input_arg]
            if source(edge) not in arguments:
                return None
            edge = caller.node.input[arguments.index(source(edge)) + (caller.node.op in _CHOOSES)]
            scope = caller.scope
        return None


def _strings(node: Any) -> list[bytes] | None:
    """A constant's values, where they are strings; the last of those that are written stands for those that are not."""
    tensor = node.attr["value"].tensor
    count, values = math.prod(d.size for d in tensor.tensor_shape.dim), list(tensor.string_val)
    if node.attr["dtype"].type != _STRING or (count and not values):
        return None
    found: list[bytes] = (values + values[-1:] * count)[:count]
    return found


def _keys(graph: Graph) -> Iterator[bytes]:
    """Some words of each table that the graph itself fills."""
    placed = [Placed(MAIN, node) for node in graph.nodes.values()]
    placed += [Placed(name, node) for name, function in sorted(graph.functions.items()) for node in function.node_def]
    constants = _Constants(graph, placed)
    for each in placed:
        kind = _FILLS.get(each.node.op)
        if kind is not None and each.node.attr[kind].type == _STRING:
            yield from (constants.strings(each.scope, each.node.input[1]) or ())[:WORDS_OF_A_TABLE]


def _lines(graph: Graph, assets: Path | None) -> Iterator[bytes]:
    """Some lines of each file that the model brings: a table's words, in most models."""
    names = sorted({asset.filename for asset in graph.meta_graph.asset_file_def})
    for path in [assets / name for name in names] if assets is not None else ():
        if path.is_file():
            with path.open("rb") as file:
                yield from file.read(_BEGINNING).splitlines()[:WORDS_OF_A_TABLE]
