"""Fair times: candidates and reference take turns in short rounds, so that a busy neighbour slows all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfopt_optimizer.plan import Measured

Array = np.ndarray[Any, Any]
# (seconds of the round, most calls) -> microseconds of each call, one at least
Round = Callable[[float, int], Array]

# (callers at once, seconds) -> calls per second
Saturate = Callable[[int, float], float]

ROUND_S = 0.02  # a round of a model of microseconds
ROUND_CALLS = 12  # calls that a round of a slower model is given time for
LONGEST_ROUND_S = 0.15  # ... up to this, then fewer calls; one at least
MAX_CALLS = 400
ROUNDS = 6
LEAST_TURNS = 2  # of each, whatever the time
SLOW_ROUNDS = 2  # when one call takes longer than SLOW_US: as many again where it is close
SLOW_US = 300_000.0
NEAR = 0.10  # medians this close are measured again
HOPELESS = 2.0  # a candidate this many times slower than the fastest in two buckets is not tried in others
SATURATE_S = 0.1
SATURATE_ROUNDS = 2
CALLERS_GAIN = 0.05
RACING = 1.5  # ... this many times slower in its first rounds, it is not measured further


def first(run: Round) -> Array:
    """One round after two calls that do not count (lazy set-up, cold caches); of a slow model the first call counts."""
    once = run(0.0, 1)
    if SLOW_US <= once.min() < np.inf:
        return once
    run(0.0, 1)
    return run(ROUND_S, MAX_CALLS)


def compare(
    reference: Round, candidates: Mapping[str, Round], left_s: Callable[[], float] = lambda: np.inf
) -> tuple[Array, dict[str, Array]]:
    """Times of the reference and of each candidate. All run two rounds, then the fastest take turns.

    Who loses these rounds by RACING is not measured further, the reference neither: its own time matters to the digit
    only where it may win. They are judged by their fastest calls, which a busy neighbour spoils last. When the best
    two end within NEAR of each other, the rounds are doubled once. When no time is left, LEAST_TURNS must do.
    """
    runs = {"": reference, **candidates}
    times = {name: [first(run)] for name, run in runs.items()}
    for name, run in runs.items():
        if np.isfinite(times[name][0]).all():
            times[name].append(run(_round_s(times[name][0]), ROUND_CALLS))
    fastest = {name: min(float(t.min()) for t in found) for name, found in times.items()}
    best = min(fastest, key=lambda name: fastest[name])
    racing = [name for name in runs if fastest[name] <= RACING * fastest[best]]
    rounds = SLOW_ROUNDS if fastest[best] > SLOW_US else ROUNDS
    round_s = _round_s(np.array([fastest[best]]))
    for again in range(2):
        for turn in range(rounds if len(racing) > 1 else 0):
            if (turn >= LEAST_TURNS or again) and left_s() <= 0.0:
                break
            for name in racing:
                times[name].append(runs[name](round_s, MAX_CALLS))
        medians = sorted(_median(times[name]) for name in racing)
        if again or len(medians) < 2 or medians[1] > medians[0] * (1 + NEAR):
            break
    found = {name: quieter(rounds_) for name, rounds_ in times.items()}
    return found.pop(""), found


def quieter(rounds: list[Array]) -> Array:
    """The calls of the faster half of the rounds.

    A neighbour's work lasts longer than a round, and engines suffer from it differently: where threads wait for each
    other, one that has lost its core holds up all (BERT-small on OpenVINO and TensorFlow, 4.3 and 12 ms on two quiet
    cores, took 28 and 19 ms with four other processes on them). What was chosen must be right when they are gone.
    """
    ordered = sorted(rounds, key=lambda times: float(np.median(times)))
    return np.concatenate(ordered[: (len(ordered) + 1) // 2])


def _round_s(times: Array) -> float:
    return min(max(ROUND_S, ROUND_CALLS * float(np.median(times)) / 1e6), LONGEST_ROUND_S)


def summary(times: Array, rate: float = 0.0, callers: int = 0) -> Measured:
    return Measured(float(np.median(times)), float(np.percentile(times, 90)), len(times), rate, callers)


def saturate(
    runs: Mapping[str, Saturate], cores: int, left_s: Callable[[], float] = lambda: np.inf
) -> dict[str, tuple[float, int]]:
    """The highest rate of each, and at how many callers: one, or as many as cores. In turn, as `compare`; once where
    all calls are slow.

    One caller where more gain less than CALLERS_GAIN: each request then waits less, and more of them share a batch.
    """
    callers = (1, cores) if cores > 1 else (1,)
    found: dict[str, dict[int, float]] = {name: dict.fromkeys(callers, 0.0) for name in runs}
    for turn in range(SATURATE_ROUNDS):
        slow = max((rates[1] for rates in found.values()), default=0.0) < 1e6 / SLOW_US
        if turn and (slow or left_s() <= 0.0):
            break
        for name, run in runs.items():
            for number in callers:
                found[name][number] = max(found[name][number], run(number, SATURATE_S))
    return {name: _best_rate(rates) for name, rates in found.items()}


def _best_rate(rates: Mapping[int, float]) -> tuple[float, int]:
    alone, best = rates[1], max(rates, key=lambda number: rates[number])
    return (rates[best], best) if rates[best] > alone * (1 + CALLERS_GAIN) else (alone, 1)


def _median(rounds: list[Array]) -> float:
    return float(np.median(quieter(rounds)))
