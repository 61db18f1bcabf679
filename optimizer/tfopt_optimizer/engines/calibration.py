"""Records of one signature, kept in files for the processes that quantize or cut.

The files lie in the plan's folder while the tournament runs and go with what lost.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfopt_optimizer import whole
from tfopt_optimizer.engines.base import Arrays, Feeds, Target
from tfopt_optimizer.verify import Tolerance

FOLDER, FILE, GATE = "calibration", "feeds.npz", "gate.json"
SAMPLES = "samples"  # another folder: a few calls of a signature that may be cut


def path(plan_dir: Path, target: Target) -> Path:
    """s0/calibration/feeds.npz for the target in s0/b8."""
    return (plan_dir / target.folder).parent / FOLDER / FILE


def write(folder: Path, feeds: Sequence[Feeds], gate: Tolerance) -> None:
    """`folder`: the signature's, e.g. plan_dir / "s0". Feeds are calls of any batch size; `gate` is what will judge."""
    _save(folder / FOLDER, feeds)
    whole.write(folder / FOLDER / GATE, json.dumps(dataclasses.asdict(gate)))  # last, for `there`


def there(folder: Path) -> bool:
    """Whether `write` has written it all."""
    return (folder / FOLDER / GATE).exists()


def write_samples(folder: Path, feeds: Sequence[Feeds]) -> None:
    """A few calls, from which the split learns what shapes there are inside a signature (split/observe.py)."""
    _save(folder / SAMPLES, feeds)


def samples(folder: Path) -> list[Arrays]:
    """None where none were written."""
    file = folder / SAMPLES / FILE
    return read(file) if file.exists() else []


def resized(sample: Feeds, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """A call of these shapes, made of a sample's values."""
    found = {}
    for name, shape in shapes.items():
        array = np.asarray(sample[name])
        for axis, size in enumerate(shape):
            array = np.take(array, np.arange(size) % array.shape[axis], axis)
        found[name] = array
    return found


def _save(place: Path, feeds: Sequence[Feeds]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    arrays = {f"{number}/{name}": array for number, call in enumerate(feeds) for name, array in call.items()}
    # Strings are object arrays and are pickled: the file never leaves this run.
    np.savez(place / FILE, **arrays)  # type: ignore[arg-type]


def read(file: Path) -> list[Arrays]:
    """FileNotFoundError when nothing was written: the signature has no records."""
    found: dict[int, Arrays] = {}
    with np.load(file, allow_pickle=True) as data:
        for key in data.files:
            number, _, name = key.partition("/")
            if number.isdigit():
                found.setdefault(int(number), {})[name] = data[key]
    return [found[number] for number in sorted(found)]


def gate(file: Path) -> Tolerance:
    """The bounds that were written beside the records of this file."""
    return Tolerance(**json.loads((file.parent / GATE).read_text()))
