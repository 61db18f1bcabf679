"""The optimization log: one readable line per decision, for people who want to know why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tfopt_optimizer.choose import Trial, microseconds
from tfopt_optimizer.plan import Plan, Shortening

LOSES = 1.2  # candidates that lose to plain TensorFlow by more are named with their time
SHOWN = 6  # names or times of one list; the rest is counted, and stands in the table of the report


class Log:
    """Passes lines on at once and keeps those that belong into the plan."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """A decision: kept in the plan."""
        self.lines.append(line)
        self._progress(line)

    def note(self, line: str) -> None:
        """Progress only."""
        self._progress(line)


def where(signature: str, batch: int | None, shapes: object = None, inner: Sequence[int] = ()) -> str:
    if batch is not None:
        return " x ".join(map(str, (signature, batch, *inner)))
    return f"{signature} {shapes}" if shapes else signature


def decision(place: str, chosen: Trial | None, trials: Sequence[Trial], reference: Trial) -> str:
    """`serving_default x 8: xla 71 us (plain TF 402 us, 5.7x, max error 3e-07) chosen`, then who lost and why.

    Those that lost for like reasons, numbers aside, are told by the first of them.
    """
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial is not chosen and trial is not reference and (what := _lost(trial, reference)):
            alike.setdefault(re.sub(r"[\d.]+", "#", what), []).append(trial)
    others = [f"{_first(lost)} {_lost(lost[0], reference)}" for lost in alike.values()]
    return "; ".join([f"{place}: {_chosen(chosen, reference)}", *others])


def candidates(labels: Sequence[str]) -> str:
    """`litert/t1, litert/t2, openvino and 12 more`."""
    return some(labels) or "plain TF"


def times(trials: Sequence[Trial]) -> str:
    """The fastest first: `host+litert/t1 22.4 us, litert/t1 28.4 us and 9 more; 20 did not get that far`."""
    ran = sorted((t for t in trials if not t.reason), key=lambda t: t.median_us)
    text = some([f"{t.label} {microseconds(t.median_us)}" for t in ran])
    out = len(trials) - len(ran)
    return f"{text}; {out} did not get that far" if out else text


def lengths(asked: Shortening, kept: Shortening | None) -> str:
    """Which lengths rows are computed at, of those that were asked for."""
    if kept is None:
        return f"no row is computed at less than {asked.size} positions: none of {_listed(asked.lengths)} pays"
    if not kept.lengths:
        return f"rows are computed together, for the positions that they have of {kept.size}"
    dropped = [n for n in asked.lengths if n not in kept.lengths]
    out = f"; {_listed(dropped)} would not pay" if dropped else ""
    return f"rows are computed at {_listed(kept.lengths)} of {kept.size} positions where they are no longer{out}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def some(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _chosen(chosen: Trial | None, reference: Trial) -> str:
    if chosen is None or chosen.measured is None:
        return "plain TF chosen"
    time = microseconds(chosen.median_us)
    if chosen is reference:
        return f"plain TF {time} chosen"
    ratio = reference.median_us / chosen.median_us
    error = f", max error {chosen.agreement.max_rel_error:.1g}" if chosen.agreement else ""
    return f"{chosen.label} {time} (plain TF {microseconds(reference.median_us)}, {ratio:.1f}x{error}) chosen"


def _first(trials: Sequence[Trial]) -> str:
    return trials[0].label + (f" and {len(trials) - 1} more" if len(trials) > 1 else "")


def _lost(trial: Trial, reference: Trial) -> str:
    """What is said of a candidate that did not win; nothing of one that was right and not slow."""
    if trial.skipped:
        return f"skipped: {trial.reason}"
    if trial.reason:
        return f"rejected: {trial.reason}"
    if trial.median_us <= LOSES * reference.median_us:
        return ""
    slower = trial.median_us / reference.median_us
    times = f"{microseconds(trial.median_us)} loses to tensorflow {microseconds(reference.median_us)}"
    return f"{times} ({slower:.1f}x slower)"


def loaded(plan: Plan) -> str:
    """When a server imports TensorFlow for this plan."""
    return ", imported at the start" if plan.needs_tensorflow else ", imported when a request is outside the plan"
