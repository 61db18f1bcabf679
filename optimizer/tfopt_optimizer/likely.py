"""Who is tried first: the likely winner of the model's class, so that a small budget already gives most of the gain.

The classes and their winners are those that were measured (docs/decisions/0012): what a call costs beside the computing
decides small models and those that look strings up, where LiteRT wins; the rest is computing, where OpenVINO does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeVar

HOST = "host+"  # before the engine of a split signature's device segments
PACKED = "f32-packed"  # openvino's variant; with -s and a number, on so many streams
SMALL_US = 3_000.0  # a call of plain TensorFlow below this is mostly overhead
_SMALL = ("litert", "tensorflow", "onnxruntime", "openvino", "xla")
_COMPUTING = ("openvino", "litert", "onnxruntime", "xla", "tensorflow")


class Named(Protocol):
    @property
    def engine(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def heavy(self) -> bool: ...
    @property
    def reserve(self) -> bool: ...
    @property
    def precision(self) -> str: ...


Entrant = TypeVar("Entrant", bound=Named)


def runs_own_graph(engine: str, variant: str) -> bool:
    """Whether it runs the SavedModel's own graph where it serves."""
    return engine == "tensorflow" or variant == "jit" or engine.startswith(HOST)


def takes_any(engine: str, variant: str) -> bool:
    """Whether one runner can take any number of rows at any inner sizes (Target.open), each for what it costs. Of
    streams that share the rows one row more may cost as much as two."""
    shared = re.search(r"-s\d+$", variant) or "winograd" in variant
    return engine == "onnxruntime" or (engine == "openvino" and not shared)


def packs(engine: str, variant: str) -> bool:
    """Whether it takes rows of all lengths at once and leaves their filling out (passes/packing.py)."""
    return engine == "openvino" and variant.startswith(PACKED)


def by_rows(engine: str, variant: str) -> bool:
    """Whether it takes any rows one by one on several streams: rows of all lengths then run side by side."""
    return takes_any(engine, variant) and bool(re.search(r"-s\d+p1$", variant))


def order(
    entrants: Sequence[Entrant],
    *,
    strings: bool,
    reference_us: float,
    large: bool,
    accelerated: bool = False,
    winners: Mapping[tuple[str, str], int] = MappingProxyType({}),
) -> list[Entrant]:
    """The likely winner first. `winners`: how many of the model's other buckets an (engine, variant) won; after it come
    those that compute as it does, on other streams. `large`: its weights take a heavy converter long, which is
    therefore left for last. Reserves wait for what the others can do. Lossy candidates come after all exact ones, of
    whose models they are made. `accelerated`: xla runs on an accelerator."""
    engines: tuple[str, ...] = _SMALL if strings or reference_us < SMALL_US else _COMPUTING
    if accelerated:
        engines = ("xla", *(e for e in engines if e != "xla"))

    kin = Counter[tuple[str, str]]()
    for (engine, variant), times in winners.items():
        kin[engine, _alike(variant)] += times

    def rank(entrant: Entrant) -> tuple[bool, int, int, bool, bool, int, bool]:
        whole = entrant.engine.removeprefix(HOST)  # a split signature's follow the engine that takes it whole
        place = engines.index(whole) if whole in engines else len(engines)
        if packs(entrant.engine, entrant.variant):  # it takes part only where much of what is sent is filling
            place = -1
        won, split = winners.get((entrant.engine, entrant.variant), 0), whole != entrant.engine
        related = kin[entrant.engine, _alike(entrant.variant)]
        return bool(entrant.precision), -won, -related, entrant.reserve, large and entrant.heavy, place, split

    return sorted(entrants, key=rank)


def _alike(variant: str) -> str:
    """The variant, whichever way a batch is shared among its streams."""
    return re.sub(r"(-funnel)?-s\d+(p1)?$", "", variant)
