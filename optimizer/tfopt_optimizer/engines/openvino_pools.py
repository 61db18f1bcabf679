"""Padding that a maximum needs not see: zeros around what is not negative change no window's maximum.

Keras writes ResNet's and DenseNet's first pooling as ZeroPadding2D and MaxPooling2D. OpenVINO folds a Pad into what
follows it for convolutions and averages, not for MaxPool, which leaves out what lies outside of its input: the same,
where each window has a value of 0 or more. The Pad takes half a per cent of ResNet50's time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Pads = tuple[list[int], list[int]]


def fold(openvino: Any, model: Any) -> int:
    """Takes such Pads out of a model, in place; how many they were."""
    found = [(node, pads) for node in model.get_ordered_ops() if (pads := _pads(node)) is not None]
    for node, (begin, end) in found:
        told, source = node.get_attributes(), node.input_value(0).get_node().input_value(0)
        made = openvino.opset1.max_pool(source, told["strides"], begin, end, told["kernel"], "floor", "explicit")
        made.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(made.output(0))
    model.validate_nodes_and_infer_types()
    return len(found)


def _pads(node: Any) -> Pads | None:
    """How far a MaxPool's windows reach beyond the input of a Pad before it; None where there is none or it counts."""
    if node.get_type_name() != "MaxPool" or not _plain(node):
        return None
    pad = node.input_value(0).get_node()
    if pad.get_type_name() != "Pad" or not _zeros(pad) or not _never_negative(pad.input_value(0).get_node()):
        return None
    begin, end = (_constant(value) for value in pad.input_values()[1:3])
    if begin is None or end is None or np.any(begin[:2]) or np.any(end[:2]):
        return None
    window = np.array(node.get_attributes()["kernel"])
    if any(np.any(pads < 0) or np.any(pads >= window) for pads in (begin[2:], end[2:])):
        return None
    return [int(size) for size in begin[2:]], [int(size) for size in end[2:]]


def _plain(pool: Any) -> bool:
    """Whether its windows lie side by side within its input, and the places of what it found are not asked for."""
    told = pool.get_attributes()
    padded = told["auto_pad"] == "explicit" and (any(told["pads_begin"]) or any(told["pads_end"]))
    spread = any(size != 1 for size in told.get("dilations", []))
    places = any(output.get_target_inputs() for output in pool.outputs()[1:])
    known = told["auto_pad"] in ("valid", "explicit") and told["rounding_type"] == "floor"
    return known and not (padded or spread or places)


def _zeros(pad: Any) -> bool:
    values = [_constant(value) for value in pad.input_values()[3:]]
    return pad.get_attributes()["pad_mode"] == "constant" and all(v is not None and not np.any(v) for v in values)


def _never_negative(node: Any) -> bool:
    kind = node.get_type_name()
    return bool(kind == "Relu" or (kind == "Clamp" and node.get_attributes()["min"] >= 0))


def _constant(value: Any) -> Any:
    node = value.get_node()
    return np.asarray(node.data) if node.get_type_name() == "Constant" else None
