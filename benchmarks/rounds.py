"""Runs variants in turn, round after round: what drifts on a shared machine then drifts for all of them alike."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from benchmarks.load.job import Outcome


def in_turn(variants: Mapping[str, Callable[[], Outcome]], rounds: int, what: str) -> dict[str, list[Outcome]]:
    """Outcomes per variant, one per round. The order turns round by round, so that no variant is always the first."""
    found: dict[str, list[Outcome]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            outcome = variants[name]()
            found[name].append(outcome)
            print(
                f"  {what}, round {number + 1}/{rounds}, {name}: {outcome.rate:,.0f}/s"
                + (f", first error: {outcome.first_error[:200]}" if outcome.first_error else ""),
                file=sys.stderr,
                flush=True,
            )
    return found
