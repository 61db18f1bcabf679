"""Which batching options would TensorFlow's BatchFunction refuse, and which batches would it fail.

TensorFlow looks at these options when the first request comes, so a bad model loads and then fails every request. Here
they are refused before anything is written. The rules were read off the errors of BatchFunction in TensorFlow 2.21; the
texts in quotes are its own.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

Shape = tuple[int | None, ...] | None

NO_DIMENSION = "Batching input tensors must have at least one dimension"
UNEQUAL_ROWS = "Batching input tensors supplied in a given op invocation must have equal 0th-dimension size"
UNEQUAL_OUTPUT = (
    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors"
)
NO_OUTPUT_DIMENSION = "Batched output tensor has 0 dimensions"
UNEQUAL_DIMENSIONS = "Dimensions of inputs should match"

_REQUIRED = ("num_batch_threads", "max_batch_size", "batch_timeout_micros")


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """One entry of batch_options; None is "not given". `component` is (field, name), None for every TPU function.

    `splitting`: a request larger than the largest allowed batch size is split; on unless disabled. Sizes are in rows,
    `batch_timeout_micros` in microseconds.
    """

    line: int = 0
    component: tuple[str, str] | None = None
    num_batch_threads: int | None = None
    max_batch_size: int | None = None
    batch_timeout_micros: int | None = None
    allowed_batch_sizes: tuple[int, ...] = ()
    max_enqueued_batches: int | None = None
    splitting: bool | None = None

    @property
    def for_whom(self) -> str:
        return f'{self.component[0]} "{self.component[1]}"' if self.component else "all TPU functions"


def problems_of(given: Sequence[BatchOptions]) -> list[str]:
    """What is wrong in the option string itself, without the model."""
    found = [f"line {b.line}: batch_options: {p}" for b in given for p in _bounds(b)]
    counted = collections.Counter(b.component for b in given)
    for component, count in counted.items():
        if count > 1:
            last = [b for b in given if b.component == component][-1]
            found.append(f"line {last.line}: batch_options for {last.for_whom} are given {count} times")
    return found


def missing(options: BatchOptions) -> list[str]:
    """What new batching needs and was not given; what updates a batch op that is there needs none of it."""
    return [f"{name} is required" for name in _REQUIRED if getattr(options, name) is None]


def consistency(options: BatchOptions) -> list[str]:
    """Rules between the options, on the values that the batch op ends up with."""
    sizes, largest = options.allowed_batch_sizes, options.max_batch_size
    found = []
    if any(b <= a for a, b in itertools.pairwise(sizes)):
        found.append(f'"allowed_batch_sizes entries must be monotonically increasing", received {list(sizes)}')
    if not sizes or largest is None:
        return found
    if options.splitting is False and sizes[-1] != largest:
        found.append(
            '"final entry in allowed_batch_sizes must equal max_batch_size when enable_large_batch_splitting is '
            f'False", received {sizes[-1]} and {largest}'
        )
    elif options.splitting is not False and sizes[-1] > largest:
        found.append(
            f"max_batch_size: expected at least the largest of allowed_batch_sizes ({sizes[-1]}), received {largest}"
        )
    return found


def shapes(inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> list[str]:
    """What the function's static shapes say against batching it: dimension 0 must be the rows, of inputs and outputs.

    Unknown shapes and dimensions pass: only requests can show them.
    """
    found = [
        f'"{NO_DIMENSION}": input {name!r} is a scalar; make it a variable or give it a batch dimension'
        for name, shape in inputs.items()
        if shape == ()
    ]
    found += [
        f'"{NO_OUTPUT_DIMENSION}": output {name!r} is a scalar; keep it out of the batched function'
        for name, shape in outputs.items()
        if shape == ()
    ]
    rows = {name: shape[0] for name, shape in inputs.items() if shape}
    fixed = {n for n in rows.values() if n is not None}
    if len(fixed) > 1:
        found.append(f'"{UNEQUAL_ROWS}": {dict(sorted(rows.items()))}')
    elif fixed:
        found.append(
            f"the first dimension of the inputs is fixed to {min(fixed)}; a batch needs an unknown one: "
            "export the function with a batch dimension of None"
        )
    found += [
        f'"{UNEQUAL_OUTPUT}": output {name!r} always has {shape[0]} rows'
        for name, shape in outputs.items()
        if shape and shape[0] is not None
    ]
    return found


def cautions(inputs: Mapping[str, Shape]) -> list[str]:
    """What will fail a whole batch when requests differ: unknown dimensions after the first."""
    return [
        f'input {name!r} has shape {shape}: requests that differ there cannot share a batch ("{UNEQUAL_DIMENSIONS}"); '
        "pad to one size before the batched function"
        for name, shape in inputs.items()
        if shape is None or None in shape[1:]
    ]


def _bounds(options: BatchOptions) -> list[str]:
    least = {"num_batch_threads": 1, "max_batch_size": 1, "batch_timeout_micros": 0, "max_enqueued_batches": 1}
    found = [
        f"{name}: expected at least {bound}, received {value}"
        for name, bound in least.items()
        if (value := getattr(options, name)) is not None and value < bound
    ]
    found += [f"allowed_batch_sizes: expected at least 1, received {n}" for n in options.allowed_batch_sizes if n < 1]
    if options.component is not None and not options.component[1]:
        found.append(f"experimental.{options.component[0]} is empty")
    return found + consistency(options)
