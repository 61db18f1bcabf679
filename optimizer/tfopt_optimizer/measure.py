"""Fair times: candidates and reference take turns in short rounds, so that a busy neighbour slows all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfopt_optimizer.plan import Measured

Array = np.ndarray[Any, Any]
# (seconds of the round, most calls) -> microseconds of each call, one at least
Round = Callable[[float, int], Array]

ROUND_S = 0.02  # a round of a model of microseconds
ROUND_CALLS = 12  # calls that a round of a slower model is given time for
LONGEST_ROUND_S = 0.15  # ... up to this, then fewer calls; one at least
MAX_CALLS = 400
ROUNDS = 6
SLOW_ROUNDS = 3  # when one call takes longer than SLOW_US
SLOW_US = 300_000.0
NEAR = 0.10  # medians this close are measured again
HOPELESS = 2.0  # a candidate this many times slower than the fastest in two buckets is not tried in others
RACING = 1.5  # ... this many times slower in the first round, it is not measured further


def first(run: Round) -> Array:
    """One round after two calls that do not count (lazy set-up, cold caches)."""
    run(0.0, 1)
    run(0.0, 1)
    found = run(ROUND_S, MAX_CALLS)
    if len(found) < ROUND_CALLS and np.isfinite(found).all():
        found = np.concatenate([found, run(_round_s(found), ROUND_CALLS)])
    return found


def compare(reference: Round, candidates: Mapping[str, Round]) -> tuple[Array, dict[str, Array]]:
    """Times of the reference and of each candidate. All run one round, then the fastest take turns.

    Who loses the first round by RACING keeps the times of that round, the reference too: its own time matters to the
    digit only where it may win. The round is judged by its fastest calls, which a busy neighbour spoils last. When the
    best two end within NEAR of each other, the rounds are doubled once.
    """
    times = {"": [first(reference)], **{name: [first(run)] for name, run in candidates.items()}}
    runs = {"": reference, **candidates}
    best = min(times, key=lambda name: float(times[name][0].min()))
    bar = RACING * float(times[best][0].min())
    racing = [name for name in runs if float(times[name][0].min()) <= bar]
    rounds = SLOW_ROUNDS if float(np.median(times[best][0])) > SLOW_US else ROUNDS
    round_s = _round_s(times[best][0])
    for again in range(2):
        for _ in range(rounds if len(racing) > 1 else 1):
            for name in racing:
                times[name].append(runs[name](round_s, MAX_CALLS))
        medians = sorted(_median(times[name]) for name in racing)
        if again or len(medians) < 2 or medians[1] > medians[0] * (1 + NEAR):
            break
    found = {name: np.concatenate(rounds_) for name, rounds_ in times.items()}
    return found.pop(""), found


def _round_s(times: Array) -> float:
    return min(max(ROUND_S, ROUND_CALLS * float(np.median(times)) / 1e6), LONGEST_ROUND_S)


def summary(times: Array) -> Measured:
    return Measured(float(np.median(times)), float(np.percentile(times, 90)), len(times))


def _median(rounds: list[Array]) -> float:
    return float(np.median(np.concatenate(rounds)))
