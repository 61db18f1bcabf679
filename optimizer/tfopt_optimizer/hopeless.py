"""Who need not be tried in a signature's other buckets, by what came of it in the smallest and in the largest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfopt_optimizer import likely, measure
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.entrant import Entrant

BEHIND = 1.25  # who is this many times slower than the fastest at the full length is not tried at shorter ones
NO_TIME = "no time left (--optimize_budget_s)"  # why somebody was not tried who may well win
_BOTH = "in the smallest and in the largest bucket"


def hopeless(entrants: Sequence[Entrant], extremes: Sequence[Sequence[Trial]]) -> dict[Entrant, str]:
    """Those that were skipped, failed or lost badly in all of `extremes` (the trials of the smallest bucket and of the
    largest), with what is said of them in the others."""
    found: dict[Entrant, str] = {}
    best = [min((t.score_us for t in trials if t.eligible), default=0.0) for trials in extremes]
    for entrant in entrants:
        own = [t for trials in extremes for t in trials if (t.engine, t.variant) == (entrant.engine, entrant.variant)]
        if len(own) < len(extremes):
            continue  # plain TensorFlow itself failed in one of them: nothing is known
        ends = [_end(trial, us) for trial, us in zip(own, best, strict=True)]
        if all(ends) and not _untried(own):
            found[entrant] = _told(own, ends)
    return found


def _end(trial: Trial, best_us: float) -> str:
    """How it lost; "" when it may win in another bucket."""
    if trial.reason:
        return trial.reason if trial.skipped else f"failed: {trial.reason}"
    slow = trial.score_us > measure.HOPELESS * best_us
    return f"lost by more than {measure.HOPELESS:g}x" if slow else ""


def _untried(own: Sequence[Trial]) -> bool:
    """Whether nothing speaks against it but that there was no time, or not the rows that it is for."""
    return all(t.skipped for t in own) and any(t.reason.startswith(NO_TIME) for t in own)


def _told(own: Sequence[Trial], ends: Sequence[str]) -> str:
    if all(t.reason and not t.skipped for t in own):
        return f"failed {_BOTH}: {own[0].reason}"
    if len(set(ends)) > 1:
        return f"in the smallest bucket: {ends[0]}; in the largest: {ends[-1]}"
    return ends[0] if own[0].skipped else f"{ends[0]} {_BOTH}"


def behind(entrants: Sequence[Entrant], whole: Sequence[Trial], alone: Trial | None) -> dict[Entrant, str]:
    """Those that were not near the fastest of `whole`, the trials of as many rows at the signature's own length: models
    are converted for each shorter one, which changes little between them. `alone`: who was chosen there, where weights
    are so large that another runner, which keeps its own, would cost more memory than it saves time."""
    if alone is not None and alone.engine != "tensorflow":
        others = [e for e in entrants if (e.engine, e.variant) != (alone.engine, alone.variant)]
        return dict.fromkeys(others, f"the weights are there once, for {alone.label}, which runs the full length")
    right = {(t.engine, t.variant): t.score_us for t in whole if t.eligible}
    limit = BEHIND * min(right.values(), default=0.0)
    why = {(t.engine, t.variant): f"at the full length: {t.reason}" for t in whole if t.reason}
    slow = f"at the full length it was not within {BEHIND:g}x of the fastest"
    return {
        e: why.get((e.engine, e.variant), slow)
        for e in entrants
        if right and right.get((e.engine, e.variant), math.inf) > limit
    }


def inflexible(entrants: Sequence[Entrant], *, near: bool) -> dict[Entrant, str]:
    """Those that are not tried for several rows of a shorter length, which are as many as they happen to be: streams of
    equal parts, where their engine takes any number without them. `near`: nor, where a length lies between others, any
    that has a model for each."""
    fixed = [e for e in entrants if not likely.takes_any(e.engine, e.variant)]
    if near:
        return dict.fromkeys(fixed, "it has a model for each length, or takes equal parts")
    flexible = {e.engine for e in entrants if e not in fixed}
    return {e: "its streams take equal parts" for e in fixed if e.engine in flexible}
