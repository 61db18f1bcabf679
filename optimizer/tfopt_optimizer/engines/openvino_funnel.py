"""Batches whose rows go through the first layers one by one, and through the rest some at a time.

The first layers of a convolution net have small weights and large tensors: of a row alone, what a layer leaves for the
next is still in the core's cache. The last ones have large weights, better read once for several rows. So the model is
there once for each row up to a cut, a tensor that alone leads from the first part to the second, and once behind it: a
Split of the inputs, and a Concat at the cut. Results have the bits of the same kernels without it. MobileNetV2, eight
rows on two cores with AVX2: 36.5 ms, 39.6 in halves, 40.8 in single rows (docs/decisions/0209).
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np

from tfopt_optimizer.errors import NotLowerable

MOST = 4  # rows at a time: each is a copy of the first layers to compile, and eight are no faster (0209)
_LAYERS = ("Convolution", "GroupConvolution", "MatMul")


@dataclasses.dataclass(frozen=True)
class Cut:
    """`saved`: bytes that the layers before it hand on for a row, less those of their weights."""

    name: str
    saved: int


def together(batch: int | None, streams: int) -> int:
    """How many of a batch's rows go through the last layers together, on each stream as often; 0 where none do."""
    share, left = divmod(batch or 0, streams)
    return max((n for n in range(2, MOST + 1) if share and not left and share % n == 0), default=0)


def funnel(openvino: Any, model: Any) -> Any:
    """Made of a model with static shapes, for as many rows. NotLowerable when no layers are better computed row by
    row."""
    rows = model.inputs[0].get_shape()[0]
    one, behind = _of_one_row(model), model.clone()
    cut, ops = best(one).name, openvino.opset13
    given = [ops.parameter(list(port.get_shape()), port.get_element_type()) for port in behind.inputs]
    split = [ops.split(parameter, ops.constant(np.int64(0)), rows) for parameter in given]
    found = []
    for row in range(rows):
        part = one.clone()
        found.append(_named(part, cut).output(0))
        for node in part.get_ops():
            node.set_friendly_name(f"{node.get_friendly_name()}/row{row}")
        for port, pieces in zip(part.inputs, split, strict=True):
            port.get_node().output(0).replace(pieces.output(row))
    _named(behind, cut).output(0).replace(ops.concat(found, 0).output(0))
    for port, parameter in zip(
        behind.inputs, given, strict=True
    ):  # for who takes it behind the cut, or asks for its shape
        parameter.output(0).get_tensor().set_names(port.get_names())
        port.get_node().output(0).replace(parameter.output(0))
    return openvino.Model(behind.get_results(), given, model.get_friendly_name())


def best(model: Any) -> Cut:
    """Where to cut a model of one row."""
    saved, cuts = 0, list[Cut]()
    names = collections.Counter(node.get_friendly_name() for node in model.get_ops())
    for node, alone in _computed(model):
        saved += _saved(node)
        name = node.get_friendly_name()
        if alone and names[name] == 1 and list(node.get_output_shape(0))[:1] == [1]:
            cuts.append(Cut(name, saved))
    # The last of equals: what follows a layer (norm, activation) is computed within it.
    found = max(reversed(cuts), key=lambda cut: cut.saved, default=Cut("", 0))
    if found.saved <= 0:
        raise NotLowerable("it has no layers that are better computed row by row")
    return found


def _computed(model: Any) -> list[tuple[Any, bool]]:
    """The operations whose results depend on the values of an input, in order; and whether of all those until then it
    is the only one that is still needed. Results are to the end; inputs are there anyway, and so are shapes: who asks
    for one needs nothing."""
    given = {port.get_node().get_name() for port in model.inputs}
    needed, found = dict[str, set[str]](), list[tuple[Any, bool]]()
    for node in [n for n in model.get_ordered_ops() if n.get_type_name() != "Result"]:
        name, sources = node.get_name(), {value.get_node().get_name() for value in node.input_values()}
        for other in sources & needed.keys():
            needed[other].discard(name)
        if node.get_type_name() != "ShapeOf" and sources & (given | needed.keys()):
            takers = [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]
            needed[name] = {taker.get_name() for taker in takers if taker.get_type_name() != "ShapeOf"}
            alone = [other for other, left in needed.items() if left] == [name]
            found.append((node, alone and node.get_output_size() == 1))
    return found


def _saved(node: Any) -> int:
    if node.get_type_name() not in _LAYERS:
        return 0
    weights = _bytes(node.input_value(1)) if node.input_value(1).get_node().get_type_name() == "Constant" else 0
    return _bytes(node.input_value(0)) + _bytes(node.output(0)) - weights


def _bytes(port: Any) -> int:
    return int(np.prod(list(port.get_shape()))) * int(port.get_element_type().size)


def _named(model: Any, name: str) -> Any:
    return next(node for node in model.get_ops() if node.get_friendly_name() == name)


def _of_one_row(model: Any) -> Any:
    found = model.clone()
    found.reshape({port.any_name: [1, *port.get_shape()[1:]] for port in found.inputs})
    return found
