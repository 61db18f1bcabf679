"""Serialized Examples and SequenceExamples whose features have other lengths, or values far from the records': a parser
pads to the longest of a batch, and what follows may look at the largest; and with features that they lack, or without
those that they have. Pure.

    names = features(value)                           # () for bytes that are no Example
    longer = changed(value, names[:1], LONGER)        # the first feature with twice its values
    asked = given(value, [Feature(("context", "bonus"), "float")], SEVERAL)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from tfopt_protos import messages

T = TypeVar("T")
Name = tuple[str, str]  # "context" (an Example's only kind) or "list", and the feature's name
LONGER, SHORTER, ABOVE, BELOW = "longer", "shorter", "above", "below"
MISSING, EMPTY, ONE, SEVERAL = "missing", "empty", "one", "several"
FAR = 1e4  # how many times a float's size one far away has
_LARGEST = {"float_list": 1e30, "int64_list": (1 << 63) - 1}
_LISTS = ("bytes_list", "float_list", "int64_list")
_KINDS = {"float": "float_list", "int64": "int64_list", "string": "bytes_list"}
# What a feature is given that no record has: numbers small enough to be an index into most tables.
_POOLS: dict[str, tuple[Any, ...]] = {"float": (1.0, -2.0, 0.5), "int64": (1, 0, 2), "string": (b"a", b"b", b"")}


@dataclasses.dataclass(frozen=True)
class Feature:
    """As a parser declares it. `dtype`: "float", "int64" or "string". `size`: the number of its values (in a list, of
    each step's), None where any multiple of `step` will do."""

    name: Name
    dtype: str
    size: int | None = None
    step: int = 1


def features(value: bytes) -> tuple[Name, ...]:
    """Those with values, sorted."""
    example = _parsed(value)
    if example is None:
        return ()
    found = [("context", name) for name, feature in example.context.feature.items() if _values(feature)]
    found += [("list", name) for name, each in example.feature_lists.feature_list.items() if each.feature]
    return tuple(sorted(found))


def changed(value: bytes, names: Collection[Name], how: str) -> bytes:
    """LONGER: with twice the values of these features; SHORTER: with half of them (one becomes none); ABOVE and BELOW:
    with values far from them on either side; EMPTY: with no values; MISSING: without these features."""
    example = _parsed(value)
    if example is None:
        return value
    for kind, name in names:
        there = example.context.feature if kind == "context" else example.feature_lists.feature_list
        if name not in there:
            continue
        if how == MISSING:
            del there[name]
        elif kind == "context":
            _change(there[name], how)
        else:
            features = there[name].feature
            if how in (LONGER, SHORTER, EMPTY):
                _resize(features, how)
            for feature in features if how in (ABOVE, BELOW) else ():
                _change(feature, how)
    found: bytes = example.SerializeToString(deterministic=True)
    return found


def given(value: bytes, features: Collection[Feature], how: str, turn: int = 0, words: Sequence[bytes] = ()) -> bytes:
    """ONE: with one value of these features (or as many as they must have); SEVERAL: with three, or all `words`; EMPTY:
    there, with none. Another `turn` gives other values; strings are of `words`, where there are any."""
    example = _parsed(value)
    if example is None:
        return value
    for feature in features:
        kind, name = feature.name
        if kind == "context":
            _give(example.context.feature[name], feature, how, turn, words)
        else:
            steps = example.feature_lists.feature_list[name].feature
            del steps[:]
            for number in range({ONE: 1, SEVERAL: 3}.get(how, 0)):
                _give(steps.add(), feature, how, turn + number, words)
    found: bytes = example.SerializeToString(deterministic=True)
    return found


def _give(target: Any, feature: Feature, how: str, turn: int, words: Sequence[bytes]) -> None:
    target.Clear()
    if how == EMPTY and feature.size is not None:
        return  # of no kind, which parsers take for a missing one; a list of none would be too short
    pool = _POOLS[feature.dtype] if feature.dtype != "string" or not words else tuple(words)
    count = (
        feature.size if feature.size is not None else feature.step * {ONE: 1, SEVERAL: max(3, len(pool))}.get(how, 0)
    )
    values = getattr(target, _KINDS[feature.dtype])
    values.SetInParent()
    values.value.extend(pool[(turn + number) % len(pool)] for number in range(count))


def groups(names: Sequence[T], takes: Callable[[Sequence[T]], bool]) -> Iterator[Sequence[T]]:
    """The largest groups of names, by halving, that may be changed together: some have a fixed length."""
    if not names:
        return
    if takes(names):
        yield names
    elif len(names) > 1:
        middle = len(names) // 2
        yield from groups(names[:middle], takes)
        yield from groups(names[middle:], takes)


def _parsed(value: bytes) -> Any:
    """An Example has its features where a SequenceExample has its context."""
    if not isinstance(value, bytes):
        return None
    try:
        return messages.message("tensorflow.SequenceExample").FromString(value)
    except DecodeError:
        return None


def _values(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind in _LISTS else ()


def _change(feature: Any, how: str) -> None:
    values, kind = _values(feature), feature.WhichOneof("kind")
    if how in (LONGER, SHORTER, EMPTY):
        _resize(values, how)
    else:
        values[:] = [_far(value, kind, how) for value in values]


def _resize(values: Any, how: str) -> None:
    if how == LONGER:
        values.extend(list(values))
    elif how == EMPTY:
        del values[:]
    else:
        del values[len(values) // 2 :]


def _far(value: Any, kind: str, how: str) -> Any:
    if kind == "bytes_list":
        return value + b" " + value if how == ABOVE else value[: len(value) // 2]
    if kind == "int64_list":
        return min(value * 2 + 1, _LARGEST[kind]) if how == ABOVE else value // 2
    size = min(max(abs(value), (abs(value) + 1) * FAR), _LARGEST[kind])
    return size if how == ABOVE else -size
