"""Rows of requests put together for one run and taken apart again. Pure numpy; every input is [rows, *inner]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfopt_server.errors import Code, ServingError, invalid

Arrays = dict[str, np.ndarray]
Feeds = Mapping[str, np.ndarray]


def common(feeds: Feeds) -> int:
    """The number of rows that all inputs share; 0 when they differ or one has no rows at all."""
    counts = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    return counts.pop() if len(counts) == 1 else 0


def joined(parts: Sequence[Feeds], batch: int) -> Feeds:
    """One array of `batch` rows per input: the rows of all parts in order, then row 0 again and again.

    Row 0 is a row that a client sent, so padding can never be an input that the model refuses. The parts have equal
    names, dtypes and inner shapes; a single part of exactly `batch` rows is returned as it is.
    """
    first = parts[0]
    if len(parts) == 1 and all(len(array) == batch for array in first.values()):
        return first
    return {name: _stacked([part[name] for part in parts], batch) for name in first}


def _stacked(arrays: Sequence[np.ndarray], batch: int) -> np.ndarray:
    head = arrays[0]
    out = np.empty((batch, *head.shape[1:]), head.dtype)
    at = 0
    for array in arrays:
        out[at : at + len(array)] = array
        at += len(array)
    if at < batch:
        out[at:] = out[0]
    return out


def cut(arrays: Feeds, start: int, stop: int) -> Arrays:
    """Rows `start` to `stop` of every array, without copying."""
    return {name: array[start:stop] for name, array in arrays.items()}


def rejoined(parts: Sequence[Arrays]) -> Arrays:
    """The outputs of a request that ran in several pieces, in the order of its rows."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check(outputs: Feeds, rows: int) -> None:
    """Raises what TensorFlow Serving's batching session answers when outputs cannot be divided among requests."""
    for array in outputs.values():
        if array.ndim == 0:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != rows:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )


def levelled(parts: Sequence[Feeds]) -> list[Feeds]:
    """The parts with every inner dimension padded to the largest among them (pad_variable_length_inputs).

    The filler is each tensor's own first element, as in TensorFlow Serving (batching_util.cc); so are the limits.
    """
    alike = {name: [part[name] for part in parts] for name in parts[0]}
    return [{name: _levelled(array, alike[name]) for name, array in part.items()} for part in parts]


def _levelled(array: np.ndarray, alike: Sequence[np.ndarray]) -> np.ndarray:
    shape = (len(array), *(max(sizes) for sizes in zip(*(other.shape[1:] for other in alike), strict=True)))
    if shape == array.shape:
        return array
    if array.ndim > 6:
        raise invalid("Only tensors with rank from 1 to 6 can be padded.")
    if array.size == 0:
        raise invalid("Got empty tensor in batch of non-empty tensors.")
    out = np.empty(shape, array.dtype)
    out[...] = array.reshape(-1)[0]
    out[tuple(slice(0, size) for size in array.shape)] = array
    return out
