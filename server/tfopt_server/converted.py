"""Models that were converted for Cloud TPU, by tfopt or Google's converter: served on whatever device this is.

Their TPU calls become plain ones, what they place on the device stays there where a signature is cut, and the options
of their batch ops are the batching of their signatures, unless the operator or a file beside the model says otherwise.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt_server.batching_parameters import BatchingParameters

if TYPE_CHECKING:
    from tfopt_optimizer.tpu.batch_rules import BatchOptions
    from tfopt_optimizer.tpu.placed import Placed
    from tfopt_optimizer.tpu.report import Report


@dataclass(frozen=True)
class Model:
    """`folder` is what to load. `batching`: by signature, what the model's own batch ops ask for. `report`: of the
    conversion, where it lies beside the model."""

    folder: Path
    batching: Mapping[str, BatchingParameters] = field(default_factory=dict)
    report: Report | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that any of its batch ops allows."""
        return tuple(sorted({size for own in self.batching.values() for size in own.allowed_batch_sizes}))


def of(folder: Path, cache: Path, say: Callable[[str], None], *, as_it_is: bool) -> Model:
    """The model to load for the one in `folder`; itself when it was not converted.

    `as_it_is`: no optimizer proves that requests may be merged, so the model's own batch ops go on doing it.
    """
    from tfopt_optimizer.tpu import runnable
    from tfopt_optimizer.tpu.errors import ConversionError

    try:
        place, found = runnable.of(folder, cache, batched=as_it_is)
    except ConversionError:
        return Model(folder)  # whoever loads it says what is wrong, in TensorFlow's words
    except OSError as error:
        say(f"{cache} cannot be written ({error}): the converted model is kept in a temporary folder")
        place, found = runnable.of(folder, shelter(), batched=as_it_is)
    if found is None:
        return Model(folder)
    batching = {} if as_it_is else {key: _parameters(options) for key, options in found.batching.items()}
    for line in _lines(found, batching):
        say(line)
    return Model(place, batching, _report(folder, say))


def shelter() -> Path:
    """This user's folder for temporary files, the same for every load and every start: what it holds is named by its
    content, so a server that restarts or loads anew leaves one copy behind, not one each. A new folder where somebody
    else was there first: what lies in it would be loaded."""
    place = Path(tempfile.gettempdir(), f"tfopt-converted-{os.geteuid()}")
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    there = place.lstat()
    if stat.S_ISDIR(there.st_mode) and there.st_uid == os.geteuid() and not there.st_mode & 0o022:
        return place
    return Path(tempfile.mkdtemp(prefix="tfopt-converted-"))


def _report(folder: Path, say: Callable[[str], None]) -> Report | None:
    from tfopt_optimizer.tpu import report

    try:
        return report.read(folder)
    except report.ReportError as error:
        say(f"the report of the conversion is not shown: {error}")
        return None


def _parameters(options: BatchOptions) -> BatchingParameters:
    defaults = BatchingParameters()
    splitting, largest = bool(options.splitting), options.max_batch_size or defaults.max_batch_size
    return BatchingParameters(
        max_batch_size=largest,
        batch_timeout_micros=options.batch_timeout_micros or 0,
        max_enqueued_batches=options.max_enqueued_batches or defaults.max_enqueued_batches,
        num_batch_threads=options.num_batch_threads or None,
        allowed_batch_sizes=options.allowed_batch_sizes,
        enable_large_batch_splitting=splitting,
        max_execution_batch_size=(options.allowed_batch_sizes or (largest,))[-1] if splitting else None,
    )


def _lines(found: Placed, batching: Mapping[str, BatchingParameters]) -> list[str]:
    lines = [
        f"converted model: {name} was placed on a TPU{_cores(sharding.num_cores_per_replica)}: the device part here"
        for name, sharding in found.functions.items()
    ]
    for key, own in batching.items():
        sizes = ",".join(map(str, own.allowed_batch_sizes)) or "any"
        lines.append(
            f"converted model: {key} is batched as its batch op says: up to {own.max_batch_size} rows, sizes {sizes}, "
            f"{own.batch_timeout_micros} us, {own.max_enqueued_batches} batches in the queue"
        )
    return lines


def _cores(number: int) -> str:
    return f", spread over {number} cores (here --num_cores_per_replica decides)" if number > 1 else ""
