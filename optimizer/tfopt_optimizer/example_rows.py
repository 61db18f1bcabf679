"""Records whose serialized Examples are unlike all others: with features of other lengths and values, without those
that they have, with those that the model declares and none has.

The proof of independent rows puts them beside a record (`beside`); the contest asks every candidate for their answers
(`made_up`), for a model may be right on all records and read a feature wrong that clients send now and then.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer import examples
from tfopt_optimizer.declared import Declared
from tfopt_optimizer.examples import ABOVE, BELOW, EMPTY, LONGER, MISSING, ONE, SEVERAL, SHORTER, Feature

Arrays = dict[str, np.ndarray]
Feeds = Mapping[str, np.ndarray]
Takes = Callable[[Arrays], bool]
TURNS = 4  # words that a feature of one is given, one after another
ALONE = 16  # features that are also given one at a time
SEARCH_S = 5.0  # for finding out what a slow model takes; what is given comes first


@dataclasses.dataclass(frozen=True)
class Variation:
    """A change to every Example of one input. `adds`: features that no record has."""

    input: str
    change: Callable[[bytes], bytes]
    adds: bool = False

    def of(self, feeds: Feeds) -> Arrays:
        array = feeds[self.input]
        found = np.empty(array.size, object)
        found[:] = [self.change(value) for value in array.ravel()]
        return {**feeds, self.input: found.reshape(array.shape)}


class Search:
    """Finds out what the model takes; nothing is taken after SEARCH_S.

    Counts changes of one feature: `tried` is how many were taken or refused, `wanted` how many there were to try.
    """

    def __init__(self, takes: Takes) -> None:
        self._takes, self._end = takes, time.monotonic() + SEARCH_S
        self.tried = self.wanted = 0

    def takes(self, variation: Variation, base: Feeds, count: int = 1) -> bool:
        """`count`: features that it changes. Where several are refused together, each of them is tried again."""
        if time.monotonic() >= self._end:
            return False
        taken = self._takes(variation.of(base))
        if taken or count == 1:
            self.tried += count
        return taken

    def told(self) -> str:
        """Where it ended too early; "" when everything was tried."""
        if self.tried == self.wanted:
            return ""
        return f"{self.tried} of {self.wanted} changes of a feature were tried in {SEARCH_S:g} s"


def beside(search: Search, base: Feeds, records: Sequence[Feeds], declared: Declared) -> Iterator[Arrays]:
    """`base`, one row of the records, changed in all ways that the model takes: for rows that stand beside another."""
    for name in _inputs(base, declared):
        yield from (v.of(base) for v in _given(search, base, name, lacking(records, name, declared), declared))
        for how in (LONGER, SHORTER, ABOVE, BELOW, MISSING, EMPTY):
            yield from (v.of(base) for v in _changed(search, base, name, how, declared))


def made_up(search: Search, base: Feeds, records: Sequence[Feeds], declared: Declared) -> list[Variation]:
    """What a client may send and no record shows, as far as the model takes it. The values are plausible ones: those of
    `beside` may lie where no candidate needs to be right."""
    found = list[Variation]()
    for name in _inputs(base, declared):
        absent = lacking(records, name, declared)
        found += _given(search, base, name, absent, declared)
        if len(absent) > 1:
            alone = [_giving(name, [feature], ONE, 0, declared) for feature in absent[:ALONE]]
            search.wanted += len(alone)
            found += [v for v in alone if search.takes(v, base)]
        for how in (MISSING, EMPTY, LONGER, SHORTER):
            found += _changed(search, base, name, how, declared)
    return found


def lacking(records: Sequence[Feeds], name: str, declared: Declared) -> list[Feature]:
    """The features declared of which no record has a value in this input."""
    there = {found for feeds in records for value in feeds[name].ravel() for found in examples.features(value)}
    return [feature for feature in declared.features if feature.name not in there]


def inputs(records: Sequence[Feeds], declared: Declared) -> list[str]:
    """Those that hold Examples."""
    return list(_inputs(records[0], declared)) if records else []


def _inputs(base: Feeds, declared: Declared) -> Iterator[str]:
    """Empty Examples are no bytes at all: only what the model declares tells them from other text."""
    for name, array in base.items():
        values = list(array.ravel()) if array.dtype == object else []
        if any(map(examples.features, values)) or (declared.features and values and not any(values)):
            yield name


def _given(
    search: Search, base: Feeds, name: str, absent: Sequence[Feature], declared: Declared
) -> Iterator[Variation]:
    strings = any(feature.dtype == "string" for feature in absent)
    turns = range(max(1, min(TURNS, len(declared.words))) if strings else 1)
    open_ = [feature for feature in absent if feature.size is None or feature.name[0] == "list"]
    for how, features, some in ((ONE, absent, turns), (SEVERAL, open_, (0,)), (EMPTY, absent, (0,))):
        for turn in some:
            make = functools.partial(_giving, name, how=how, turn=turn, declared=declared)
            yield from _groups(search, base, features, make)


def _giving(name: str, features: Collection[Feature], how: str, turn: int, declared: Declared) -> Variation:
    change = functools.partial(examples.given, features=features, how=how, turn=turn, words=declared.words)
    return Variation(name, change, adds=True)


def _changed(search: Search, base: Feeds, name: str, how: str, declared: Declared) -> Iterator[Variation]:
    """Those of a declared length come last, as a parser takes or refuses them together, and have no other length."""
    fixed = {feature.name for feature in declared.features if feature.size is not None and feature.name[0] == "context"}
    there = {found for value in base[name].ravel() for found in examples.features(value)}
    names = sorted(there - fixed) + (sorted(there & fixed) if how not in (LONGER, SHORTER, EMPTY) else [])
    return _groups(search, base, names, functools.partial(_changing, name, how=how))


def _changing(name: str, features: Collection[examples.Name], how: str) -> Variation:
    return Variation(name, lambda value: examples.changed(value, features, how))


def _groups(
    search: Search, base: Feeds, features: Sequence[Any], make: Callable[[Sequence[Any]], Variation]
) -> Iterator[Variation]:
    """By the largest groups that may be changed together, and all of those."""
    search.wanted += len(features)
    groups = list(examples.groups(features, lambda some: search.takes(make(some), base, len(some))))
    yield from map(make, groups)
    if len(groups) > 1:
        yield make([feature for group in groups for feature in group])
