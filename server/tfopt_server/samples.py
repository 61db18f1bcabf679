"""What the optimizer checks and measures with: the model's warmup records, else inputs made up from its signatures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tfopt_optimizer.fingerprint import Samples
from tfopt_optimizer.plan import SignatureInfo
from tfopt_warmup import records, synthesize
from tfopt_warmup.records import Record

Feeds = dict[str, np.ndarray]
# Rows made up per signature: the largest default bucket is filled without a row twice.
ROWS = 32


@dataclass(frozen=True)
class Material:
    """`samples` per signature, made up for those in `made_up`; `source` as the plan calls it; `notes` say for which
    signatures there is nothing."""

    samples: Samples
    source: Literal["warmup", "synthesized"]
    notes: tuple[str, ...]
    made_up: tuple[str, ...] = ()


def read(model_dir: Path) -> tuple[Record, ...]:
    """The warmup records of a SavedModel, () when it has none. WarmupError as TensorFlow Serving: it fails the load."""
    path = records.path_in(model_dir)
    return tuple(records.read(path)) if path.exists() else ()


def gather(signatures: Sequence[SignatureInfo], recorded: Iterable[Record]) -> Material:
    """Samples for every signature: its records, or made-up rows where it has none."""
    found: dict[str, list[Feeds]] = {}
    for record in recorded:
        for run in record.runs:
            found.setdefault(run.signature, []).append(run.feeds)
    notes = []
    samples: dict[str, tuple[Feeds, ...]] = {}
    for signature in signatures:
        samples[signature.key] = tuple(found.get(signature.key, ())) or made_up(signature)
        if not samples[signature.key]:
            notes.append(synthesize.why_not(signature) or f"signature {signature.key!r} has no inputs")
    without = tuple(signature.key for signature in signatures if signature.key not in found)
    return Material(samples, "warmup" if found else "synthesized", tuple(notes), without)


def made_up(signature: SignatureInfo) -> tuple[Feeds, ...]:
    """Requests of one row each, all different; one request as it is where rows are not what its inputs have."""
    whole = synthesize.feeds(signature, ROWS)
    if not whole:
        return ()
    if any(array.ndim == 0 or len(array) != ROWS for array in whole.values()):
        return (whole,)
    return tuple({name: array[i : i + 1] for name, array in whole.items()} for i in range(ROWS))
