"""A pipeline's elements -> tensors of a batch, and tensors -> one answer per element. Pure.

    feeds = [read(element, signature, place) for place, element in enumerate(batch)]     {"x": float32[2]} each
    groups(feeds, signature, apart=False)                         one Group of 2 elements, {"x": float32[2, 2]}
    answers({"y": float32[2, 3]}, 2, signature)                   {"y": float32[3]} each

An element is a row: a mapping from the signature's inputs to values without the dimension of rows, or the value itself
where there is one input. Values are numpy arrays and scalars, `bytes`, or what JSON has, which is read as the REST
routes read it ({"b64": ...} is binary). Where an input has no dimension of rows an element is a whole request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_protos import dtypes

from tfopt_server.rest import values

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


class ElementError(ValueError):
    """An element that the signature does not take; the text names it, the input, what was expected and what came."""


class Group(NamedTuple):
    """Elements that one call can take: where they stood in the batch, and their tensors [elements, ...]."""

    places: tuple[int, ...]
    feeds: Feeds


def takes_rows(info: SignatureInfo) -> bool:
    """Whether every input has a dimension of rows, so that an element is one of them."""
    return all(t.shape is None or (len(t.shape) > 0 and t.shape[0] is None) for t in info.inputs)


def groups(batch: Mapping[int, Feeds], info: SignatureInfo, *, apart: bool) -> Iterator[Group]:
    """The elements, by their places, in as few calls as their shapes allow; each in a call of its own with `apart`."""
    rows = takes_rows(info)
    alike: dict[Any, list[int]] = {}
    for place, feeds in batch.items():
        shapes = tuple((name, array.shape) for name, array in feeds.items())
        alike.setdefault(place if apart or not rows else shapes, []).append(place)
    for places in alike.values():
        first = batch[places[0]]
        stacked = {name: np.stack([batch[place][name] for place in places]) for name in first} if rows else first
        yield Group(tuple(places), stacked)


def read(element: Any, info: SignatureInfo, place: int) -> Feeds:
    """The tensors of one element, in the signature's order. ElementError."""
    given, rows = _by_name(element, info, place), takes_rows(info)
    wanted = [t for t in info.inputs if t.name in given or t.name not in info.defaults]
    missing = [t.name for t in wanted if t.name not in given]
    unknown = sorted(set(given) - {t.name for t in info.inputs})
    if missing or unknown:
        what = f"without {missing[0]!r}" if missing else f"with {unknown[0]!r}"
        raise ElementError(f"element {place}: expected the inputs {[t.name for t in info.inputs]}, received one {what}")
    return {tensor.name: _array(given[tensor.name], tensor, rows=rows, place=place) for tensor in wanted}


def _by_name(element: Any, info: SignatureInfo, place: int) -> Mapping[str, Any]:
    names = [t.name for t in info.inputs]
    if isinstance(element, Mapping) and not (values.is_base64_object(element) and names != ["b64"]):
        return element
    if len(names) == 1:
        return {names[0]: element}
    raise ElementError(
        f"element {place}: expected a mapping with the inputs {names}, received {type(element).__name__}"
    )


def _array(value: Any, tensor: TensorInfo, *, rows: bool, place: int) -> Array:
    found = _converted(value, tensor.dtype)
    inner = tensor.shape[1:] if rows and tensor.shape is not None else tensor.shape
    if found is None or not _fits(found.shape, inner):
        raise ElementError(
            f"element {place}: input {tensor.name!r}: expected {tensor.dtype}{_shown(inner)}, received {_told(value)}"
        )
    return found


def _converted(value: Any, dtype: str) -> Array | None:
    """None where the value does not fit. Numbers change their type only where nothing but digits is lost."""
    if isinstance(value, bytes):
        return _strings(np.array(value, object)) if dtype == "string" else None
    if not isinstance(value, np.ndarray | np.generic):
        return values.to_array(value, dtype)
    array = np.asarray(value)
    if dtype == "string":
        return _strings(array) if array.dtype.kind in "OSU" else None
    wanted = dtypes.to_numpy(dtype)
    if array.dtype == wanted:
        return array
    if array.dtype.kind in "iu" and wanted.kind in "iu":
        cast = array.astype(wanted)
        return cast if np.array_equal(cast, array) else None
    kinds = ("f", "f"), ("f", "V"), ("i", "f"), ("u", "f"), ("c", "c")
    return array.astype(wanted) if (array.dtype.kind, wanted.kind) in kinds else None


def _strings(array: Array) -> Array | None:
    """An object array of bytes, which is what a string tensor is here."""
    flat = [v.encode() if isinstance(v, str) else v for v in array.ravel().tolist()]
    if not all(isinstance(v, bytes) for v in flat):
        return None
    found = np.empty(len(flat), object)
    found[:] = flat
    return found.reshape(array.shape)


def _fits(shape: tuple[int, ...], declared: Sequence[int | None] | None) -> bool:
    return declared is None or (
        len(shape) == len(declared) and all(want in (None, size) for want, size in zip(declared, shape, strict=True))
    )


def _shown(shape: Sequence[int | None] | None) -> str:
    return "" if shape is None else str(["any" if size is None else size for size in shape])


def _told(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{list(value.shape)}"
    return repr(value) if len(repr(value)) < 100 else f"{repr(value)[:97]}..."


def answers(outputs: Mapping[str, Array], count: int, info: SignatureInfo) -> list[Feeds]:
    """One answer per element of a call. ElementError where the outputs cannot be divided among several."""
    if not takes_rows(info):
        return [dict(outputs)]
    declared = {t.name: t.shape for t in info.outputs}
    shared = {name for name, array in outputs.items() if not _has_rows(array, declared.get(name), count)}
    if shared and count > 1:
        name = min(shared)
        raise ElementError(
            f"output {name!r}: expected {count} rows for {count} elements, received {list(outputs[name].shape)}"
        )
    return [
        {name: array if name in shared else array[place, ...] for name, array in outputs.items()}
        for place in range(count)
    ]


def _has_rows(array: Array, declared: Sequence[int | None] | None, count: int) -> bool:
    """One element's answer keeps a first dimension that its signature fixes: that one does not count rows."""
    fixed = declared is not None and count == 1 and (not declared or declared[0] is not None)
    return not fixed and array.ndim > 0 and len(array) == count
