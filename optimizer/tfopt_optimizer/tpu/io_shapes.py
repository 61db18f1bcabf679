"""In which form do tensors cross between the host and the TPU: as they are, as rank 1, or several as one.

A TPU holds tensors in tiles (tiles.py), so a narrow one takes up to a hundred times its values, and every tensor is a
transfer of its own. As rank 1 it has next to no padding, and many small ones are one transfer; the TPU then spends time
to bring them into their shapes. A form is taken where it loses in no batch size and gains something in one.

Values, types and what callers see stay: the host reshapes before the call, the TPU after it (parcels.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from tfopt_protos import dtypes

from tfopt_optimizer.tpu import link, tiles
from tfopt_optimizer.tpu.batch_rules import Shape
from tfopt_optimizer.wording import size

# No TPU was at hand: PCIe 3.0 x16 as it is in practice, and what a transfer costs before its first byte.
LINK_BYTES_S, TRANSFER_S = 12e9, 5e-6
SMALL = 16_384  # bytes; larger ones gain nothing from company, and the host would copy them
_LEAST_GAIN_S = 1e-6
ESTIMATED = "tile arithmetic"
TO_TPU, FROM_TPU = "to the TPU", "back"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """`index`: its place among the function's arguments or results."""

    index: int
    name: str
    dtype: str
    shape: Shape

    @property
    def by_rows(self) -> bool:
        return bool(self.shape) and self.shape is not None and self.shape[0] is None

    @property
    def row(self) -> int:
        """Values of one row; of all of it where its size is fixed."""
        assert self.shape is not None
        return math.prod(d for d in self.shape if d is not None)

    def sized(self, rows: int) -> tuple[int, ...]:
        assert self.shape is not None
        return tuple(rows if d is None else d for d in self.shape)

    @property
    def movable(self) -> bool:
        """Can it be rank 1 on the way, and be brought back into its shape without knowing the number of rows?"""
        known = self.shape is not None and None not in self.shape[1:] and 0 not in self.shape
        return known and self.dtype not in ("string", "resource", "variant")


@dataclasses.dataclass(frozen=True)
class Parcel:
    """What crosses as one tensor: `flat`, as rank 1. Several are always flat, of one type, and of equal rows."""

    tensors: tuple[Tensor, ...]
    flat: bool = False

    @property
    def by_rows(self) -> bool:
        return self.tensors[0].by_rows

    @property
    def row(self) -> int:
        return sum(t.row for t in self.tensors)

    def values(self, rows: int) -> int:
        return self.row * (rows if self.by_rows else 1)

    def crossing(self, rows: int) -> tuple[int, ...]:
        """The shape that crosses the link. ValueError where only a request can tell."""
        (first, *_) = self.tensors
        if self.flat:
            return (self.values(rows),)
        if first.shape is None or None in first.shape[1:]:
            raise ValueError(
                f"the shape of its argument {first.name!r} is {first.shape}, which only a request can tell"
            )
        return first.sized(rows)


@dataclasses.dataclass(frozen=True)
class Border:
    """Of one placed function; together they hold all its arguments that are no variables, and all its results."""

    to_tpu: tuple[Parcel, ...]
    from_tpu: tuple[Parcel, ...]

    @property
    def changed(self) -> bool:
        return any(p.flat for p in (*self.to_tpu, *self.from_tpu))


@dataclasses.dataclass(frozen=True)
class Costs:
    """Of one parcel and number of rows: bytes in tiles as its tensors are and as rank 1, seconds between the two."""

    apart: int
    flat: int
    relayout_s: float
    source: str = ESTIMATED


Weigh = Callable[[Parcel, int], Costs]


@dataclasses.dataclass(frozen=True)
class Weighed:
    """What was decided about a parcel, at the largest number of rows. `gain_s` is what a call saves, the link's time by
    assumption (LINK_BYTES_S, TRANSFER_S); `source` says where sizes and the TPU's time are from."""

    function: str
    direction: str
    tensors: tuple[str, ...]
    rows: int
    bytes_before: int
    bytes_after: int
    gain_s: float
    applied: bool
    source: str


@dataclasses.dataclass(frozen=True)
class Function:
    """`sizes`: rows that calls may have. `equal_rows`: a batch op has seen to it that all arguments, and all results,
    have equally many."""

    name: str
    arguments: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    equal_rows: bool


def estimate(parcel: Parcel, rows: int) -> Costs:
    """By arithmetic alone."""
    shapes, dtype = [t.sized(rows) for t in parcel.tensors], parcel.tensors[0].dtype
    seconds = sum(tiles.relayout_s(shape, dtype) for shape in shapes)
    if len(shapes) > 1 and parcel.by_rows:
        seconds += tiles.relayout_s((rows, parcel.row), dtype)
    flat = tiles.padded((parcel.values(rows),), dtype)
    return Costs(sum(tiles.padded(shape, dtype) for shape in shapes), flat, seconds)


def candidates(function: Function) -> Iterable[tuple[Parcel, int]]:
    """All that may have to be weighed, where less would cross the link: for those who measure before."""
    for tensors in (function.arguments, _results(function)):
        for parcel in (*_packed(function, tensors), *_alone(tensors)):
            for rows in _sizes(function, parcel):
                costs = estimate(parcel, rows)
                if costs.flat < costs.apart:
                    yield parcel, rows


def choose(function: Function, weigh: Weigh = estimate) -> tuple[Border, list[Weighed]]:
    told: list[Weighed] = []

    def side(tensors: Sequence[Tensor], movable: Sequence[Tensor], direction: str) -> tuple[Parcel, ...]:
        taken: list[Parcel] = []
        for parcel in (*_packed(function, movable), *_alone(movable)):
            if any(t in other.tensors for other in taken for t in parcel.tensors):
                continue
            found = _weighed(function, parcel, direction, weigh)
            told.append(found)
            if found.applied:
                taken.append(dataclasses.replace(parcel, flat=True))
        moved = {t.index for p in taken for t in p.tensors}
        taken += [Parcel((t,)) for t in tensors if t.index not in moved]
        return tuple(sorted(taken, key=lambda p: p.tensors[0].index))

    to_tpu = side(function.arguments, function.arguments, TO_TPU)
    border = Border(to_tpu, side(function.results, _results(function), FROM_TPU))
    return border, told


def plain(function: Function) -> Border:
    """Everything as it is."""
    return Border(tuple(Parcel((t,)) for t in function.arguments), tuple(Parcel((t,)) for t in function.results))


def lines(found: Iterable[Weighed]) -> list[str]:
    """For the log: what was done, and how often it was not worth it."""
    all_of_them = list(found)
    told = [
        f"io shapes: {w.function}: {_named(w)} {w.direction} as rank 1: {size(w.bytes_before)} become "
        f"{size(w.bytes_after)} in {w.rows} rows, {w.gain_s * 1e6:.3g} us less a call ({w.source})"
        for w in all_of_them
        if w.applied
    ]
    left = sum(not w.applied for w in all_of_them)
    return told + ([f"io shapes: {left} of {len(all_of_them)} forms weighed would gain nothing: left"] if left else [])


def _named(found: Weighed) -> str:
    if len(found.tensors) == 1:
        return found.tensors[0]
    shown = ", ".join(found.tensors[:3]) + (", ..." if len(found.tensors) > 3 else "")
    return f"{len(found.tensors)} tensors ({shown}) in one transfer"


def tensors(arguments: Iterable[tuple[str, int]], shapes: Sequence[Shape], leave: Iterable[int]) -> tuple[Tensor, ...]:
    """`arguments`: name and TensorFlow's number of the type, of all of them; `leave`: numbers of types that stay."""
    return tuple(
        Tensor(i, name, dtypes.name(number), shape)
        for i, ((name, number), shape) in enumerate(zip(arguments, shapes, strict=True))
        if number not in leave
    )


def _results(function: Function) -> list[Tensor]:
    """Without a batch op an unknown dimension of a result may be one that only running decides (tf.where)."""
    return [t for t in function.results if function.equal_rows or not t.by_rows]


def _alone(tensors: Sequence[Tensor]) -> list[Parcel]:
    return [Parcel((t,)) for t in tensors if t.movable and t.shape is not None and len(t.shape) > 1]


def _packed(function: Function, tensors: Sequence[Tensor]) -> list[Parcel]:
    """Small tensors of one type, where all are fixed or all have the rows of the batch."""
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for t in tensors:
        if t.movable and (function.equal_rows or not t.by_rows):
            small = math.prod(t.sized(max(function.sizes))) * link.item_size(t.dtype) <= SMALL
            if small:
                groups.setdefault((t.dtype, t.by_rows), []).append(t)
    return [Parcel(tuple(group)) for group in groups.values() if len(group) > 1]


def _sizes(function: Function, parcel: Parcel) -> tuple[int, ...]:
    return function.sizes if parcel.by_rows else (1,)


def _weighed(function: Function, parcel: Parcel, direction: str, weigh: Weigh) -> Weighed:
    sizes = _sizes(function, parcel)
    costs: Mapping[int, Costs] = {rows: weigh(parcel, rows) for rows in sizes}
    gains = {rows: _gain_s(parcel, found) for rows, found in costs.items()}
    most = max(sizes)
    return Weighed(
        function=function.name,
        direction=direction,
        tensors=tuple(t.name for t in parcel.tensors),
        rows=most,
        bytes_before=costs[most].apart,
        bytes_after=costs[most].flat,
        gain_s=gains[most],
        applied=min(gains.values()) >= 0 and max(gains.values()) >= _LEAST_GAIN_S,
        source=costs[most].source,
    )


def _gain_s(parcel: Parcel, costs: Costs) -> float:
    saved = (costs.apart - costs.flat) / LINK_BYTES_S + (len(parcel.tensors) - 1) * TRANSFER_S
    return saved - costs.relayout_s
