"""The gate: how far a candidate's outputs are from plain TensorFlow's, and whether that is close enough.

    verdict = check(reference, candidate, lossless(1e-4))
    verdict.reason      # "" when it passed, else what left the tolerance

Distances are relative to the output's largest finite magnitude in the reference, so that a tensor of 1e-6 noise beside
values of 10 does not fail and a tensor whose values are all 1e-6 is still looked at. Two kinds of outputs have more
than one scale: those with a mask value in them (-1e9 beside logits of 3), which is set apart, and those that join
different things (pixels beside probabilities, as detectors do), whose rows and columns are looked at one by one too. A
NaN equals a NaN and an infinity the same infinity; anything else non-finite fails. Integers, booleans and strings must
be equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer.plan import Agreement

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]
# Two bins a decade: a histogram of relative errors adds up over calls, quantiles would not.
ERROR_EDGES = tuple(float(10.0 ** (k / 2)) for k in range(-18, 1))
# A mask value stands apart: large, there several times, and this much larger than everything else.
MASK_LEAST, MASK_APART = 1e3, 1e3
# What a row or a column may be off by, relative to its own largest magnitude: more often than the whole output, it is
# small because larger terms cancel. Below SMALLEST, the size of probabilities and logits, only the whole counts, and so
# it does below these shares of the whole: float32 keeps no more of a row beside rows, or of a column, than that.
SLICE_TIMES, SLICE_MOST = 10.0, 0.5
SMALLEST, ROW_SHARE, COLUMN_SHARE = 1.0, 1e-3, 1e-6


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Bounds on the relative error (a share, not percent). `top1`: least share of rows with the same largest entry.

    Two are in use: `lossless`, and that of lossy candidates, which the operator's flags make (flags.py: by default mean
    0.01 %, largest 1 %, and 99 % of the rows keep their best class).
    """

    max_rel_error: float
    mean_rel_error: float
    top1: float

    @property
    def of_one_call(self) -> Tolerance:
        """What a single call must hold: means and shares are of all calls together."""
        return dataclasses.replace(self, mean_rel_error=self.max_rel_error, top1=0.0)

    @property
    def slice_rel_error(self) -> float:
        """The bound of a row or column, relative to its own largest magnitude."""
        return max(self.max_rel_error, min(SLICE_TIMES * self.max_rel_error, SLICE_MOST))

    @property
    def column_mean_error(self) -> float:
        """The bound of a column's mean error: where all of its values are off one way, no single one is by much."""
        return max(self.mean_rel_error, min(SLICE_TIMES * self.mean_rel_error, SLICE_MOST))


@dataclasses.dataclass(frozen=True)
class Gate:
    """A tolerance for each output of a signature: `usual`, but for those in `own`."""

    usual: Tolerance
    own: Mapping[str, Tolerance] = dataclasses.field(default_factory=dict)

    def of(self, output: str) -> Tolerance:
        return self.own.get(output, self.usual)

    @property
    def of_one_call(self) -> Gate:
        return Gate(self.usual.of_one_call, {name: own.of_one_call for name, own in self.own.items()})


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`place`: the row or column that `agreement.slice_rel_error` is of, `column` that of `column_mean_error`; "" where
    none was looked at."""

    agreement: Agreement
    reason: str
    place: str = ""
    column: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason


def lossless(max_rel_error: float) -> Tolerance:
    """Float32 rounding. Top-1 can differ only where two scores tie within the tolerance: it has no bound of its own."""
    return Tolerance(max_rel_error=max_rel_error, mean_rel_error=max_rel_error, top1=0.0)


def check(reference: Outputs, candidate: Outputs, tolerance: Tolerance | Gate) -> Verdict:
    """Compares one call's outputs. The names, shapes and dtypes must be the reference's."""
    if set(reference) != set(candidate):
        return _failed(f"outputs {sorted(candidate)} instead of {sorted(reference)}")
    found = by_output(reference, candidate)
    return Verdict(worst([v.agreement for v in found.values()]), _first(found, tolerance))


def lost(reference: Outputs, candidate: Outputs) -> str:
    """The first place where the reference has a number and the candidate none; "" where there is no such place. Of
    outputs that were compared before."""
    for name in sorted(reference):
        wanted, found = reference[name], candidate[name]
        missing = np.argwhere(_is_number(wanted) & ~_is_number(found))
        if len(missing):
            at = tuple(int(i) for i in missing[0])
            return f"output {name!r} has {found[at]} at {list(at)}, plain TensorFlow {wanted[at]}"
    return ""


def all_numbers(outputs: Outputs) -> bool:
    return all(_is_number(array).all() for array in outputs.values())


def _is_number(array: Array) -> Array:
    if not is_inexact(array):
        return np.ones(array.shape, np.bool_)
    wide = np.complex128 if np.issubdtype(array.dtype, np.complexfloating) else np.float64
    return np.asarray(np.isfinite(array.astype(wide)))


class Calls:
    """Several calls on different rows: means and shares are of all of them, for each output by itself.

    `add` gives the reason why a call fails alone, "" where it does not; `verdict` is that of the calls so far.
    """

    def __init__(self, gate: Tolerance | Gate) -> None:
        self._gate, self._reason = gate, ""
        self._calls: list[Agreement] = []
        self._outputs: dict[str, list[Verdict]] = {}

    def add(self, reference: Outputs, candidate: Outputs) -> str:
        if set(reference) != set(candidate):
            failed = check(reference, candidate, self._gate)
            self._calls.append(failed.agreement)
            self._reason = failed.reason
            return failed.reason
        found = by_output(reference, candidate)
        for name, verdict in found.items():
            self._outputs.setdefault(name, []).append(verdict)
        self._calls.append(worst([v.agreement for v in found.values()]))
        self._reason = self._reason or _first(found, self._gate.of_one_call)
        return self._reason

    def verdict(self) -> Verdict:
        together = {name: _together(each) for name, each in self._outputs.items()}
        return Verdict(add_calls(self._calls), self._reason or _first(together, self._gate))


def _together(calls: Sequence[Verdict]) -> Verdict:
    """Of one output; the column is that of the worst call."""
    worst_call = max(calls, key=lambda v: v.agreement.column_mean_error)
    return Verdict(add_calls(v.agreement for v in calls), "", column=worst_call.column)


def _first(found: Mapping[str, Verdict], tolerance: Tolerance | Gate) -> str:
    """The first output's reason to fail, with its name where there are several."""
    for name, each in found.items():
        own = tolerance.of(name) if isinstance(tolerance, Gate) else tolerance
        reason = judge(each.agreement, each.reason, own, each.place, each.column).reason
        if reason:
            return reason if len(found) == 1 or each.reason else f"output {name!r}: {reason}"
    return ""


def by_output(reference: Outputs, candidate: Outputs) -> dict[str, Verdict]:
    """Each output of one call by itself, without a tolerance. The names must be the reference's."""
    return {name: _check_output(name, reference[name], candidate[name]) for name in sorted(reference)}


def judge(agreement: Agreement, reason: str, tolerance: Tolerance, place: str = "", column: str = "") -> Verdict:
    """Adds the tolerance's verdict to what was wrong already. `place` and `column` as in Verdict."""
    if not reason and not (error := agreement.max_rel_error) <= (bound := tolerance.max_rel_error):
        reason = f"max error {_beyond(error, bound)} is above {bound:.2g}"
    if not reason and not (error := agreement.slice_rel_error) <= (bound := tolerance.slice_rel_error):
        off = f"is off by {_beyond(error, bound)} of its own largest value"
        reason = f"{place or 'a row or column'} {off}, above {bound:.2g}"
    if not reason and not (error := agreement.mean_rel_error) <= (bound := tolerance.mean_rel_error):
        reason = f"mean error {_beyond(error, bound)} is above {bound:.2g}"
    if not reason and not (error := agreement.column_mean_error) <= (bound := tolerance.column_mean_error):
        off = f"is off by {_beyond(error, bound)} of its own largest value on the average"
        reason = f"{column or 'a column'} {off}, above {bound:.2g}"
    if not reason and agreement.top1 is not None and agreement.top1 < tolerance.top1:
        reason = f"only {agreement.top1:.2%} of the rows keep their best class, {tolerance.top1:.2%} are needed"
    return Verdict(agreement, reason)


def _beyond(error: float, bound: float) -> str:
    """With as many figures as it takes to see that it is not the bound: `0.0104` above 0.01."""
    texts = (f"{error:.{figures}g}" for figures in range(2, 18))
    return next((text for text in texts if float(text) != bound), str(error))


def worst(outputs: Sequence[Agreement]) -> Agreement:
    """Of one call: every output must hold, so none is averaged away by another that is exact (a label, a constant)."""
    return Agreement(
        max((a.max_rel_error for a in outputs), default=0.0),
        max((a.mean_rel_error for a in outputs), default=0.0),
        max((a.rows for a in outputs), default=0),
        min((a.top1 for a in outputs if a.top1 is not None), default=None),
        _add(a.histogram for a in outputs),
        max((a.slice_rel_error for a in outputs), default=0.0),
        max((a.column_mean_error for a in outputs), default=0.0),
    )


def _add(histograms: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Bin by bin; outputs that are no numbers have no bins."""
    counted = [h for h in histograms if h]
    return tuple(sum(bins) for bins in zip(*counted, strict=True))


def add_calls(agreements: Iterable[Agreement]) -> Agreement:
    """Over calls on different rows: the worst maximum; mean and top-1 weighted by rows, which add up."""
    found = list(agreements)
    if not found:
        return Agreement(0.0, 0.0, 0)
    scored = [a for a in found if a.top1 is not None and a.rows]
    weights = [max(a.rows, 1) for a in found]
    mean = sum(a.mean_rel_error * w for a, w in zip(found, weights, strict=True)) / sum(weights)
    columns = sum(a.column_mean_error * w for a, w in zip(found, weights, strict=True)) / sum(weights)
    top1 = sum((a.top1 or 0.0) * a.rows for a in scored) / sum(a.rows for a in scored) if scored else None
    largest = max(a.max_rel_error for a in found)
    worst_slice = max(a.slice_rel_error for a in found)
    rows, histogram = sum(a.rows for a in found), _add(a.histogram for a in found)
    return Agreement(largest, mean, rows, top1, histogram, worst_slice, columns)


def _check_output(name: str, reference: Array, candidate: Array) -> Verdict:
    if reference.shape != candidate.shape:
        return _failed(f"output {name!r} has shape {candidate.shape} instead of {reference.shape}")
    if reference.dtype != candidate.dtype:
        return _failed(f"output {name!r} is {candidate.dtype} instead of {reference.dtype}")
    if is_inexact(reference):
        return _check_inexact(name, reference, candidate)
    unequal = int(np.count_nonzero(reference != candidate))
    rows = reference.shape[0] if reference.ndim else 1
    if not unequal:
        return Verdict(Agreement(0.0, 0.0, rows), "")
    share = unequal / reference.size
    return Verdict(
        Agreement(1.0, share, rows),
        f"output {name!r} ({reference.dtype}) differs in {unequal} of {reference.size} values and must be equal",
    )


def _check_inexact(name: str, reference: Array, candidate: Array) -> Verdict:
    rows = reference.shape[0] if reference.ndim else 1
    if not reference.size:
        return Verdict(Agreement(0.0, 0.0, rows), "")
    kind = np.complex128 if np.issubdtype(reference.dtype, np.complexfloating) else np.float64
    wanted, found = reference.astype(kind), candidate.astype(kind)
    same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
    comparable = np.isfinite(wanted) & np.isfinite(found)
    broken = int(np.count_nonzero(~same & ~comparable))
    if broken:
        bad = np.argwhere(~same & ~comparable)[0]
        at = tuple(int(i) for i in bad)
        return Verdict(
            Agreement(float("inf"), float("inf"), rows),
            f"output {name!r} has {found[at]} at {list(at)}, plain TensorFlow {wanted[at]} ({broken} such values)",
        )
    difference = np.subtract(wanted, found, out=np.zeros_like(wanted), where=comparable)
    distance = np.where(same, 0.0, np.abs(difference))
    size = np.where(np.isfinite(wanted), np.abs(wanted), 0.0)
    masked = _masked(size)
    distance[masked] /= size[masked]
    size[masked] = 0.0
    scale = float(size.max())
    # An output of only zeros has no scale: the distance itself is then the error.
    error = np.where(masked, distance, distance / (scale or 1.0))
    bins = np.bincount(np.digitize(error.ravel(), ERROR_EDGES), minlength=len(ERROR_EDGES) + 1)
    histogram = tuple(int(count) for count in bins)
    unmasked = np.where(masked, 0.0, distance)
    slices, place = _slices(size, unmasked, scale)
    mean, column = _column_means(size, unmasked, scale)
    agreement = Agreement(float(error.max()), float(error.mean()), rows, _top1(wanted, found), histogram, slices, mean)
    return Verdict(agreement, "", place, column)


def _masked(size: Array) -> Array:
    """Where the one mask value is, whose magnitude says nothing about the others'."""
    largest = float(size.max())
    masked: Array = size == largest
    if largest < MASK_LEAST or np.count_nonzero(masked) < 2 or masked.all():
        return np.zeros_like(masked)
    return masked if largest >= MASK_APART * float(size[~masked].max()) > 0.0 else np.zeros_like(masked)


def _slices(size: Array, distance: Array, scale: float) -> tuple[float, str]:
    """The largest error of a row (axis 0) or column (any other axis) beside its own largest magnitude, and which."""
    worst, place = 0.0, ""
    for axis in range(size.ndim if scale > SMALLEST else 0):
        rest = tuple(other for other in range(size.ndim) if other != axis)
        least = max(SMALLEST, (COLUMN_SHARE if axis else ROW_SHARE) * scale)
        errors = np.atleast_1d(distance.max(axis=rest) / np.maximum(size.max(axis=rest), least))
        number = int(errors.argmax())
        if float(errors[number]) > worst:
            worst, place = float(errors[number]), _named(axis, number, size.ndim)
    return worst, place


def _column_means(size: Array, distance: Array, scale: float) -> tuple[float, str]:
    """The largest mean error of a column beside its own largest magnitude, and which column. Not of rows: theirs add up
    to the whole's."""
    worst, place = 0.0, ""
    for axis in range(1, size.ndim if scale > SMALLEST else 0):
        rest = tuple(other for other in range(size.ndim) if other != axis)
        errors = distance.mean(axis=rest) / np.maximum(size.max(axis=rest), max(SMALLEST, COLUMN_SHARE * scale))
        number = int(errors.argmax())
        if float(errors[number]) > worst:
            worst, place = float(errors[number]), _named(axis, number, size.ndim)
    return worst, place


def _named(axis: int, number: int, rank: int) -> str:
    if not axis:
        return f"row {number}"
    return f"column {number}" if rank == 2 else f"column {number} of axis {axis}"


def _top1(wanted: Array, found: Array) -> float | None:
    """Share of rows whose largest entry stands at the same place; None where the output is no vector of scores."""
    if wanted.ndim != 2 or wanted.shape[1] < 2 or np.iscomplexobj(wanted) or np.isnan(wanted).any():
        return None
    return float(np.mean(wanted.argmax(axis=1) == found.argmax(axis=1)))


def is_inexact(array: Array) -> bool:
    """Floats and complex numbers, ml_dtypes' floats included (numpy knows those only as kind "V")."""
    if array.dtype.kind in "fc":
        return True
    return array.dtype.kind == "V" and "float" in array.dtype.name


def _failed(reason: str) -> Verdict:
    return Verdict(Agreement(float("inf"), float("inf"), 0), reason)
