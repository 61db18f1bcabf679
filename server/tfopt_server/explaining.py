"""Sampled Shapley attributions of a model's outputs to its inputs, run batch by batch through the dataplane.

    run = Run(plane, handle, key, deadline, unwanted)
    found = explain(run, job, predictions(run, job), picked)

One batch is in flight at a time, through the same queue as everybody's requests: a predict waits for at most one batch
of an explanation, and an explanation for its turn. Nothing here knows a face.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfopt_server import rows, shapley
from tfopt_server.dataplane import Dataplane
from tfopt_server.errors import Code, ServingError
from tfopt_server.registry import Handle
from tfopt_server.rows import Arrays, Feeds
from tfopt_server.shapley import Attributions, Floats

Array = npt.NDArray[Any]
# Rows that run together where the rows depend on each other: each coalition is a request of its own then.
ALONE = 1


class Players(NamedTuple):
    """Who plays: for every input that has features, the player of each element of one row; -1: none, the instance's
    value always stands."""

    owners: Mapping[str, npt.NDArray[np.intp]]
    number: int


class Picked(NamedTuple):
    """Which elements of an output are explained: of instance i, flat index `indices[i, j]` of a row of `output`."""

    output: str
    indices: npt.NDArray[np.intp]


class Explained(NamedTuple):
    """The mean over the baselines: `baseline` and `instance` are outputs [instances, picked]; of each instance the
    attributions of [players, picked]."""

    baseline: Floats
    instance: Floats
    attributions: Sequence[Attributions]


class Run:
    """How a signature is called: with what limit of time, and until who gives up."""

    def __init__(
        self, plane: Dataplane, handle: Handle, key: str, deadline: float, unwanted: Callable[[], bool]
    ) -> None:
        self._plane, self._handle, self._key = plane, handle, key
        self._deadline, self._unwanted = deadline, unwanted
        self.batch = plane.batch_rows(handle, key)

    def outputs(self, feeds: Feeds, wanted: Sequence[str] | None = None) -> Arrays:
        """One call. DEADLINE_EXCEEDED, and CANCELLED once nobody wants the answer any more."""
        if self._unwanted():
            raise ServingError(Code.CANCELLED, "The client has left")
        begun = self._plane.start(self._handle, self._key, feeds, wanted, self._deadline, "REST", api="Explain")
        if not isinstance(begun, Future):
            return begun.outputs
        try:
            return begun.result(max(0.0, self._deadline - time.monotonic())).outputs
        except TimeoutError as error:
            begun.cancel()
            raise ServingError(Code.DEADLINE_EXCEEDED, "Explaining timed out") from error


class Job(NamedTuple):
    """`instances` and `baselines`: [n, ...] per input with rows; `constants` are fed as they are. `rows`: number of
    instances, `starts`: number of baselines."""

    instances: Feeds
    baselines: Feeds
    constants: Feeds
    rows: int
    starts: int
    players: Players
    paths: int


def predictions(run: Run, job: Job) -> Arrays:
    """The outputs of all instances: a batch at a time too, for a request of many would be many batches in a row."""
    size = run.batch or job.rows
    parts = []
    for start in range(0, job.rows, size):
        stop = min(start + size, job.rows)
        parts.append(run.outputs({**rows.cut(job.instances, start, stop), **job.constants}))
        if size < job.rows:
            rows.check(parts[-1], stop - start)
    return parts[0] if len(parts) == 1 else rows.rejoined(parts)


def cost(job: Job) -> int:
    """Rows that explaining runs besides the instances themselves: the coalitions between, and the baseline."""
    return job.rows * job.starts * (shapley.count_of(job.players.number, job.paths) + 1)


def explain(run: Run, job: Job, predicted: Arrays, picked: Picked) -> Explained:
    """`predicted`: the outputs of all instances together, as a predict answers them."""
    design = shapley.of(job.players.number, job.paths)
    values = _values(run, job, design, picked)
    indices = picked.indices[:, None, :]
    full = np.take_along_axis(_flat(predicted[picked.output], job.rows)[:, None, :], indices, axis=2)[:, 0]
    if not run.batch:
        # What the others in a request are changes what a row gives: each instance counts as it is alone.
        full = values[:, 0, -1]
    found = [
        _mean([design.attributions(v[0], full[i], v[1 : design.count + 1]) for v in values[i]]) for i in range(job.rows)
    ]
    return Explained(values[:, :, 0].mean(axis=1), full, found)


def _values(run: Run, job: Job, design: shapley.Design, picked: Picked) -> Floats:
    """The picked outputs of every coalition, [instances, baselines, coalitions, picked]: the empty one first; the full
    one last, where rows depend on each other."""
    size = run.batch or ALONE
    each = design.count + (1 if run.batch else 2)
    total = job.rows * job.starts * each
    found = np.empty((total, picked.indices.shape[1]))
    for start in range(0, total, size):
        numbers = np.arange(start, min(start + size, total))
        instance, rest = np.divmod(numbers, job.starts * each)
        baseline, coalition = np.divmod(rest, each)
        feeds = _mixed(job, _masks(design, coalition), instance, baseline)
        outputs = run.outputs({**feeds, **job.constants}, (picked.output,))
        flat = _flat(outputs[picked.output], len(numbers))
        found[numbers] = np.take_along_axis(flat, picked.indices[instance], axis=1)
    return found.reshape(job.rows, job.starts, each, -1)


def _masks(design: shapley.Design, coalition: npt.NDArray[np.intp]) -> shapley.Masks:
    """As the design's masks, with the empty coalition in front and the full one behind, and one more column: what
    belongs to no player (-1) always has the instance's value."""
    found = np.zeros((len(coalition), design.players + 1), np.bool_)
    inner = (coalition > 0) & (coalition <= design.count)
    if inner.any():
        found[inner, :-1] = design.masks(coalition[inner] - 1)
    found[coalition > design.count] = True
    found[:, -1] = True
    return found


def _mixed(job: Job, masks: shapley.Masks, instance: npt.NDArray[np.intp], baseline: npt.NDArray[np.intp]) -> Feeds:
    """Row by row the instance's elements where their player takes part, the baseline's elsewhere."""
    return {
        name: np.where(masks[:, job.players.owners[name]], rows[instance], job.baselines[name][baseline])
        for name, rows in job.instances.items()
    }


def _flat(output: Array, count: int) -> Floats:
    """[rows, elements] as float64. FAILED_PRECONDITION for an output without a row per instance."""
    if output.ndim == 0 or len(output) != count:
        shape = list(output.shape)
        raise ServingError(
            Code.FAILED_PRECONDITION, f"The explained output has shape {shape} for {count} rows: it is not one per row"
        )
    return np.asarray(output.reshape(count, -1)).astype(np.float64)


def _mean(found: Sequence[Attributions]) -> Attributions:
    """Over baselines; the error is the largest one's."""
    values = np.mean([each.values for each in found], axis=0)
    errors = [each.errors for each in found if each.errors is not None]
    return Attributions(values, np.max(errors, axis=0) if len(errors) == len(found) else None)
