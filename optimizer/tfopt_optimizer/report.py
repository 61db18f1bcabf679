"""The optimization log: one readable line per decision, for people who want to know why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfopt_optimizer.choose import Trial, microseconds
from tfopt_optimizer.plan import Plan

LOSES = 1.2  # candidates that lose to plain TensorFlow by more are named with their time


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
    """`serving_default x 8: xla 71 us (plain TF 402 us, 5.7x, max error 3e-07) chosen`, then who lost and why."""
    text = f"{place}: {_chosen(chosen, reference)}"
    others = [_loser(t, reference) for t in trials if t is not chosen and t is not reference]
    return "; ".join([text, *(o for o in others if o)])


def _chosen(chosen: Trial | None, reference: Trial) -> str:
    if chosen is None or chosen.measured is None:
        return "plain TF chosen"
    time = microseconds(chosen.median_us)
    if chosen is reference:
        return f"plain TF {time} chosen"
    ratio = reference.median_us / chosen.median_us
    error = f", max error {chosen.agreement.max_rel_error:.1g}" if chosen.agreement else ""
    return f"{chosen.label} {time} (plain TF {microseconds(reference.median_us)}, {ratio:.1f}x{error}) chosen"


def _loser(trial: Trial, reference: Trial) -> str:
    if trial.skipped:
        return f"{trial.label} skipped: {trial.reason}"
    if trial.reason:
        return f"{trial.label} rejected: {trial.reason}"
    if trial.median_us > LOSES * reference.median_us:
        slower = trial.median_us / reference.median_us
        return (
            f"{trial.label} {microseconds(trial.median_us)} loses to tensorflow "
            f"{microseconds(reference.median_us)} ({slower:.1f}x slower)"
        )
    return ""


def loaded(plan: Plan) -> str:
    """When a server imports TensorFlow for this plan."""
    return ", imported at the start" if plan.needs_tensorflow else ", imported when a request is outside the plan"


def text(plan: Plan) -> str:
    """What `tfopt report PLAN` prints."""
    head = [
        f"plan of {plan.created}: made in {plan.optimize_s:.1f} s for {plan.where}, checked on {plan.records} records",
        f"plain TensorFlow by the {plan.loader} loader{loaded(plan)}; weights {plan.weights_bytes / 1e6:.1f} MB",
    ]
    return "\n".join([*head, *plan.log])
