"""`parameters` of a Vertex AI predict request that a signature takes as inputs: one value for all rows. Pure.

    {"instances": [{"x": 1.0}, {"x": 2.0}], "parameters": {"temperature": 0.5, "confidence": 0.9}}

A member that names an input which the instances (or `inputs`) leave out is that input's value: repeated for every row
where the input has a dimension of rows and the value lacks it, else as it is. All other members are left alone: clients
send parameters that only some models know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt_server.errors import invalid
from tfopt_server.rest import walk
from tfopt_server.rest.values import Array, is_base64_object, to_array

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo, TensorInfo


def split(
    sent: Mapping[str, Any], document: Mapping[str, Any], signature: SignatureInfo
) -> tuple[list[TensorInfo], SignatureInfo]:
    """The inputs that parameters give, and the signature of the others. The instances must have something to give."""
    named = _named(document)
    given = [i for i in signature.inputs if i.name in sent and i.name not in named]
    rest = tuple(i for i in signature.inputs if i not in given)
    if not given or not rest:
        return [], signature
    return given, dataclasses.replace(signature, inputs=rest)


def _named(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the first row, or `inputs`, names by itself."""
    instances = document.get("instances")
    first = instances[0] if type(instances) is list and instances else document.get("inputs")
    return first if type(first) is dict and not is_base64_object(first) else {}


def feeds(sent: Mapping[str, Any], given: Sequence[TensorInfo], count: int) -> dict[str, Array]:
    """Their arrays. `count`: rows of the other inputs, 0 where they have none in common."""
    return {info.name: _feed(sent[info.name], info, count) for info in given}


def _feed(value: Any, info: TensorInfo, count: int) -> Array:
    array = to_array(value, info.dtype)
    if array is None:
        problem = walk.explain_column(value, info.name, {info.name: info.dtype})
        raise invalid(f"parameters: {info.name}: {problem.message}") from problem
    shape = info.shape
    if count and shape and shape[0] is None and array.ndim == len(shape) - 1:
        return np.ascontiguousarray(np.broadcast_to(array, (count, *array.shape)))
    return array
