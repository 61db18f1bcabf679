"""Requests at the edges of what a model is asked: an empty mask, zeros, numbers far from all records.

No record is like them, and clients send them now and then. Engines fail there, each in its own way: in a division by a
length of 0, the logarithm of 0, an exponential beyond all floats. So every candidate is asked about them too, once.
Where plain TensorFlow answers with a number it must answer with one. Which number is compared for an empty mask alone
(what fills up a batch in a client is such a row): elsewhere rounding may decide, as in what is normalized by a variance
of 0.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from tfopt_optimizer import independence, verify
from tfopt_optimizer.buckets import Rows
from tfopt_optimizer.engines.base import Arrays

Feeds = Mapping[str, np.ndarray]
_T = TypeVar("_T")
LOOKING_S = 3.0  # of plain TensorFlow's time, to find out which of them it takes, and again what it answers


@dataclasses.dataclass(frozen=True)
class Edge:
    """A request, or one row. `same`: the answer must be TensorFlow's, not only a number. `far`: beyond what a lossy
    candidate is for."""

    what: str
    feeds: Arrays
    same: bool = False
    far: bool = False


@dataclasses.dataclass(frozen=True)
class Question:
    """A call of a bucket's shapes. `rows`: what each of its rows is, or `whole`, what it is altogether."""

    feeds: Arrays
    rows: tuple[Edge, ...]
    whole: bool


def edges(base: Feeds, records: Sequence[Feeds]) -> list[Edge]:
    """What `base`, a record or a row of one, becomes where all else stays as it was."""
    masks = [name for name, array in base.items() if _is_mask(name, array, records)]
    floats = [name for name, array in base.items() if verify.is_inexact(array)]
    numbers = [name for name, array in base.items() if array.dtype != object]
    found = [Edge("an empty mask", _zeros(base, masks), same=True)]
    found += [Edge("zeros", _zeros(base, floats)), Edge("zeros alone", _zeros(base, numbers))]
    for turned in (False, True):
        far = {name: _far(base[name], [r[name] for r in records if name in r], turned) for name in floats}
        found.append(Edge("numbers far from all records", {**base, **far}, far=True))
    seen: list[Feeds] = [base]
    return [edge for edge in found if _is_new(edge.feeds, seen)]


def _far(array: np.ndarray, recorded: Sequence[np.ndarray], turned: bool) -> np.ndarray:
    """Each number as far as `independence.far` goes, on its own side of 0; `turned`: on the other, where records have
    numbers below 0 in that place. A model may take the logarithm of what never is."""
    below = np.zeros(array.shape[1:], np.bool_)
    for each in map(np.atleast_1d, recorded):
        if each.shape[1:] == array.shape[1:] and not np.iscomplexobj(each):
            below |= (each < 0).any(axis=0)
    up = (array < 0) == (turned & below) if not np.iscomplexobj(array) else np.ones(array.shape, np.bool_)
    return np.where(up, independence.far_floats(array, True), independence.far_floats(array, False))


def _is_new(feeds: Feeds, seen: list[Feeds]) -> bool:
    new = not any(all(np.array_equal(array, other[name]) for name, array in feeds.items()) for other in seen)
    seen.append(feeds)
    return new


def _is_mask(name: str, array: np.ndarray, records: Sequence[Feeds]) -> bool:
    if array.dtype == np.bool_:
        return True
    values = {v for r in records if name in r for v in np.unique(r[name])} if array.dtype.kind in "iu" else set()
    return array.ndim > 1 and 1 in values and values <= {0, 1}


def _zeros(base: Feeds, names: Sequence[str]) -> Arrays:
    return {name: np.zeros_like(array) if name in names else array for name, array in base.items()}


def within(things: Iterable[_T], clock: Callable[[], float] = time.monotonic) -> Iterator[_T]:
    """As many of them as are dealt with in LOOKING_S, one at least."""
    end = clock() + LOOKING_S
    for thing in things:
        yield thing
        if clock() > end:
            break


def questions(found: Sequence[Edge], batch: int | None) -> Iterator[Question]:
    """Each edge once, in calls of so many rows; None: rows are not independent, and each is a call."""
    if batch is None or not found:
        yield from (Question(edge.feeds, (edge,), whole=True) for edge in found)
        return
    feeds = {name: np.concatenate([edge.feeds[name] for edge in found]) for name in found[0].feeds}
    rows = Rows(feeds, len(found), 0, 0)
    for start in range(0, len(found), batch):
        yield Question(rows.take(start, batch), tuple(found[start : start + batch]), whole=False)


def mistake(asked: Question, expected: Arrays, found: Arrays, gate: verify.Gate | None, beside: Arrays) -> str:
    """What is wrong in an answer, "" if nothing is. Without a gate, as for a lossy candidate, numbers alone count, and
    those far from all records do not. `beside`: an answer to records, whose scale is that of this one."""
    for number, edge in enumerate(asked.rows):
        if edge.far and gate is None:
            continue
        wanted, given = expected, found
        if not asked.whole:
            wanted, given = ({n: a[number : number + 1] for n, a in each.items()} for each in (expected, found))
        reason = verify.lost(wanted, given)
        if not reason and gate is not None and edge.same and verify.all_numbers(wanted):
            wanted, given = (_beside(each, beside) for each in (wanted, given)) if not asked.whole else (wanted, given)
            reason = verify.check(wanted, given, gate).reason
        if reason:
            return f"for {edge.what}: {reason}"
    return ""


def _beside(answer: Arrays, other: Arrays) -> Arrays:
    return {name: np.concatenate([other[name], array]) for name, array in answer.items()}
