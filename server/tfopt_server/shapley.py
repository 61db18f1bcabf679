"""Shapley values of a black box, exact or by sampled permutations (Strumbelj & Kononenko 2014). Pure.

    design = of(players=3, paths=10)
    values[i] = f(coalition design.masks(...)[i])        by the caller, in whatever batches
    found = design.attributions(empty, full, values)     found.values sums to full - empty

A coalition is the set of players whose value is the instance's; the others have the baseline's. The sum holds for every
design, because along each permutation the differences telescope. Permutations come in pairs, one the other's reverse,
which takes out what is odd in the order (antithetic sampling, Mitchell et al. 2022), and are the same for every
request: the same request gets the same answer.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Masks = npt.NDArray[np.bool_]
_SEED = 20_170_705


class Attributions(NamedTuple):
    """`values` [players, outputs]. `errors` [outputs]: the standard error of all values together, relative to their
    magnitude (both root sums of squares); 0 where they are exact, None where one pair of paths tells nothing of it."""

    values: Floats
    errors: Floats | None


class Design(Protocol):
    """Which coalitions to look at besides the empty one and the full one: `count` of them, `players` wide."""

    players: int
    count: int

    def masks(self, which: npt.NDArray[np.intp]) -> Masks:
        """The coalitions of these numbers, [len(which), players]."""

    def attributions(self, empty: Floats, full: Floats, values: Floats) -> Attributions:
        """`empty` and `full` [outputs], `values` [count, outputs] in the coalitions' order."""


def count_of(players: int, paths: int) -> int:
    """How many coalitions of(players, paths) looks at, without making it."""
    sampled = paths * max(0, players - 1)
    return _all(players) if _is_exact(players, paths) else sampled


def _all(players: int) -> int:
    return max(0, (1 << players) - 2)


def _is_exact(players: int, paths: int) -> bool:
    """Where every coalition costs no more than the sample."""
    return players < 32 and _all(players) <= paths * max(0, players - 1)


@functools.lru_cache(maxsize=16)
def of(players: int, paths: int) -> Design:
    """Exact where that costs no more calls than `paths` permutations do."""
    return Exact(players) if _is_exact(players, paths) else Sampled(players, paths)


class Exact:
    """Every coalition. Coalition number c has the members that the bits of c + 1 say."""

    def __init__(self, players: int) -> None:
        self.players, self.count = players, _all(players)
        # weights[members]: of a coalition of that many members, for a player outside it.
        self._weights = [
            math.factorial(s) * math.factorial(players - s - 1) / math.factorial(players) for s in range(players)
        ]

    def masks(self, which: npt.NDArray[np.intp]) -> Masks:
        found: Masks = ((which[:, None] + 1) >> np.arange(self.players)) & 1 == 1
        return found

    def attributions(self, empty: Floats, full: Floats, values: Floats) -> Attributions:
        game = np.concatenate([empty[None], values, full[None]]) if self.players else empty[None]
        found = np.zeros((self.players, len(empty)))
        with np.errstate(invalid="ignore"):
            for members in itertools.product((0, 1), repeat=self.players):
                number = sum(bit << i for i, bit in enumerate(members))
                for player in range(self.players):
                    if not members[player]:
                        weight = self._weights[sum(members)]
                        found[player] += weight * (game[number | 1 << player] - game[number])
        return Attributions(found, np.zeros(len(empty)))


class Sampled:
    """Coalition number c: path c // (players - 1), its first c % (players - 1) + 1 players."""

    def __init__(self, players: int, paths: int) -> None:
        self.players, self.paths = players, paths
        self.count = paths * (players - 1)
        self._orders = _permutations(players, paths)
        self._ranks = np.argsort(self._orders, axis=1)

    def masks(self, which: npt.NDArray[np.intp]) -> Masks:
        path, place = np.divmod(which, self.players - 1)
        found: Masks = self._ranks[path] <= place[:, None]
        return found

    def attributions(self, empty: Floats, full: Floats, values: Floats) -> Attributions:
        outputs = len(empty)
        along = np.empty((self.paths, self.players + 1, outputs))
        along[:, 0], along[:, -1] = empty, full
        along[:, 1:-1] = values.reshape(self.paths, self.players - 1, outputs)
        with np.errstate(invalid="ignore"):
            steps = np.diff(along, axis=1)
        # The step that brings a player in is that player's.
        each = np.take_along_axis(steps, self._ranks[:, :, None], axis=1)
        found = each.mean(axis=0)
        return Attributions(found, _errors(each, found))


def _permutations(players: int, paths: int) -> npt.NDArray[np.intp]:
    """[paths, players]: each second one is the reverse of the one before."""
    rng = np.random.default_rng([_SEED, players])
    drawn: Sequence[Any] = [rng.permutation(players) for _ in range((paths + 1) // 2)]
    return np.stack([order for one in drawn for order in (one, one[::-1])][:paths])


def _errors(each: Floats, mean: Floats) -> Floats | None:
    """From the spread between pairs, which are independent of each other; a last path without its pair is left out."""
    pairs = each[: len(each) // 2 * 2]
    units = (pairs[::2] + pairs[1::2]) / 2
    if len(units) < 2:
        return None
    spread = units.var(axis=0, ddof=1).sum(axis=0) / len(units)
    size = (mean**2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread == 0, 0.0, np.sqrt(spread / size))
