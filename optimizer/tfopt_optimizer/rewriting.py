"""Which graph engines are given: the model's own, or one that passes have rewritten and that was found to answer alike.

Two passes are tried where they promise something (engines/rewritten.py): a slice such as `x[:, 0]` goes before what
treats positions separately, and a fixed length becomes open where the records are filled up to it. Plain TensorFlow
runs the result beside the model itself: on records, on beginnings of records down to one position, where filling would
weigh most, and on altered rows.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfopt_optimizer import independence, shortening, verify
from tfopt_optimizer.buckets import Rows
from tfopt_optimizer.engines import rewritten
from tfopt_optimizer.engines.base import Arrays, Target
from tfopt_optimizer.engines.tensorflow import REWRITTEN
from tfopt_optimizer.independence import Refused, Run
from tfopt_optimizer.plan import Shortening, SignatureInfo
from tfopt_optimizer.reference import Reference
from tfopt_optimizer.workers import WorkerFailed

Say = Callable[[str], None]
FOLDER = "rewritten"  # beside the buckets' folders
ROWS = 4  # looked at together
SLICES = "slices"  # the folder where only these are moved
LEAST = 2  # probes, however long they take
PROVING_S = 5.0
_SLICES = frozenset({"StridedSlice", "Slice", "GatherV2", "Gather"})
_PRODUCTS = frozenset({"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})


@dataclasses.dataclass(frozen=True)
class Rewriting:
    """`given`: the signature of the graph in `source`. `lengths`: where that is open. `told`: what was done and how it
    was proven."""

    source: str
    given: SignatureInfo
    lengths: Shortening | None
    told: str

    def with_lengths(self, more: Sequence[int]) -> Rewriting:
        """With buckets of `more` lengths, where there are any."""
        assert self.lengths is not None
        every = tuple(sorted((*self.lengths.lengths, *more)))
        return dataclasses.replace(self, lengths=dataclasses.replace(self.lengths, lengths=every))


def promising(ops: frozenset[str]) -> bool:
    """Whether a graph of these operations may compute positions that nobody reads: it attends, and it slices."""
    return "Softmax" in ops and bool(ops & _SLICES) and bool(ops & _PRODUCTS)


class Rewriter:
    """`whole`: plain TensorFlow on the model itself. `say` is told why nothing is rewritten where that was expected."""

    def __init__(self, reference: Reference, plan_dir: Path, tolerance: verify.Tolerance, say: Say) -> None:
        self._reference, self._plan_dir, self._tolerance, self._say = reference, plan_dir, tolerance, say

    def look(self, info: SignatureInfo, rows: Rows, whole: Run, *, folder: str, slices: bool) -> Rewriting | None:
        """None where engines are given the model's own graph. `slices`: whether it is promising."""
        found = shortening.find(info, rows)
        lengths = found if isinstance(found, Shortening) and found.lengths else None
        rewriting = self._tried(info, rows, whole, lengths, f"{folder}/{FOLDER}") if lengths or slices else None
        if rewriting is None and lengths is not None and slices:
            return self._tried(info, rows, whole, None, f"{folder}/{FOLDER}-{SLICES}")
        return rewriting

    def _tried(
        self, info: SignatureInfo, rows: Rows, whole: Run, lengths: Shortening | None, source: str
    ) -> Rewriting | None:
        made = self._made(info, lengths, source)
        if made is None:
            return None
        meta, target = made
        run, lengths = functools.partial(self._run, target), lengths if meta.opened else None
        count, reason = 0, ""
        try:
            for way in needs(lengths, rows):
                count, reason = prove(run, whole, way, rows, self._tolerance)
                if not reason:
                    lengths = way
                    break
        finally:
            self._reference.let_go(target)
        if reason:
            done = "lengths are opened" if lengths is not None else "slices go first"
            self._say(f"{info.key}: engines are not given a graph in which {done}: {reason}")
            return None
        return Rewriting(target.source, target.signature, lengths, _told(meta, lengths, count))

    def _made(
        self, info: SignatureInfo, lengths: Shortening | None, source: str
    ) -> tuple[rewritten.Meta, Target] | None:
        wanted = shortening.opened(info, lengths) if lengths is not None else info
        target = Target(wanted, REWRITTEN, source=source)
        try:
            self._reference.rewrite(target)
        except WorkerFailed as error:
            self._fixed(info, lengths, error.reason)
            return None
        meta = rewritten.read_meta(self._plan_dir / source)
        if meta.refusal:
            self._fixed(info, lengths, meta.refusal)
        return meta, target if meta.opened else Target(info, REWRITTEN, source=source)

    def _fixed(self, info: SignatureInfo, lengths: Shortening | None, reason: str) -> None:
        if lengths is not None:
            self._say(f"{info.key}: rows are computed at their full length, though {lengths.reason}: {reason}")

    def _run(self, target: Target, feeds: Arrays) -> Arrays:
        try:
            return self._reference.run_rewritten(target, feeds)
        except WorkerFailed as error:
            raise Refused(error.reason) from error


def _told(meta: rewritten.Meta, lengths: Shortening | None, count: int) -> str:
    done = []
    if meta.smaller:
        done.append(f"{meta.smaller} products are computed for the positions that are read alone")
    if lengths is not None:
        tried = ", ".join(map(str, lengths.lengths))
        done.append(f"the length is open, and tried at {tried} of {lengths.size} positions")
    return f"{'; '.join(done)}: {count} requests gave plain TensorFlow's answers"


def needs(lengths: Shortening | None, rows: Rows) -> list[Shortening | None]:
    """What may be proven, the most useful first. Where an input is nothing but filling in some records, that may count
    for nothing (a pair's segments), or mean something else (a mask without a token): such rows are then computed in
    full."""
    empty = shortening.sometimes_empty(lengths, rows.feeds) if lengths is not None else []
    ways = [(), *((name,) for name in empty), *([empty] if len(empty) > 1 else [])]
    return [lengths and shortening.needing(lengths, way) for way in ways]


def prove(
    run: Run,
    whole: Run,
    lengths: Shortening | None,
    rows: Rows,
    tolerance: verify.Tolerance,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, str]:
    """How many probes agreed, and what was wrong with the first that did not, "" when none was. Lengths need an answer
    with a fraction: in a label alone, what filling adds shows only where it changes the label."""
    if lengths is not None and (shortening.lengths(lengths, rows.feeds) == lengths.size).all():
        return 0, "no record could be computed at a shorter length"  # altered ones alone show little
    end, count, fractions, shorter = clock() + PROVING_S, 0, False, False
    emptied = _emptied(lengths, rows) if lengths is not None else {}
    for what, feeds, cut in _probes(whole, lengths, rows, emptied):
        if count >= LEAST + len(emptied) and clock() > end:
            break
        try:
            expected = whole(feeds)
        except Refused:
            continue  # what was altered may be no request at all
        try:
            found = run(cut)
        except Refused as error:
            return count, f"{what} it is refused: {error}"
        reason = verify.check(expected, found, tolerance).reason
        if reason:
            return count, f"{what} it answers otherwise: {reason}"
        fractions = fractions or any(map(_has_fractions, expected.values()))
        shorter = shorter or any(cut[name].shape != array.shape for name, array in feeds.items())
        count += 1
    if lengths is not None and not shorter:
        return count, "no request could be tried at a shorter length"
    if count and lengths is not None and not fractions:
        return count, "its answers are whole numbers alone, in which little of what filling adds would show"
    return count, "" if count else "no request could be tried"


def _has_fractions(answer: np.ndarray) -> bool:
    return verify.is_inexact(answer) and bool((answer != np.round(answer)).any())


def _emptied(lengths: Shortening, rows: Rows) -> dict[str, dict[str, np.ndarray]]:
    """Rows without the inputs that some records do without."""
    names = shortening.sometimes_empty(lengths, rows.feeds)
    first = shortening.full_first(lengths, rows).take(0, min(ROWS, rows.count))
    ways = [[name] for name in names] + ([names] if len(names) > 1 else [])
    return {f"records without {' and '.join(way)}": shortening.emptied(lengths, first, way) for way in ways}


def _probes(
    whole: Run, lengths: Shortening | None, rows: Rows, emptied: Mapping[str, dict[str, np.ndarray]]
) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """What it is, as the model takes it, and as the rewritten graph does: the strictest first."""
    if lengths is not None:
        rows = shortening.full_first(lengths, rows)
    first = rows.take(0, min(ROWS, rows.count))
    altered = independence.acceptable(whole, rows)
    if lengths is None:
        yield "on records", first, first
        if altered is not None:
            yield "on altered records", altered, altered
        return
    size = lengths.size
    kinds = (
        *(("records", first), *emptied.items()),
        *(("altered records", altered), ("records below zero", _below_zero(lengths, rows))),
    )
    for end in (1, size // 2, size - 1):
        for what, feeds in kinds:
            if feeds is not None and (found := _beginnings(lengths, feeds, end)) is not None:
                yield f"on the first {end} positions of {what}", found, shortening.cut(lengths, found, end)
    there = shortening.lengths(lengths, rows.feeds)
    for length in lengths.lengths:
        fitting = np.flatnonzero(there <= length)[-ROWS:]
        if len(fitting):
            own = {name: array[fitting] for name, array in rows.feeds.items()}
            longest = int(there[fitting].max())
            yield f"on records of {longest} positions or less", own, shortening.cut(lengths, own, longest)
    yield f"on {size} positions of records", first, first


def _below_zero(lengths: Shortening, rows: Rows) -> dict[str, np.ndarray] | None:
    """Numbers that are above zero in all records, below it: to a maximum, zeros behind them are the largest then. Not
    those of a mask. Who looks them up in a table refuses them, and nothing is to be learnt."""
    first = rows.take(0, min(ROWS, rows.count))
    counts = [
        f.name
        for f in lengths.inputs
        if rows.feeds[f.name].dtype.kind == "i" and rows.feeds[f.name].min() >= 0 and rows.feeds[f.name].max() > 1
    ]
    return first | {name: -first[name] for name in counts} if counts else None


def _beginnings(lengths: Shortening, feeds: Mapping[str, np.ndarray], end: int) -> dict[str, np.ndarray] | None:
    """The rows filled up behind their first `end` positions, without those that would be computed in full."""
    found = shortening.whole(lengths, shortening.cut(lengths, feeds, end))
    kept = np.flatnonzero(shortening.lengths(lengths, found) <= end)
    return {name: array[kept] for name, array in found.items()} if len(kept) else None
