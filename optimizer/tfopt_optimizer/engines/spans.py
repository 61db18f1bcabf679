"""What integers can be after an operation, from what goes in: inclusive intervals. Pure.

Operations have TensorFlow's names, and those of OpenVINO's that TensorFlow has none for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tfopt_optimizer.engines.limits import Limits

_CORNERS: Mapping[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Minimum": min,
    "Maximum": max,
}
# Their results are values of these inputs, from one place on to another.
_AMONG = {"ConcatV2": (0, None), "Pack": (0, None), "Select": (1, 3), "SelectV2": (1, 3), "OneHot": (2, 4)}
_DIVISIONS = frozenset({"Divide", "FloorDiv"})
KNOWN = frozenset({*_CORNERS, *_AMONG, *_DIVISIONS, "Abs", "Neg", "Negative", "FloorMod", "Mod"})


def after(op: str, given: Sequence[Limits | None]) -> Limits | None:
    """None where that is not known."""
    if op in ("FloorMod", "Mod") and len(given) > 1 and given[1] is not None:
        return _remainder(op, given[1])
    start, stop = _AMONG.get(op, (0, 2))
    known = [each for each in given[start:stop] if each is not None]
    if op not in KNOWN or not known or len(known) < len(given[start:stop]):
        return None
    if op in _CORNERS:
        corners = [_CORNERS[op](a, b) for a in known[0] for b in known[1]]
        return (min(corners), max(corners))
    if op in _AMONG:
        return (min(low for low, _ in known), max(high for _, high in known))
    low, high = known[0]
    if op == "Abs":
        return (0, max(abs(low), abs(high)))
    if op in ("Neg", "Negative"):
        return (-high, -low)
    divisor, same = known[1] if op in _DIVISIONS else (0, 0)
    return (low // divisor, max(high // divisor, 0)) if 0 < divisor == same else None


def _remainder(op: str, by: Limits) -> Limits | None:
    divisor, same = by
    if not 0 < divisor == same:
        return None
    return (0 if op == "FloorMod" else 1 - divisor, divisor - 1)


def summed(span: Limits, count: int) -> Limits:
    """Of sums of up to `count` such values."""
    return (min(0, span[0] * count), max(0, span[1] * count))


def within(span: Limits | None, limit: Limits) -> bool:
    return span is not None and limit[0] <= span[0] and span[1] <= limit[1]
