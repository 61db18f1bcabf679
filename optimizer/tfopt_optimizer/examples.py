"""Serialized Examples and SequenceExamples whose features have other lengths, or values far from the records': a parser
pads to the longest of a batch, and what follows may look at the largest. Pure.

    names = features(value)                           # () for bytes that are no Example
    longer = changed(value, names[:1], LONGER)        # the first feature with twice its values
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tfopt_protos import messages

Name = tuple[str, str]  # "context" (an Example's only kind) or "list", and the feature's name
LONGER, SHORTER, ABOVE, BELOW = "longer", "shorter", "above", "below"
FAR = 1e4  # how many times a float's size one far away has
_LARGEST = {"float_list": 1e30, "int64_list": (1 << 63) - 1}
_LISTS = ("bytes_list", "float_list", "int64_list")


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
    with values far from them on either side."""
    example = _parsed(value)
    if example is None:
        return value
    for kind, name in names:
        if kind == "context" and name in example.context.feature:
            _change(example.context.feature[name], how)
        elif kind == "list" and name in example.feature_lists.feature_list:
            features = example.feature_lists.feature_list[name].feature
            if how in (LONGER, SHORTER):
                _resize(features, how)
            for feature in features if how in (ABOVE, BELOW) else ():
                _change(feature, how)
    found: bytes = example.SerializeToString(deterministic=True)
    return found


def groups(names: Sequence[Name], takes: Callable[[Sequence[Name]], bool]) -> Iterator[Sequence[Name]]:
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
    if how in (LONGER, SHORTER):
        _resize(values, how)
    else:
        values[:] = [_far(value, kind, how) for value in values]


def _resize(values: Any, how: str) -> None:
    if how == LONGER:
        values.extend(list(values))
    else:
        del values[len(values) // 2 :]


def _far(value: Any, kind: str, how: str) -> Any:
    if kind == "bytes_list":
        return value + b" " + value if how == ABOVE else value[: len(value) // 2]
    if kind == "int64_list":
        return min(value * 2 + 1, _LARGEST[kind]) if how == ABOVE else value // 2
    size = min(max(abs(value), (abs(value) + 1) * FAR), _LARGEST[kind])
    return size if how == ABOVE else -size
