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
LONGEST_ROUND_S = 0.25  # ... up to this, then fewer calls; one at least
MAX_CALLS = 400
ROUNDS = 6
SLOW_ROUNDS = 3  # when one call takes longer than SLOW_US
SLOW_US = 300_000.0
NEAR = 0.10  # medians this close are measured again
HOPELESS = 2.0  # a candidate this many times slower than the reference in the first round is not measured further


def quick(run: Round) -> Array:
    """One round after two calls that do not count (lazy set-up, cold caches)."""
    run(0.0, 1)
    run(0.0, 1)
    return run(ROUND_S, MAX_CALLS)


def compare(reference: Round, candidates: Mapping[str, Round]) -> tuple[Array, dict[str, Array]]:
    """Times of the reference and of each candidate, over alternating rounds.

    A candidate that loses the first round by HOPELESS keeps the times of that round. When the best two (or the best
    and the reference) end within NEAR of each other, the rounds are doubled once.
    """
    base = [quick(reference)]
    times = {name: [quick(run)] for name, run in candidates.items()}
    base_us = float(np.median(base[0]))
    racing = {n: run for n, run in candidates.items() if float(np.median(times[n][0])) <= HOPELESS * base_us}
    rounds = SLOW_ROUNDS if base_us > SLOW_US else ROUNDS
    round_s = min(max(ROUND_S, ROUND_CALLS * base_us / 1e6), LONGEST_ROUND_S)
    for again in range(2):
        for _ in range(rounds):
            base.append(reference(round_s, MAX_CALLS))
            for name, run in racing.items():
                times[name].append(run(round_s, MAX_CALLS))
        medians = sorted(_median(t) for t in [base, *(times[n] for n in racing)])
        if again or len(medians) < 2 or medians[1] > medians[0] * (1 + NEAR):
            break
    return np.concatenate(base), {name: np.concatenate(found) for name, found in times.items()}


def summary(times: Array) -> Measured:
    return Measured(float(np.median(times)), float(np.percentile(times, 90)), len(times))


def _median(rounds: list[Array]) -> float:
    return float(np.median(np.concatenate(rounds)))
