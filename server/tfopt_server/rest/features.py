"""A signature's inputs as features with baselines, its output as what is explained: a Spec applied to a request. Pure.

Every scalar of an input is a feature of its own (a player); the inputs of a group are one together. What a request
gives in `parameters`, and what has no row per instance, is no feature.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfopt_server.errors import ServingError, invalid
from tfopt_server.explaining import Job, Picked, Players
from tfopt_server.rest.explanation_spec import Output, Spec, names, shown
from tfopt_server.rest.values import Array, to_array
from tfopt_server.rows import Arrays, Feeds

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo, TensorInfo

_NOT_EXPLAINED = ("string", "complex64", "complex128", "resource", "variant")


@dataclasses.dataclass(frozen=True)
class Feature:
    """What one key of featureAttributions stands for: an input, each element a player, or a group, one player.

    `owners`: the player of each element, by input. `baselines` [n, ...] likewise.
    """

    key: str
    owners: Mapping[str, npt.NDArray[np.intp]]
    baselines: Mapping[str, Array]
    grouped: bool = False

    def written(self, values: npt.NDArray[np.float64]) -> Any:
        """Its part of the players' `values`: a number, or nested lists of them in the input's shape."""
        owners = next(iter(self.owners.values()))
        return float(values[owners.ravel()[0]]) if self.grouped and owners.size else values[owners].tolist()


@dataclasses.dataclass(frozen=True)
class Target:
    """The explained output: under which key, which of the signature's, and where its display names are."""

    key: str
    output: str
    spec: Output

    def display_name(self, place: tuple[int, ...], row: int, predicted: Arrays) -> str:
        """Of one element; "" where there is none."""
        if self.spec.names_from:
            found = predicted[self.spec.names_from]
            if found.shape != predicted[self.output].shape:
                raise invalid(
                    f"displayNameMappingKey: expected an output of shape {list(predicted[self.output].shape)}, as "
                    f"{self.output!r} has, received {self.spec.names_from!r} of shape {list(found.shape)}"
                )
            value = found[(row, *place)]
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        value = self.spec.names
        for index in place:
            value = value[index] if type(value) is list and index < len(value) else None
        return value if type(value) is str else ""


def features(spec: Spec, signature: SignatureInfo, feeds: Feeds, parameters: frozenset[str]) -> list[Feature]:
    """The features of a request in the spec's order, else the signature's; players are numbered in that order."""
    rows = _rows(feeds, signature, parameters)
    chosen = _chosen(spec, signature, rows)
    if unknown := [key for key in spec.overrides if key not in chosen]:
        raise invalid(f"explanation_spec_override: {unknown[0]!r} is no feature; there are {names(list(chosen))}")
    grouped: dict[str, list[tuple[str, TensorInfo]]] = {}
    for key, info in chosen.items():
        group = spec.inputs[key].group if key in spec.inputs else ""
        grouped.setdefault(f"g{group}" if group else f"k{key}", []).append((key, info))
    found, players = [], 0
    for name, members in grouped.items():
        owners, baselines = {}, {}
        alone = name.startswith("k")
        for key, info in members:
            shape = feeds[info.name].shape[1:]
            size = int(np.prod(shape)) if alone else 0
            numbers = np.arange(size) if alone else np.zeros(int(np.prod(shape)), np.intp)
            owners[info.name] = players + numbers.reshape(shape).astype(np.intp)
            given = spec.overrides.get(key) or (spec.inputs[key].baselines if key in spec.inputs else ())
            baselines[info.name] = _baselines(key, info, given, feeds[info.name])
        players += size if alone else 1
        found.append(Feature(name[1:], owners, baselines, grouped=not alone))
    return found


def _rows(feeds: Feeds, signature: SignatureInfo, parameters: frozenset[str]) -> list[TensorInfo]:
    """The inputs that have a row for every instance."""
    own = [i for i in signature.inputs if i.name not in parameters]
    counts = [len(feeds[i.name]) for i in own if feeds[i.name].ndim]
    return [i for i in own if feeds[i.name].ndim and len(feeds[i.name]) == counts[0]]


def _chosen(spec: Spec, signature: SignatureInfo, rows: Sequence[TensorInfo]) -> dict[str, TensorInfo]:
    """The inputs that are features, by the key under which the spec has them."""
    if not spec.inputs:
        return {i.name: i for i in rows}
    found = {}
    for key, each in spec.inputs.items():
        wanted = each.tensor or key
        info = next((i for i in rows if wanted in (i.name, i.tensor)), None)
        if info is None:
            have = names([i.name for i in rows])
            raise invalid(f"explanation metadata: inputs: {key}: no input {wanted!r}; there are {have}")
        found[key] = info
    return found


def _baselines(key: str, info: TensorInfo, given: Sequence[Any], rows: Array) -> Array:
    """[baselines, ...] of the input's own shape; a scalar stands for all its elements."""
    if not given:
        blank = np.zeros((1, *rows.shape[1:]), rows.dtype)
        if rows.dtype == object:
            blank[...] = b""
        return blank
    found = np.empty((len(given), *rows.shape[1:]), rows.dtype)
    for at, value in enumerate(given):
        one = to_array(value, info.dtype)
        if one is None or one.shape not in ((), rows.shape[1:]):
            raise invalid(
                f"inputBaselines of {key}: expected {info.dtype} of shape {list(rows.shape[1:])} or one value for all, "
                f"received {shown(value)}"
            )
        found[at] = one if one.ndim else one[()]
    return found


def job(found: Sequence[Feature], feeds: Feeds, paths: int) -> Job:
    owners = {name: numbers for feature in found for name, numbers in feature.owners.items()}
    baselines = {name: values for feature in found for name, values in feature.baselines.items()}
    starts = max((len(values) for values in baselines.values()), default=1)
    for name, values in baselines.items():
        if len(values) not in (1, starts):
            raise invalid(f"inputBaselines: {name} has {len(values)}, and others have {starts}; expected as many, or 1")
        baselines[name] = np.broadcast_to(values, (starts, *values.shape[1:]))
    rows = next((len(feeds[name]) for name in owners), 0)
    if not rows:
        raise invalid("There is no input with a row per instance to explain")
    for name, array in feeds.items():  # what is no feature but has rows goes with its instance
        if name not in owners and array.ndim and len(array) == rows:
            owners[name] = np.full(array.shape[1:], -1, np.intp)
            baselines[name] = np.broadcast_to(array[:1], (starts, *array.shape[1:]))
    instances = {name: feeds[name] for name in owners}
    constants = {name: array for name, array in feeds.items() if name not in owners}
    count = max((int(numbers.max()) + 1 for numbers in owners.values() if numbers.size), default=0)
    return Job(instances, baselines, constants, rows, starts, Players(owners, count), paths)


def target(spec: Spec, signature: SignatureInfo) -> Target:
    """The output that the spec names, else the only numeric one."""
    numeric = [o for o in signature.outputs if o.dtype not in _NOT_EXPLAINED]
    have = names([o.name for o in numeric])
    if not spec.outputs:
        if len(numeric) != 1:
            raise invalid(
                f"expected the output to explain in the metadata's outputs; the signature has these numbers: {have}"
            )
        return Target(numeric[0].name, numeric[0].name, Output())
    ((key, output),) = spec.outputs.items()
    wanted = output.tensor or key
    found = next((o for o in numeric if wanted in (o.name, o.tensor)), None)
    if found is None:
        raise invalid(f"explanation metadata: outputs: {key}: no numeric output {wanted!r}; there are {have}")
    if output.names_from and output.names_from not in {o.name for o in signature.outputs}:
        raise invalid(f"displayNameMappingKey: no output {output.names_from!r} in the signature")
    return Target(key, found.name, output)


def picked(spec: Spec, wanted: Target, predicted: Arrays, rows: int) -> Picked:
    """The elements of the output to explain: those that are named, else the largest of each row."""
    output = predicted[wanted.output]
    if output.ndim == 0 or len(output) != rows:
        raise invalid(f"output {wanted.output!r} has shape {list(output.shape)}: expected a row for each of {rows}")
    flat = output.reshape(rows, -1).astype(np.float64)
    size = flat.shape[1]
    if spec.indices and output.ndim > 1:
        one = np.array([_index(index, output.shape[1:]) for index in spec.indices], np.intp)
        return Picked(wanted.output, np.broadcast_to(one, (rows, len(one))))
    top = size if spec.top < 0 else min(spec.top, size)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :top]
    return Picked(wanted.output, order)


def _index(index: Any, shape: tuple[int, ...]) -> int:
    place = index if type(index) is list else [index]
    fits = len(place) == len(shape) and all(
        type(p) is int and 0 <= p < size for p, size in zip(place, shape, strict=False)
    )
    if not fits:
        raise _no_index(index, shape)
    return int(np.ravel_multi_index(tuple(place), shape))


def _no_index(index: Any, shape: tuple[int, ...]) -> ServingError:
    return invalid(f"outputIndices: expected an index into a row of shape {list(shape)}, received {shown(index)}")
