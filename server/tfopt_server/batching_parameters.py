"""TensorFlow Serving's BatchingParameters: what they mean, their defaults, and reading them from text files.

The same text comes from `--batching_parameters_file`, from `batching_params.pbtxt` in a version folder and from
`config/batching_parameters_config` beside a bare SavedModel (Vertex AI). Defaults: SharedBatchScheduler's. The checks
are those that TensorFlow Serving makes when it starts (bundle_factory_util.h, shared_batch_scheduler.h), all at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Beside saved_model.pb, in the order of precedence.
PER_MODEL_FILE = "batching_params.pbtxt"
VERTEX_FILE = "config/batching_parameters_config"


class BatchingParametersError(ValueError):
    """A file that cannot be used. `problems` holds one text for the operator per thing that is wrong."""

    def __init__(self, where: str, problems: list[str]) -> None:
        super().__init__(f"{where}: " + "; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class BatchingParameters:
    """Sizes in rows, `num_batch_threads` None: as many as there are usable cores."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int | None = None
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

    @property
    def execution_limit(self) -> int:
        """Most rows of one batch: a task may only be larger when it is split."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size is not None:
            return self.max_execution_batch_size
        return self.max_batch_size


def read(path: Path) -> BatchingParameters:
    """Reads a text file. BatchingParametersError names the file and everything that is wrong with it."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BatchingParametersError(str(path), [f"cannot be read: {error}"]) from error
    return parse(text, str(path))


def parse(text: str, where: str = "batching parameters") -> BatchingParameters:
    """BatchingParameters from protobuf text. BatchingParametersError as for `read`."""
    from google.protobuf import text_format
    from tfopt_protos import messages

    proto = messages.message("tensorflow.serving.BatchingParameters")()
    try:
        text_format.Parse(text, proto)
    except text_format.ParseError as error:
        raise BatchingParametersError(where, [f"not a BatchingParameters text: {error}"]) from error
    return from_proto(proto, where)


def from_proto(proto: Any, where: str) -> BatchingParameters:
    """As `parse`, from the message."""
    parameters = _from_proto(proto)
    if problems := _problems(parameters):
        raise BatchingParametersError(where, problems)
    return parameters


def _from_proto(proto: Any) -> BatchingParameters:
    """A wrapper message that is absent leaves the default."""
    given: dict[str, Any] = {field.name: value for field, value in proto.ListFields()}
    plain = {name: getattr(value, "value", value) for name, value in given.items()}
    if "allowed_batch_sizes" in plain:
        plain["allowed_batch_sizes"] = tuple(plain["allowed_batch_sizes"])
    return BatchingParameters(**plain)


def _problems(p: BatchingParameters) -> list[str]:
    found = []
    for name in ("max_batch_size", "num_batch_threads", "max_execution_batch_size"):
        value = getattr(p, name)
        if value is not None and value < 1:
            found.append(f"{name} must be positive; was {value}")
    if p.batch_timeout_micros < 0:
        found.append(f"batch_timeout_micros must be non-negative; was {p.batch_timeout_micros}")
    # Without splitting TensorFlow Serving takes 0 for 1, so that old configurations keep working.
    if p.max_enqueued_batches < (1 if p.enable_large_batch_splitting else 0):
        found.append(f"max_enqueued_batches must be positive; was {p.max_enqueued_batches}")
    if p.enable_large_batch_splitting and p.execution_limit > p.max_batch_size:
        found.append(
            f"max_batch_size must be greater than or equal to max_execution_batch_size when "
            f"enable_large_batch_splitting is true; were {p.max_batch_size} and {p.execution_limit}"
        )
    return found + _size_problems(p)


def _size_problems(p: BatchingParameters) -> list[str]:
    sizes = p.allowed_batch_sizes
    if not sizes:
        return []
    found = []
    if sizes[0] < 1 or any(b <= a for a, b in itertools.pairwise(sizes)):
        found.append(f"allowed_batch_sizes entries must be positive and increasing; were {list(sizes)}")
    if sizes[-1] != p.execution_limit:
        name = "max_batch_size" if p.execution_limit == p.max_batch_size else "max_execution_batch_size"
        found.append(
            f"Last entry in allowed_batch_sizes must match {name}; last entry was {sizes[-1]}; "
            f"expected {p.execution_limit}"
        )
    return found
